"""Tokens, read from the two ends of an answer."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from proxy.routes.activity import histogram
from proxy.tokens import HEAD_BYTES, INFLATED_BYTES, NO_TOKENS, TAIL_BYTES, Ends, tokens_in


@pytest.mark.parametrize(
    ("end", "counts"),
    [
        (b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3}}', (7, 3, -1)),
        (b'{"usage": {"input_tokens": 7, "output_tokens": 3}}', (7, 3, -1)),
        (
            b'{"usage": {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}}',
            (7, 0, 2),
        ),
        (b'{"usage": {"prompt_tokens": 7}, "timings": {"prompt_n": 5, "cache_n": 2}}', (5, 0, 2)),
        (b'{"usage": {"prompt_tokens": 1}}{"usage": null}{"usage": {"prompt_tok', (1, 0, -1)),
        (b'{"text": "\\"usage\\": {\\"prompt_tokens\\": 9}"}', (0, 0, -1)),
        (b'{"usage": {"prompt_tokens": "many", "completion_tokens": true}}', (0, 0, -1)),
        (b"\xff\xfe nothing", (0, 0, -1)),
    ],
)
def test_tokens_are_read_from_the_end(end: bytes, counts: tuple[int, int, int]) -> None:
    """What clients and engines call them; what is no count is none."""
    tokens = tokens_in(end)

    assert (tokens.prompt, tokens.generated, tokens.cached) == counts


def ends_of(whole: bytes, size: int, encoding: str = "") -> Ends:
    """Let an answer go by in pieces of this size."""
    ends = Ends(encoding)
    for start in range(0, len(whole), size):
        ends.take(whole[start : start + size])
    return ends


def test_the_ends_are_bounded() -> None:
    """However the answer comes in pieces."""
    whole = bytes(range(256)) * 1000
    for size in (1, 100, TAIL_BYTES, 100_000):
        ends = ends_of(whole, size)

        assert (ends.first, ends.last) == (whole[:HEAD_BYTES], whole[-TAIL_BYTES:])
    assert (Ends().first, Ends().last) == (b"", b"")
    assert tokens_in(b"") == NO_TOKENS


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("", bytes)],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_compressed_answer_tells_its_tokens(
    encoding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    """In whatever pieces it comes."""
    text = b"data: {}\n\n" * 10_000 + b'{"usage": {"prompt_tokens": 7}}'

    ends = ends_of(compress(text), size, encoding)

    assert tokens_in(ends.last, ends.first).prompt == 7


def test_what_is_not_as_compressed_as_it_says_tells_nothing() -> None:
    """Nor does an answer that would take the proxy's time and memory to look at."""
    bomb = gzip.compress(bytes(INFLATED_BYTES * 8) + b'{"usage": {"prompt_tokens": 7}}')

    for whole in (bomb, b'{"usage": {"prompt_tokens": 7}}'):
        assert tokens_in(ends_of(whole, len(whole), "gzip").last) == NO_TOKENS


def test_anthropics_prompt_is_counted_at_the_begin_of_a_stream() -> None:
    """And what it has said, at the end."""
    first = b'data: {"message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}\n\n'
    whole = first + b"data: {}\n\n" * 10_000 + b'data: {"usage": {"output_tokens": 90}}\n\n'

    ends = ends_of(whole, 1000)

    tokens = tokens_in(ends.last, ends.first)
    assert (tokens.prompt, tokens.generated) == (7, 90)


def test_equal_speeds_stand_in_one_bin() -> None:
    """There is no width to part them by."""
    told = histogram([5.0, 5.0, -1.0])

    assert told is not None
    assert (told["min"], told["max"], told["binSize"], told["p50"]) == (5.0, 5.0, 0.0, 5.0)
    assert told["bins"] == [2, *[0] * 19]
