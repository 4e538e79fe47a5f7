"""Small changes to a long run of bytes: what is not changed is neither parsed nor copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` to `end`, as they came."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Splice:
    """The bytes from `start` to `end` give way to others, and to some that stand elsewhere."""

    start: int
    end: int
    put: bytes = b""
    moved: Span = Span(0, 0)  # behind what is put


def pieces(splices: Sequence[Splice], size: int, step: int) -> Iterator[Span | bytes]:
    """Yield what `size` bytes become, in order; no span is longer than `step`.

    The splices must be in order and must not overlap.
    """
    at = 0
    for splice in splices:
        yield from steps(at, splice.start, step)
        if splice.put:
            yield splice.put
        yield from steps(splice.moved.start, splice.moved.end, step)
        at = splice.end
    yield from steps(at, size, step)


def size_after(splices: Sequence[Splice], size: int) -> int:
    """Tell how many bytes there are then."""
    return size + sum(len(one.put) + len(one.moved) - (one.end - one.start) for one in splices)


def steps(start: int, end: int, step: int) -> Iterator[Span]:
    """Yield the bytes from `start` to `end` in spans of `step`, the last may be shorter."""
    for at in range(start, end, step):
        yield Span(at, min(at + step, end))
