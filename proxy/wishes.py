"""What a request wishes of its turn: how urgent it is, how long it waits, who stays after it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.body import Peek
from proxy.errors import BadRequest
from proxy.units import duration_s

PRIORITY, TIMEOUT = "X-Priority", "X-Request-Timeout"
STRIPPED = ("keep_alive", "priority", "on_disconnect")
"""Fields of a body that are for us: a worker would not know them, or take them for its own."""

WORDS: Mapping[str, int] = {"high": 5, "normal": 0, "low": -5}
MOST = 10
_WHOLE = re.compile(r"[-+]?[0-9]{1,9}")
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Wish:
    """What the scheduler is asked to respect."""

    priority: int = 0  # -10 to 10: more is sooner
    keep_alive_s: float | None = None  # replaces the model's ttl; infinite: stay
    deadline_s: float | None = None  # from now on, for the whole of it
    pixels: int | None = None


def wish_of(
    headers: Mapping[str, str], peek: Peek, key_priority: int | None, model_priority: int
) -> Wish:
    """Read the wishes; the priority is its own, else its key's, else the model's.

    `headers` must find names in any case, as aiohttp's do; a header counts before a field of the
    body. Raises BadRequest, which names the header or field and says what is accepted.
    """
    own = [
        _priority(name, value)
        for name, value in ((PRIORITY, headers.get(PRIORITY)), ("priority", peek.priority))
        if value is not None
    ]
    others = [value for value in (key_priority, model_priority) if value is not None]
    return Wish([*own, *others][0], _keep_alive_s(peek), _deadline_s(headers), peek.pixels)


def _priority(name: str, value: str | int) -> int:
    text = str(value).strip().lower()
    if text in WORDS:
        return WORDS[text]
    if _WHOLE.fullmatch(text) and abs(int(text)) <= MOST:
        return int(text)
    raise _bad(name, value, f"it is a whole number from -{MOST} to {MOST}, or {', '.join(WORDS)}")


def _keep_alive_s(peek: Peek) -> float | None:
    if peek.keep_alive is None:
        return None
    try:
        return duration_s(peek.keep_alive)
    except ValueError:
        told = "it is seconds, a text such as 5m, 0 to leave at once or -1 to stay"
        raise _bad("keep_alive", peek.keep_alive, told) from None


def _deadline_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get(TIMEOUT)
    if text is None:
        return None
    try:
        seconds = duration_s(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < math.inf:
        return seconds
    raise _bad(TIMEOUT, text, "it is seconds, more than 0, or a text such as 30s or 5m")


def _bad(name: str, value: str | float, accepted: str) -> BadRequest:
    shown = repr(value)[:_SHOWN_CHARACTERS]
    return BadRequest(f"{name}: {shown} will not do: {accepted}", param=name, code="invalid_value")
