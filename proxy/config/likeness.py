"""Which known name was meant by one that nobody has."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

SHORTEST_KIN, LONGEST_TO_SHORTEST = 3, 3
OF_KIN = 0.25
"""What it adds to a likeness, from 0 to 1, to be the other name abbreviated or drawn out."""


def alike(unknown: str, names: Iterable[str], *, most: int = 1, least: float = 0.6) -> list[str]:
    """Name those that look like it, the likeliest first; case does not count."""
    scored = [(_likeness(unknown.casefold(), name.casefold()), name) for name in names]
    found = [one for one in scored if one[0] >= least]
    return [name for _, name in sorted(found, key=lambda one: -one[0])][:most]


def _likeness(one: str, other: str) -> float:
    ratio = SequenceMatcher(None, one, other).ratio()
    return max(ratio, 0.5) + OF_KIN if _are_kin(one, other) else ratio


def _are_kin(one: str, other: str) -> bool:
    """Tell whether the one holds the other, or all of its letters as `command` those of `cmd`."""
    short, long = sorted((one, other), key=len)
    if len(short) < SHORTEST_KIN:
        return False
    if short in long:
        return True
    letters = iter(long)
    is_drawn_out = long[0] == short[0] and all(letter in letters for letter in short)
    return is_drawn_out and len(long) <= LONGEST_TO_SHORTEST * len(short)
