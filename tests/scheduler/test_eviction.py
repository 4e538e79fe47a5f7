"""Whom to evict, against all the ways there are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.scheduler import Demand, Device
from proxy.scheduler.eviction import choose_victims
from tests.scheduler.books import short, summed

pytestmark = pytest.mark.timeout(1800)  # for the deep profile

GPU, HOST = Device("gpu"), Device("host")


@dataclass(frozen=True, slots=True, eq=False)
class Sitter:
    """Somebody who holds memory."""

    charge: Demand
    load_s: float
    used: float
    is_idle: bool


AMOUNT = st.integers(0, 6)
SITTERS = st.builds(
    Sitter,
    charge=st.builds(lambda gpu, host: {GPU: gpu, HOST: host}, AMOUNT, AMOUNT),
    load_s=st.sampled_from([1.0, 2.0, 5.0]),
    used=st.sampled_from([0.0, 1.0, 2.0]),
    is_idle=st.booleans(),
)
NEEDS = st.builds(lambda gpu, host: {GPU: gpu, HOST: host}, st.integers(1, 20), st.integers(0, 20))


def chosen(sitters: list[Sitter], need: Demand) -> list[Sitter]:
    need = {device: amount for device, amount in need.items() if amount}
    return list(
        choose_victims(
            [one for one in sitters if one.is_idle],
            [one for one in sitters if not one.is_idle],
            need,
            charge=lambda one: {device: n for device, n in one.charge.items() if n},
            cost=lambda one: (one.load_s, one.used),
        )
    )


def suffice(some, need: Demand) -> bool:
    return not short(need, summed(one.charge for one in some))


def price(some) -> tuple[int, float, int, float]:
    return (
        sum(not one.is_idle for one in some),
        sum(one.load_s for one in some),
        sum(sum(one.charge.values()) for one in some),
        max(one.used for one in some),
    )


@given(st.lists(SITTERS, max_size=7), NEEDS)
def test_the_choice_is_the_best_of_all(sitters: list[Sitter], need: Demand) -> None:
    """As few as suffice, idle ones if they do, the cheapest of those; nobody if all do not."""
    idle = [one for one in sitters if one.is_idle]
    candidates = idle if suffice(idle, need) else sitters
    ways = [
        some
        for count in range(len(candidates) + 1)
        for some in combinations(candidates, count)
        if suffice(some, need)
    ]
    fewest = [some for some in ways if len(some) == len(ways[0])] if ways else []

    victims = chosen(sitters, need)

    assert bool(victims) == bool(ways)
    if victims:
        assert suffice(victims, need)
        assert len(victims) == len(fewest[0])
        assert price(victims) == min(map(price, fewest))


MANY = st.lists(SITTERS, min_size=13, max_size=30)


@given(MANY, NEEDS)
def test_of_many_too_nobody_goes_in_vain(sitters: list[Sitter], need: Demand) -> None:
    """However many there are: those that go suffice, and without any of them they would not."""
    victims = chosen(sitters, need)

    assert bool(victims) == suffice(sitters, need)
    assert len(set(victims)) == len(victims)
    if victims:
        assert suffice(victims, need)
    for victim in victims:
        assert not suffice([one for one in victims if one is not victim], need)


@given(MANY, st.integers(1, 60))
def test_of_many_too_the_idle_go_first(sitters: list[Sitter], gpu: int) -> None:
    """Nobody is disturbed while those who do nothing suffice."""
    idle = [one for one in sitters if one.is_idle]
    victims = chosen(sitters, {GPU: gpu})

    assert all(one.is_idle for one in victims) or not suffice(idle, {GPU: gpu})


@given(MANY, st.integers(1, 60))
def test_of_many_on_one_device_the_fewest_go(sitters: list[Sitter], gpu: int) -> None:
    """Where one device is short, the largest are taken, so no fewer would do."""
    need = {GPU: gpu}
    idle = [one for one in sitters if one.is_idle]
    candidates = idle if suffice(idle, need) else sitters
    largest = sorted((one.charge[GPU] for one in candidates), reverse=True)
    victims = chosen(sitters, need)

    assert not victims or sum(largest[: len(victims) - 1]) < gpu


def test_of_many_equals_the_cheapest_goes() -> None:
    """Among more than can all be weighed against each other, one that does as well is cheaper."""
    dear = [Sitter({GPU: 4, HOST: 0}, 9.0, float(n), is_idle=True) for n in range(20)]
    cheap = Sitter({GPU: 4, HOST: 0}, 1.0, 99.0, is_idle=True)

    assert chosen([*dear, cheap], {GPU: 3, HOST: 0}) == [cheap]
