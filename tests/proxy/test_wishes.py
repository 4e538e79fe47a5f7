"""What a request wishes of its turn."""

from __future__ import annotations

import math

import pytest
from multidict import CIMultiDict

from proxy.body import Peek
from proxy.errors import BadRequest
from proxy.wishes import Wish, wish_of


def wish(headers: dict[str, str], peek: Peek, key: int | None = None, model: int = 0) -> Wish:
    return wish_of(CIMultiDict(headers), peek, key, model)


@pytest.mark.parametrize(
    ("headers", "peek", "key", "model", "expected"),
    [
        ({}, Peek(), None, 0, 0),
        ({}, Peek(), None, 3, 3),
        ({}, Peek(), -2, 3, -2),
        ({}, Peek(), 0, 3, 0),
        ({}, Peek(priority=4), -2, 3, 4),
        ({}, Peek(priority=0), -2, 3, 0),
        ({}, Peek(priority="high"), None, 0, 5),
        ({}, Peek(priority=" 7 "), None, 0, 7),
        ({"x-priority": "low"}, Peek(priority=4), -2, 3, -5),
        ({"X-Priority": "-10"}, Peek(), None, 0, -10),
        ({"X-Priority": "Normal"}, Peek(), 9, 9, 0),
        ({"X-Priority": "+10"}, Peek(), None, 0, 10),
    ],
)
def test_the_most_specific_priority_counts(
    headers: dict[str, str], peek: Peek, key: int | None, model: int, expected: int
) -> None:
    """The header, else the body, else the key, else the model; 0 is a word too."""
    assert wish(headers, peek, key, model).priority == expected


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [(None, None), (0, 0.0), ("5m", 300.0), (90.5, 90.5), (-1, math.inf), ("-1", math.inf)],
)
def test_keep_alive(keep_alive: str | float | None, seconds: float | None) -> None:
    """Seconds, a duration, at once, or for ever."""
    assert wish({}, Peek(keep_alive=keep_alive)).keep_alive_s == seconds


@pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("0.5", 0.5), ("2m", 120.0)])
def test_the_deadline(text: str, seconds: float) -> None:
    """Seconds or a duration."""
    assert wish({"x-request-timeout": text}, Peek(pixels=5)) == Wish(deadline_s=seconds, pixels=5)


@pytest.mark.parametrize(
    ("headers", "peek", "named", "accepted"),
    [
        ({"X-Priority": "11"}, Peek(), "X-Priority", "-10 to 10"),
        ({"X-Priority": ""}, Peek(), "X-Priority", "-10 to 10"),
        ({"X-Priority": "soon"}, Peek(priority=1), "X-Priority", "high, normal, low"),
        ({"X-Priority": "1"}, Peek(priority=11), "priority", "-10 to 10"),
        ({}, Peek(priority=10**4000), "priority", "-10 to 10"),
        ({}, Peek(keep_alive="soon"), "keep_alive", "5m"),
        ({}, Peek(keep_alive=math.nan), "keep_alive", "5m"),
        ({"X-Request-Timeout": "0"}, Peek(), "X-Request-Timeout", "more than 0"),
        ({"X-Request-Timeout": "-1"}, Peek(), "X-Request-Timeout", "more than 0"),
        ({"X-Request-Timeout": "soon"}, Peek(), "X-Request-Timeout", "30s"),
    ],
)
def test_bad_wishes(headers: dict[str, str], peek: Peek, named: str, accepted: str) -> None:
    """The error names the header or field, says what is accepted, and stays short."""
    with pytest.raises(BadRequest) as caught:
        wish(headers, peek)

    assert caught.value.param == named
    assert accepted in caught.value.message
    assert len(caught.value.message) < 200
