"""Whom to evict: a plain function of who is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import TypeVar

from proxy.scheduler.amounts import missing, total
from proxy.scheduler.types import Demand

T = TypeVar("T")
Cost = tuple[float, float]
"""Seconds to bring it back, and when it was last used."""

EXACT_UP_TO = 12  # candidates: 4096 sets to look at; with more, the answer is only nearly the best


def choose_victims(
    idle: Sequence[T],
    busy: Sequence[T],
    need: Demand,
    *,
    charge: Callable[[T], Demand],
    cost: Callable[[T], Cost],
) -> Sequence[T]:
    """Pick as few workers as free at least `need`; nobody when all of them would not.

    Idle ones suffer before a busy one does. Among equally many those with the least summed seconds
    to bring them back, then with the least memory, then those that were not used for longest.
    """
    disturbed = {id(one) for one in busy}

    def price(some: Iterable[T]) -> tuple[int, float, int, float]:
        some = list(some)
        costs = [cost(one) for one in some]
        return (
            sum(id(one) in disturbed for one in some),
            sum(load_s for load_s, _ in costs),
            sum(sum(charge(one).values()) for one in some),
            max(used for _, used in costs),
        )

    def frees_enough(some: Iterable[T]) -> bool:
        return not missing(need, total(map(charge, some)))

    for candidates in (idle, [*idle, *busy]):
        helpful = [one for one in candidates if not need.keys().isdisjoint(charge(one))]
        if not frees_enough(helpful):
            continue
        if len(helpful) > EXACT_UP_TO:
            return _nearly_best(helpful, need, charge, lambda one: price([one]))
        for count in range(1, len(helpful) + 1):
            enough = [some for some in combinations(helpful, count) if frees_enough(some)]
            if enough:
                return min(enough, key=price)
    return ()


def _nearly_best(
    candidates: Sequence[T],
    need: Demand,
    charge: Callable[[T], Demand],
    price: Callable[[T], tuple[int, float, int, float]],
) -> Sequence[T]:
    """Take those that free most, then exchange each for the cheapest that does as well."""

    def frees(one: T) -> int:
        return sum(min(amount, charge(one).get(device, 0)) for device, amount in need.items())

    chosen: list[T] = []
    for one in sorted(candidates, key=frees, reverse=True):
        if not missing(need, total(map(charge, chosen))):
            break
        chosen.append(one)
    spare = sorted((one for one in candidates if one not in chosen), key=price)
    for index, one in enumerate(chosen):
        rest = [other for other in chosen if other is not one]
        lack = missing(need, total(map(charge, rest)))
        cheaper = (s for s in spare if price(s) < price(one) and not missing(lack, charge(s)))
        other = next(cheaper, None)
        if other is not None:
            spare.remove(other)
            chosen[index] = other
    for one in list(chosen):
        rest = [other for other in chosen if other is not one]
        if not missing(need, total(map(charge, rest))):
            chosen = rest
    return chosen
