"""Who may be seated beside whom: `groups`, `matrix` and `routing`, and the rules they make."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from proxy.config.document import Problem, Where
from proxy.config.expression import Way, read_ways
from proxy.config.section import PRIORITY_MOST, Section
from proxy.scheduler import Company, Group, ModelName, by_groups, by_sets

if TYPE_CHECKING:
    from proxy.config.schema import Config

AT_TOP: Where = ()
IN_ROUTING: Where = ("routing", "router", "settings")
PRIORITIES: Where = ("routing", "scheduler", "settings", "fifo", "priority")


def _var(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9.-]{1,32}", name):
        raise ValueError("a var is 1 to 32 letters, digits, dots and dashes")
    return name


def _some_sets(sets: dict[str, str]) -> dict[str, str]:
    if not sets:
        raise ValueError("is empty: name at least one set of models that may be seated at once")
    return sets


class GroupConfig(Section):
    """An entry of `groups`."""

    members: tuple[str, ...]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False


class MatrixConfig(Section):
    """The section `matrix`: which models may be seated at once."""

    vars: dict[Annotated[str, AfterValidator(_var)], str] = Field(default_factory=dict)
    evict_costs: Annotated[dict[str, PositiveInt], Field(alias="evict_costs")] = Field(
        default_factory=dict
    )
    sets: Annotated[dict[str, str], AfterValidator(_some_sets)]


class RouterSettings(Section):
    """The section `routing.router.settings`."""

    groups: dict[str, GroupConfig] = Field(default_factory=dict)
    matrix: MatrixConfig | None = None


class Router(Section):
    """The section `routing.router`: which of its settings count."""

    use: Literal["group", "matrix"] | None = None
    settings: RouterSettings = RouterSettings()


class Fifo(Section):
    """The section `routing.scheduler.settings.fifo`."""

    priority: dict[str, int] = Field(default_factory=dict)


class QueueSettings(Section):
    """The section `routing.scheduler.settings`."""

    fifo: Fifo = Fifo()


class Queueing(Section):
    """The section `routing.scheduler`."""

    use: Literal["fifo"] = "fifo"
    settings: QueueSettings = QueueSettings()


class Routing(Section):
    """The section `routing`."""

    router: Router = Router()
    scheduler: Queueing = Queueing()


@dataclass(slots=True)
class CompanyRead:
    """The rules of a config, and what is wrong with them."""

    company: Company = field(default_factory=Company)
    problems: list[Problem] = field(default_factory=list)


def read_company(config: Config) -> CompanyRead:
    """Make the rules; with problems they are not complete."""
    out, place, told = CompanyRead(), *_counting(config)
    out.problems += _contradictions(config, is_at_top=place == AT_TOP)
    if isinstance(told, MatrixConfig):
        out.company = _Sets(config, told, (*place, "matrix"), out.problems).company()
    elif told:
        groups = _groups(config, told, (*place, "groups"), out.problems)
        out.company = by_groups(map(ModelName, config.models), groups)
    out.problems += _unknown_priorities(config)
    return out


def rules_told(config: Config) -> Iterator[str]:
    """Tell the rules that count, for people: a line for each group, or each set."""
    _, told = _counting(config)
    if isinstance(told, MatrixConfig):
        yield from (f"set {name}: {said}" for name, said in told.sets.items())
        return
    for group_id, group in told.items():
        rules = [flag for flag in ("swap", "exclusive", "persistent") if getattr(group, flag)]
        yield f"group {group_id}: {', '.join(group.members)} ({', '.join(rules) or 'no rules'})"


def _counting(config: Config) -> tuple[Where, MatrixConfig | Mapping[str, GroupConfig]]:
    """Tell which rules count, of all that are said, and where they stand."""
    if config.groups or config.matrix is not None:
        return AT_TOP, config.groups if config.matrix is None else config.matrix
    router = config.routing.router
    if router.use == "matrix" and router.settings.matrix is not None:
        return IN_ROUTING, router.settings.matrix
    return IN_ROUTING, router.settings.groups


def _contradictions(config: Config, *, is_at_top: bool) -> Iterator[Problem]:
    router = config.routing.router
    settings, where = router.settings, IN_ROUTING[:-1]
    if config.groups and config.matrix is not None:
        yield Problem(("matrix",), "there are groups as well: leave out one of the two")
    if is_at_top and router.model_fields_set:
        told = "groups or a matrix stand at the top level as well: keep those here alone"
        yield Problem(where, told)
    elif router.use == "matrix" and settings.matrix is None:
        yield Problem((*where, "use"), "is matrix, but settings.matrix is missing")
    elif router.use is None and settings.matrix is not None:
        told = "counts only with routing.router.use: matrix"
        yield Problem((*IN_ROUTING, "matrix"), told, passes=True)


def priorities(config: Config) -> Mapping[str, int]:
    """Give each model's priority: its own, and what the queue adds to it."""
    added = _added(config)
    sums = {name: model.priority + added.get(name, 0) for name, model in config.models.items()}
    return {name: max(-PRIORITY_MOST, min(n, PRIORITY_MOST)) for name, n in sums.items()}


