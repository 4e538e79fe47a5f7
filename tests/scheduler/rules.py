"""Who may be seated beside whom, as a listener understands the rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.scheduler import Company, Group, ModelName, by_groups, by_sets

NAMES = tuple(map(ModelName, "abcde"))  # of all models that there ever are
Way = frozenset[ModelName]


@dataclass(frozen=True, slots=True)
class Groups:
    """Rules of groups."""

    groups: Sequence[Group] = ()

    def told(self) -> Company:
        return by_groups(NAMES, self.groups)

    def ways(self, name: ModelName) -> list[Way]:
        """List the sets of those who may stay when the model loads."""
        return [frozenset(n for n in NAMES if n != name and not self._expels(name, n))]

    def cost(self, name: ModelName) -> int:  # noqa: ARG002  # where there is no choice
        return 1

    def _expels(self, name: ModelName, other: ModelName) -> bool:
        own, its = self._group(name), self._group(other)
        return own.swap if own is its else own.exclusive and not its.persistent

    def _group(self, name: ModelName) -> Group:
        return next((group for group in self.groups if name in group.members), UNGROUPED)


UNGROUPED = Group(())


@dataclass(frozen=True, slots=True)
class Sets:
    """Rules of sets that may be there at once."""

    sets: Sequence[Way]
    costs: Mapping[ModelName, int] = field(default_factory=dict)

    def told(self) -> Company:
        return by_sets(NAMES, self.sets, self.costs)

    def ways(self, name: ModelName) -> list[Way]:
        return [one for one in self.sets if name in one] or [frozenset()]

    def cost(self, name: ModelName) -> int:
        return self.costs.get(name, 1)


@dataclass(frozen=True, slots=True)
class Anybody:
    """No rules."""

    def told(self) -> Company:
        return Company()

    def ways(self, name: ModelName) -> list[Way]:
        return [frozenset(NAMES) - {name}]

    def cost(self, name: ModelName) -> int:  # noqa: ARG002
        return 1


Rules = Groups | Sets | Anybody


def least_cost(rules: Rules, name: ModelName, there: Collection[ModelName]) -> int:
    """Tell what it costs those who are there when the model loads."""
    ways = rules.ways(name)
    return min(sum(rules.cost(one) for one in there if one not in way) for way in ways)
