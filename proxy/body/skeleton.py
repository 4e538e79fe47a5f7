"""A JSON text without its long strings, and the way back from it to the bytes as they came."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from proxy.body.edit import Edit, splices_in
from proxy.body.peek import Peek, peek_json
from proxy.body.splice import Span, Splice
from proxy.errors import BadRequest

_PLACE = re.compile(r"line ([0-9]+) column ([0-9]+)$")
_READ_AS_TEXT = ("model", "keep_alive", "priority")


@dataclass(frozen=True, slots=True)
class Gap:
    """A string that was left out."""

    at: int  # where the skeleton's mark ends, which is
    end: int  # where the string ends in the body, both before the closing quote
    start: int  # where it starts in the body, behind the opening quote


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The text; of each string that was left out, in order, it has the mark and its number.

    The mark must be one that the text cannot have of itself. A text without gaps is the body.
    """

    raw: bytes
    gaps: Sequence[Gap] = ()
    mark: str = ""

    def peek(self) -> Peek:
        """Look into it. Raises BadRequest, which tells places of the body."""
        try:
            peek = peek_json(self.raw)
        except BadRequest as error:
            raise self._placed(error) from None
        for name in _READ_AS_TEXT if self.gaps else ():
            value = getattr(peek, name)
            if isinstance(value, str) and value.startswith(self.mark):
                raise BadRequest(f"the field {name} is too long", param=name)
        return peek

    def splices(self, edit: Edit) -> Sequence[Splice]:
        """Find what the edit changes in the body, if `peek` has found it valid."""
        if not edit:
            return ()
        splices = splices_in(self.raw, edit)
        return splices if not self.gaps else [one for each in splices for one in self._back(each)]

    def _back(self, splice: Splice) -> Iterator[Splice]:
        """Bring a splice to its place in the body; a string that it moves is put there again."""
        start, end = self.place(splice.start), self.place(splice.end)
        parts = re.split(f'"{self.mark}([0-9]+)"'.encode(), splice.put)
        moved = [self.gaps[int(number)] for number in parts[1::2]]
        spans = [*(Span(gap.start - 1, gap.end + 1) for gap in moved), Span(0, 0)]
        for put, span in zip(parts[::2], spans, strict=True):
            yield Splice(start, end, put, span)
            start = end

    def place(self, at: int) -> int:
        """Tell where in the body that is which stands here, outside of the marks."""
        before = bisect_right(self.gaps, at, key=attrgetter("at"))
        return at if before == 0 else self.gaps[before - 1].end + at - self.gaps[before - 1].at

    def _placed(self, error: BadRequest) -> BadRequest:
        found = _PLACE.search(error.message)
        if found is None or not self.gaps:
            return error
        line, column, start = int(found[1]), int(found[2]), 0
        for _ in range(line - 1):
            start = self.raw.index(b"\n", start) + 1
        column = self.place(start + column - 1) - self.place(start) + 1
        told = f"{error.message[: found.start()]}line {line} column {column}"
        return BadRequest(told, code=error.told_code)