def notes_on_company(config: Config) -> Iterator[Problem]:
    """Tell which priorities count for less than is said."""
    added = _added(config)
    for name, said in config.routing.scheduler.settings.fifo.priority.items():
        counts = added[config.names[name]]
        if counts != said:
            told = f"counts as {counts}: priorities go from -{PRIORITY_MOST} to {PRIORITY_MOST}"
            yield Problem((*PRIORITIES, name), told)


def _added(config: Config) -> Mapping[str, int]:
    """Give the priorities in the queue, each smaller in proportion if one goes too far."""
    said = config.routing.scheduler.settings.fifo.priority
    most = max(map(abs, said.values()), default=0)
    scale = min(1.0, PRIORITY_MOST / most) if most else 1.0
    return {config.names[name]: round(scale * n) for name, n in said.items()}


def _unknown_priorities(config: Config) -> Iterator[Problem]:
    problems: list[Problem] = []
    known: set[ModelName] = set()
    for name in config.routing.scheduler.settings.fifo.priority:
        with _noting(problems, *PRIORITIES, name):
            model = _model(config, name)
            if model in known:
                raise ValueError(f"{model!r} has another name here too")
            known.add(model)
    yield from problems


def _model(config: Config, name: str) -> ModelName:
    """Find the model. Raises ValueError."""
    model_id = config.resolve(name)
    if model_id is None:
        raise ValueError(config.absent(name, config.names))
    return ModelName(model_id)


@contextmanager
def _noting(problems: list[Problem], *where: str) -> Iterator[None]:
    """Let a mistake be a problem of the place."""
    try:
        yield
    except ValueError as error:
        problems.append(Problem(where, str(error)))


def _groups(
    config: Config, told: Mapping[str, GroupConfig], place: Where, problems: list[Problem]
) -> Iterator[Group]:
    homes: dict[ModelName, str] = {}
    for group_id, group in told.items():
        members: list[ModelName] = []
        for index, name in enumerate(group.members):
            with _noting(problems, *place, group_id, "members", str(index)):
                member = _model(config, name)
                home = homes.setdefault(member, group_id)
                if home != group_id:
                    raise ValueError(f"{name!r} is a member of the group {home!r} already")
                if member in members:
                    raise ValueError(f"{name!r} is a member twice")
                members.append(member)
        yield Group(tuple(members), group.swap, group.exclusive, group.persistent)


class _Sets:
    """Reads a matrix, set by set; one may refer to others."""

    def __init__(
        self, config: Config, told: MatrixConfig, place: Where, problems: list[Problem]
    ) -> None:
        self._config = config
        self._told = told
        self._place = place
        self._problems = problems
        self._vars: dict[str, ModelName] = {}
        self._known: dict[str, Sequence[Way]] = {}
        self._open: list[str] = []  # the set that is being read, after those that led to it

    def company(self) -> Company:
        for var, name in self._told.vars.items():
            self._vars[var] = ModelName(name)  # so that a wrong one is told of once
            with self._noting("vars", var):
                self._vars[var] = _model(self._config, name)
        evict_costs = {}
        for name, cost in self._told.evict_costs.items():
            with self._noting("evict_costs", name):
                evict_costs[self._member(name)] = cost
        ways = [way for name in self._told.sets for way in self._ways(name)]
        return by_sets(map(ModelName, self._config.models), ways, evict_costs)

    def _noting(self, *where: str) -> AbstractContextManager[None]:
        return _noting(self._problems, *self._place, *where)

    def _member(self, word: str) -> ModelName:
        """Find the model of a var, or by its name. Raises ValueError."""
        return self._vars.get(word) or _model(self._config, word)

    def _ways(self, name: str) -> Sequence[Way]:
        """List what the set stands for; nothing, if there is a mistake in it."""
        if name not in self._known:
            self._open.append(name)
            with self._noting("sets", name):
                self._known[name] = read_ways(self._told.sets[name], self._member, self._named)
            self._open.pop()
        return self._known.setdefault(name, ())

    def _named(self, name: str) -> Sequence[Way]:
        """List what another set stands for. Raises ValueError."""
        if name not in self._told.sets:
            raise ValueError(f"there is no set {name!r}")
        if name in self._open:
            circle = " → ".join([*self._open[self._open.index(name) :], name])
            raise ValueError(f"leads back to itself: {circle}")
        return self._ways(name)
