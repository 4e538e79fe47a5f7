"""What an answer says of its tokens, read from its two ends: no answer is ever kept whole."""

from __future__ import annotations

import json
import re
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

HEAD_BYTES = 2 << 10
TAIL_BYTES = 8 << 10
INFLATED_BYTES = 4 << 20  # that a chunk may hold: behind more, nothing can be read
INFLATABLE = frozenset({"deflate", "gzip", "x-gzip"})
GZIP_OR_ZLIB = 47  # as zlib's windowBits say it
UNKNOWN = -1
USAGE, TIMINGS = b'"usage"', b'"timings"'
_OBJECT = re.compile(r"\s*:\s*(?=\{)")
_DECODER = json.JSONDecoder()

Said = Mapping[str, object]


class Ends:
    """The first and the last bytes of an answer, as it goes by, uncompressed."""

    __slots__ = ("_chunks", "_inflate", "_size", "first")

    def __init__(self, encoding: str = "") -> None:
        """Begin an answer that has this Content-Encoding."""
        self.first = b""
        self._chunks: deque[bytes] = deque()
        self._size = 0
        is_inflatable = encoding.lower() in INFLATABLE
        self._inflate = zlib.decompressobj(GZIP_OR_ZLIB) if is_inflatable else None

    def take(self, chunk: bytes) -> None:
        if self._inflate is not None:
            chunk = _inflated(chunk, self._inflate)
        if len(self.first) < HEAD_BYTES:
            self.first += chunk[: HEAD_BYTES - len(self.first)]
        if len(chunk) > TAIL_BYTES:
            chunk = chunk[-TAIL_BYTES:]
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            self._size -= len(self._chunks.popleft())

    @property
    def last(self) -> bytes:
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


def tokens_in(last: bytes, first: bytes = b"") -> Tokens:
    """Read OpenAI's or Anthropic's `usage`, and llama.cpp's `timings`, which know more.

    Anthropic's streams begin with what the prompt took.
    """
    usage, timings = {**_last(USAGE, first), **_last(USAGE, last)}, _last(TIMINGS, last)
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


def _inflated(chunk: bytes, inflate: zlib._Decompress) -> bytes:
    try:
        return inflate.decompress(chunk, INFLATED_BYTES)
    except zlib.error:
        return b""


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
