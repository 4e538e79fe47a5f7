"""Sizes and durations as people write them, and back."""

from __future__ import annotations

import math
import re
from fractions import Fraction

KIB, MIB, GIB, TIB = (1 << power for power in (10, 20, 30, 40))

_BYTES_PER = {
    "": 1,
    "b": 1,
    **dict.fromkeys(("k", "ki", "kib"), KIB),
    **dict.fromkeys(("m", "mi", "mib"), MIB),
    **dict.fromkeys(("g", "gi", "gib"), GIB),
    **dict.fromkeys(("t", "ti", "tib"), TIB),
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([a-z]{0,3})", re.IGNORECASE)
_SIZES_ARE = "a size is a number of bytes, or reads like 24GiB, 512 MiB, 1.5G (= GiB) or 24GB"

_SECONDS_PER = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5, the micro sign
    "μs": 1e-6,  # U+03BC, the Greek letter
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PART = re.compile(rf"({_NUMBER})({'|'.join(_SECONDS_PER)})")
_DURATION = re.compile(rf"([-+]?)((?:(?:{_NUMBER})(?:{'|'.join(_SECONDS_PER)}))+|{_NUMBER})")
_DURATIONS_ARE = (
    "a duration is a number of seconds, or reads like 30s, 5m, 1h30m or 500ms; negative: for ever"
)


def size_bytes(text: str | int) -> int:
    """Read a size; a fraction of a byte is dropped.

    GiB, Gi and a bare G are 2**30 bytes, GB is 10**9; likewise K, M and T, in any case. Raises
    ValueError, which says what is accepted.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    if isinstance(text, str) and (match := _SIZE.fullmatch(text.strip())):
        number, unit = match.groups()
        if unit.lower() in _BYTES_PER:
            return int(Fraction(number) * _BYTES_PER[unit.lower()])
    raise ValueError(f"{text!r}: {_SIZES_ARE}")


def as_size(count_bytes: int) -> str:
    """Write a size for people: `12.9 GiB`, `310 MiB`, `1.5 KiB`."""
    sign, count = "-" if count_bytes < 0 else "", abs(count_bytes)
    if count < KIB:
        return f"{sign}{count} B"
    if round(count / MIB) >= KIB:  # what would read 1024 MiB
        return f"{sign}{count / GIB:.1f} GiB"
    unit, each = ("MiB", MIB) if round(count / KIB) >= KIB else ("KiB", KIB)
    return f"{sign}{count / each:.{0 if count >= 10 * each else 1}f} {unit}"


def duration_s(value: str | float) -> float:
    """Read a duration: seconds, or Go's way of writing one; infinite where it is negative.

    Raises ValueError, which says what is accepted.
    """
    seconds = _parse_duration(value.strip()) if isinstance(value, str) else _as_float(value)
    if seconds is None or math.isnan(seconds):
        raise ValueError(f"{value!r}: {_DURATIONS_ARE}")
    return math.inf if seconds < 0 else seconds


def _parse_duration(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    sign, told = match.groups()
    parts = _PART.findall(told)
    seconds = sum(float(n) * _SECONDS_PER[unit] for n, unit in parts) if parts else float(told)
    return -seconds if sign == "-" else seconds


def _as_float(value: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits, to either side
        return math.inf
