"""Sizes and durations: what is read, what is refused, and what people are shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.units import GIB, KIB, MIB, TIB, as_size, duration_s, size_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        (0, 0),
        (12_345, 12_345),
        ("12345", 12_345),
        ("512B", 512),
        ("24GiB", 24 * GIB),
        ("24 gib", 24 * GIB),
        ("24Gi", 24 * GIB),
        ("24G", 24 * GIB),
        (" 24g ", 24 * GIB),
        ("24GB", 24 * 10**9),
        ("512 MiB", 512 * MIB),
        ("512m", 512 * MIB),
        ("512MB", 512 * 10**6),
        ("64k", 64 * KIB),
        ("64kB", 64_000),
        ("1.5G", 3 * GIB // 2),
        ("1.5TiB", 3 * TIB // 2),
        ("2tb", 2 * 10**12),
        ("0.1KiB", 102),
    ],
)
def test_sizes_are_read(text: str | int, expected: int) -> None:
    """Units with an i, and bare letters, are binary; GB and its like are decimal."""
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1G", -1, True, "1,5G", "1e9", "24 GiBs", "24GG", "half", "1 2G", "٣G", "9" * 19],
)
def test_sizes_are_refused_with_advice(text: str | int) -> None:
    """What is no size raises ValueError, which repeats it and says what would do."""
    with pytest.raises(ValueError, match=r"24GiB, 512 MiB") as caught:
        size_bytes(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (3 * KIB // 2, "1.5 KiB"),
        (310 * MIB, "310 MiB"),
        (MIB - 1, "1.0 MiB"),
        (10 * MIB, "10 MiB"),
        (GIB - 1, "1.0 GiB"),
        (GIB, "1.0 GiB"),
        (13_851_233_485, "12.9 GiB"),
        (2 * TIB, "2048.0 GiB"),
        (-310 * MIB, "-310 MiB"),
    ],
)
def test_sizes_are_written_for_people(count: int, expected: str) -> None:
    """The unit is the largest that leaves a number of at least one."""
    assert as_size(count) == expected


@given(st.integers(0, 1 << 50))
def test_what_is_written_can_be_read(count: int) -> None:
    """Read back, a written size is the same but for its rounding."""
    assert size_bytes(as_size(count)) == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (300, 300.0),
        (2.5, 2.5),
        (-1, math.inf),
        (math.inf, math.inf),
        (10**400, math.inf),
        (-(10**400), math.inf),
        ("0", 0.0),
        ("300", 300.0),
        ("2.5", 2.5),
        ("-1", math.inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h30m10.5s", 5410.5),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("10ns", 1e-8),
        (".5s", 0.5),
        ("1.m", 60.0),
        ("+5s", 5.0),
        ("-5m", math.inf),
        ("-0s", 0.0),
        (" 5m ", 300.0),
    ],
)
def test_durations_are_read(value: str | float, expected: float) -> None:
    """Numbers are seconds, texts may be as Go writes them, and less than nothing is for ever."""
    assert duration_s(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value", ["", "-", "m", "5 m", "5x", "5m30", "1d", "m5", "1h-5m", "nan", True, math.nan, None]
)
def test_durations_are_refused_with_advice(value: str | float) -> None:
    """What is no duration raises ValueError, which repeats it and says what would do."""
    with pytest.raises(ValueError, match=r"1h30m or 500ms") as caught:
        duration_s(value)

    assert repr(value) in str(caught.value)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int, ms: int) -> None:
    """A duration is the sum of its parts, in Go's order."""
    expected = hours * 3600 + minutes * 60 + seconds + ms / 1000

    assert duration_s(f"{hours}h{minutes}m{seconds}s{ms}ms") == pytest.approx(expected)
