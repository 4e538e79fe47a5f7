"""Who is meant by a name: a profile's pin, a selector, a model of ours or of a peer. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from proxy.config import Config, PeerModel, Selector
from proxy.errors import ModelNotFound

SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Local:
    """A model of ours."""

    model_id: str
    asked: str  # the name of it that leads here: its id, an alias, an id with parameters

    @property
    def name(self) -> str:
        """Under which it is told of."""
        return self.model_id


Place: TypeAlias = Local | PeerModel


@dataclass(frozen=True, slots=True)
class Load:
    """How busy everybody is just now."""

    states: Mapping[str, str]  # of the models that have a worker: starting, ready, stopping
    counts: Mapping[str, int]  # of requests, by the names of places


def find(
    config: Config,
    name: str,
    pins: Mapping[str, str],
    look: Callable[[], Load],
    *,
    has_pictures: bool = False,
) -> Place:
    """Find who is to answer. Raises ModelNotFound.

    `pins` are those of the active profile; `look` is asked only for a selector that wants it. One
    that has a choice leads a request with pictures to who may see them, if there is any.
    """
    target = _pinned(name, pins)
    selector = config.selectors.get(target)
    if selector is not None:
        if has_pictures and selector.strategy != "pin":
            selector = _seeing(config, selector)
        target = _chosen(config, selector, look)
    place = place_of(config, target)
    if place is None:
        raise no_such_model(config, name)
    return place


def exact(config: Config, name: str, pins: Mapping[str, str]) -> Place | None:
    """Find who is meant where no selector counts. Raises ModelNotFound for what is pinned off."""
    return place_of(config, _pinned(name, pins))


def place_of(config: Config, name: str) -> Place | None:
    """Find the model with this name: ours first."""
    model_id = config.resolve(name)
    return config.peer_models.get(name) if model_id is None else Local(model_id, name)


def no_such_model(config: Config, name: str) -> ModelNotFound:
    """Make the error; it says what there is."""
    shown = name[:SHOWN_CHARACTERS]
    near, all_ = config.near(shown), listed_names(config)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(all_)}"
    return ModelNotFound(f"no model is named {shown!r}; {hint} (GET /v1/models)", param="model")


def listed_names(config: Config) -> list[str]:
    """Name everything that is listed, each once."""
    own = [name for name, one in config.models.items() if not one.unlisted]
    chosen = [name for name, one in config.selectors.items() if not one.unlisted]
    return [*own, *chosen, *_peers_names(config)]


def _peers_names(config: Config) -> list[str]:
    return list(dict.fromkeys(model.name for model in config.peer_models.values()))


def _pinned(name: str, pins: Mapping[str, str]) -> str:
    target = pins.get(name, name)
    if not target and name in pins:
        shown = name[:SHOWN_CHARACTERS]
        told = f"the active profile takes {shown!r} away; GET /api/profiles, or another model"
        raise ModelNotFound(told, param="model")
    return target


def _chosen(config: Config, selector: Selector, look: Callable[[], Load]) -> str:
    match selector.strategy:
        case "pin":
            return selector.targets[0]
        case "warm":
            return _warm(config, selector, look())
        case "spillover":
            return _spilled(config, selector, look())
        case _:
            assert_never(selector.strategy)


def _seeing(config: Config, selector: Selector) -> Selector:
    """Leave out the targets that are known to be blind, unless all of them are."""
    places = {target: place_of(config, target) for target in selector.targets}
    able = tuple(
        target
        for target, place in places.items()
        if not isinstance(place, Local) or config.models[place.model_id].sees is not False
    )
    return selector.model_copy(update={"targets": able or selector.targets})


def _warm(config: Config, selector: Selector, load: Load) -> str:
    """Choose the first that is ready, else the first that soon is, else the first."""
    states = [load.states.get(config.names[target]) for target in selector.targets]
    for state in ("ready", "starting"):
        if state in states:
            return selector.targets[states.index(state)]
    return selector.targets[0]


def _spilled(config: Config, selector: Selector, load: Load) -> str:
    """Choose the least busy of those that are up, until all have enough: then one that is not."""
    counts: dict[str, int] = {}
    up: list[str] = []
    down: list[str] = []
    for target in selector.targets:
        place = place_of(config, target)
        name = place.name if place is not None else target
        counts[target] = load.counts.get(name, 0)
        state = load.states.get(name)
        if state == "stopping":
            continue
        (up if state is not None or counts[target] else down).append(target)
    free = [target for target in up if counts[target] < selector.settings.spillover]
    candidates = free or down[:1] or up or selector.targets
    return min(candidates, key=lambda target: counts[target])
