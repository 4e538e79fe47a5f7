"""What an answer says of its tokens, read from its end alone: no answer is ever kept whole."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

TAIL_BYTES = 8 << 10
UNKNOWN = -1
USAGE, TIMINGS = b'"usage"', b'"timings"'
_OBJECT = re.compile(r"\s*:\s*(?=\{)")
_DECODER = json.JSONDecoder()

Said = Mapping[str, object]


class Tail:
    """The last bytes of an answer, as it goes by."""

    __slots__ = ("_chunks", "_size")

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def take(self, chunk: bytes) -> None:
        if len(chunk) > TAIL_BYTES:
            chunk = chunk[-TAIL_BYTES:]
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            self._size -= len(self._chunks.popleft())

    def __bytes__(self) -> bytes:
        return b"".join(self._chunks)[-TAIL_BYTES:]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a request took and gave; `UNKNOWN` where nobody has said so."""

    cached: int = UNKNOWN
    drafted: int = UNKNOWN
    draft_accepted: int = UNKNOWN
    prompt: int = 0
    generated: int = 0
    prompt_per_s: float = UNKNOWN
    generated_per_s: float = UNKNOWN


NO_TOKENS = Tokens()


def tokens_in(end: bytes) -> Tokens:
    """Read OpenAI's or Anthropic's `usage`, and llama.cpp's `timings`, which know more."""
    usage, timings = _last(USAGE, end), _last(TIMINGS, end)
    if not usage and not timings:
        return NO_TOKENS
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Tokens(
        cached=_count(timings.get("cache_n"), cached, usage.get("cache_read_input_tokens")),
        drafted=_count(timings.get("draft_n")),
        draft_accepted=_count(timings.get("draft_n_accepted")),
        prompt=_count(
            timings.get("prompt_n"), usage.get("prompt_tokens"), usage.get("input_tokens"), 0
        ),
        generated=_count(
            timings.get("predicted_n"),
            usage.get("completion_tokens"),
            usage.get("output_tokens"),
            0,
        ),
        prompt_per_s=_speed(timings.get("prompt_per_second")),
        generated_per_s=_speed(timings.get("predicted_per_second")),
    )


def _last(key: bytes, end: bytes) -> Said:
    """Give the last object under the key that is there as a whole."""
    at = len(end)
    while (at := end.rfind(key, 0, at)) >= 0:
        if end[at - 1 : at] == b"\\":  # in a text
            continue
        text = end[at + len(key) :].decode("utf-8", "replace")
        if found := _OBJECT.match(text):
            with suppress(ValueError, RecursionError):
                value, _ = _DECODER.raw_decode(text, found.end())
                return value if isinstance(value, dict) else {}
    return {}


def _count(*said: object) -> int:
    """Give the first that is a count."""
    for one in said:
        if type(one) is int and one >= 0:  # a bool is none
            return one
    return UNKNOWN


def _speed(said: object) -> float:
    is_one = isinstance(said, int | float) and not isinstance(said, bool)
    return float(said) if is_one and 0 <= said < float("inf") else UNKNOWN  # type: ignore[operator, arg-type]  # is_one says so
