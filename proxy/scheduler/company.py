"""Who may be seated beside whom: the rules made, and the choice that they leave."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from proxy.scheduler.types import Company, ModelName


@dataclass(frozen=True, slots=True)
class Group:
    """Models that have their place in common."""

    members: tuple[ModelName, ...]
    swap: bool = True  # a member that loads expels the others
    exclusive: bool = True  # and whoever is in another group
    persistent: bool = False  # but nobody in another group expels a member of this one


@dataclass(frozen=True, slots=True)
class Sitter:
    """Somebody who is there."""

    name: ModelName
    goes_anyway: bool
    is_busy: bool
    last_used: float


def by_groups(models: Iterable[ModelName], groups: Iterable[Group]) -> Company:
    """Make the rules of groups; who is in none is in one with all such."""
    groups, models = list(groups), list(models)
    grouped = {name for group in groups for name in group.members}
    groups.append(Group(tuple(name for name in models if name not in grouped)))
    beside: dict[ModelName, tuple[frozenset[ModelName], ...]] = {}
    for group in groups:
        others = [other for other in groups if other is not group]
        spared = [other for other in others if other.persistent or not group.exclusive]
        staying = [*spared, *([] if group.swap else [group])]
        stay = frozenset(name for one in staying for name in one.members)
        beside |= {name: (stay - {name},) for name in group.members}
    return Company(beside)


def by_sets(
    models: Iterable[ModelName],
    sets: Collection[frozenset[ModelName]],
    evict_costs: Mapping[ModelName, int],
) -> Company:
    """Make the rules of sets that may be there at once, whole or in part; in none: alone."""
    ways = {name: tuple(one - {name} for one in sets if name in one) for name in models}
    return Company({name: some or (frozenset(),) for name, some in ways.items()}, evict_costs)


def choose(company: Company, model: ModelName, there: Collection[Sitter]) -> frozenset[ModelName]:
    """Tell who may be there when the model loads: the set that costs those who are there least.

    Of equals the one for which fewer go, and fewer busy ones; then the one that expels those who
    were not used for longest, then the first.
    """
    ways = company.beside.get(model, (frozenset(),))
    if len(ways) == 1:
        return ways[0]

    def price(way: frozenset[ModelName]) -> tuple[int, int, int, float]:
        expelled = [one for one in there if one.name not in way]
        return (
            sum(company.evict_costs.get(o.name, 1) for o in expelled if not o.goes_anyway),
            len(expelled),
            sum(one.is_busy for one in expelled),
            max((one.last_used for one in expelled), default=0.0),
        )

    return min(ways, key=price)
