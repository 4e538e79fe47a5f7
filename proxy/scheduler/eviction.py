"""Whom to evict: a plain function of who is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")


def choose_victims(
    idle: Sequence[T],
    busy: Sequence[T],
    need: int,
    *,
    demand: Callable[[T], int],
    cost: Callable[[T], tuple[float, float]],
) -> Sequence[T]:
    """Pick as few workers as free at least `need`; nobody when all of them would not.

    Idle ones suffer before a busy one does; among equally many, those with the least summed
    `cost`: (seconds to bring it back, when it was last used).
    """
    for candidates in (idle, [*idle, *busy]):
        if sum(map(demand, candidates)) < need:
            continue
        for count in range(1, len(candidates) + 1):
            enough = [
                some for some in combinations(candidates, count) if sum(map(demand, some)) >= need
            ]
            if enough:
                return min(enough, key=lambda some: _price(some, busy, cost))
    return ()


def _price(
    some: Sequence[T], busy: Sequence[T], cost: Callable[[T], tuple[float, float]]
) -> tuple[int, float, float]:
    costs = [cost(one) for one in some]
    disturbed = sum(one in busy for one in some)
    return disturbed, sum(load_s for load_s, _ in costs), max(used for _, used in costs)
