"""Tokens, read from the end of an answer."""

from __future__ import annotations

import pytest

from proxy.routes.activity import histogram
from proxy.tokens import NO_TOKENS, TAIL_BYTES, Tail, tokens_in


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


def test_the_tail_is_bounded() -> None:
    """However the answer comes in pieces."""
    whole = bytes(range(256)) * 1000
    for size in (1, 100, TAIL_BYTES, 100_000):
        tail = Tail()
        for start in range(0, len(whole), size):
            tail.take(whole[start : start + size])

        assert bytes(tail) == whole[-TAIL_BYTES:]
    assert bytes(Tail()) == b""
    assert tokens_in(b"") == NO_TOKENS


def test_equal_speeds_stand_in_one_bin() -> None:
    """There is no width to part them by."""
    told = histogram([5.0, 5.0, -1.0])

    assert told is not None
    assert (told["min"], told["max"], told["binSize"], told["p50"]) == (5.0, 5.0, 0.0, 5.0)
    assert told["bins"] == [2, *[0] * 19]
