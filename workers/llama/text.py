"""Token bytes to text: whole characters only, and nothing of a stop string. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


def held_back(text: str, marks: Sequence[str]) -> int:
    """Count the characters at the end of `text` that may be the beginning of a mark."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0


def first_of(text: str, marks: Sequence[str]) -> int:
    """Find where the earliest mark begins; -1 when there is none."""
    return min((at for mark in marks if (at := text.find(mark)) >= 0), default=-1)


class TextStream:
    """Decodes one answer; `stopped` once a stop string has come. U+FFFD for what is no UTF-8."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Take a token's bytes. Returns the text that is certain to belong to the answer."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back, when no more bytes come."""
        said = self._release(self._decoder.decode(b"", final=True))
        said, self._held = said + ("" if self.stopped else self._held), ""
        return said

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = first_of(self._held, self._stops)
        if found >= 0:
            self.stopped = True
            return self._held[:found]
        certain = len(self._held) - held_back(self._held, self._stops)
        said, self._held = self._held[:certain], self._held[certain:]
        return said
