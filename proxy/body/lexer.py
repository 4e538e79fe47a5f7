r"""Follows a JSON body as it comes, and keeps all of it but its long strings.

No byte is looked at by Python: short strings and what is between them are matched many at once,
and long strings are stepped over by `memchr`, or by a pattern where they hold escapes.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Collection, Sequence
from functools import lru_cache

from proxy.body.edit import Edit
from proxy.body.fields import LONG_BYTES, QUOTE, short_string
from proxy.body.parts import Picture, pictures_in
from proxy.body.peek import Peek
from proxy.body.skeleton import Gap, Skeleton
from proxy.body.splice import Splice
from proxy.body.texts import Passage, texts_in

_CONTENT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class JsonPeek:
    """Keeps the skeleton of a JSON body; what is wrong inside a long string is not seen."""

    def __init__(self, long_bytes: int = LONG_BYTES) -> None:
        self._long_bytes = long_bytes
        self._short = _short(long_bytes)
        self._mark = f"{secrets.token_hex(16)}-"
        self._kept = io.BytesIO()
        self._gaps: list[Gap] = []
        self._came = 0
        self._held = b""  # of a string of which it is not known yet how it goes on
        self._long_start = 0  # in the body, of the long string that is coming; 0: there is none
        self._skeleton = Skeleton(b"")

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        raw, self._held = self._held + piece, b""
        self._came += len(piece)
        at = self._long_goes_on(raw, 0) if self._long_start else 0
        while at < len(raw):
            end = _end(self._short, raw, at)
            self._kept.write(raw[at:end])
            at = end if end == len(raw) else self._string(raw, end)

    def end(self) -> Peek:
        """Tell what was in it. Raises BadRequest."""
        if self._long_start:  # it breaks off: the mark's last byte stands for the last that came
            self._gaps.append(Gap(self._kept.tell() - 1, self._came - 1, self._long_start))
        else:
            self._kept.write(self._held)
        self._skeleton = Skeleton(self._kept.getvalue(), self._gaps, self._mark)
        self._kept.close()
        return self._skeleton.peek()

    def splices(self, edit: Edit) -> Sequence[Splice]:
        """Find what the edit changes in the body that has ended."""
        return self._skeleton.splices(edit)

    def pictures(self) -> Sequence[Picture]:
        """Find the pictures in the body that has ended."""
        return pictures_in(self._skeleton)

    def texts(self, names: Collection[str]) -> Sequence[Passage]:
        """Find the words in the body that has ended. Raises BadRequest."""
        return texts_in(self._skeleton, names)

    def _string(self, raw: bytes, start: int) -> int:
        """Take a string that is long or breaks off, or has many escapes; tell where it ends."""
        end = _content_end(raw, start + 1)
        is_closed = end < len(raw) and raw[end] == QUOTE
        if end - start - 1 > self._long_bytes:
            self._long_start = self._came - len(raw) + start + 1
            self._kept.write(b'"' + self._mark.encode() + str(len(self._gaps)).encode())
            return self._long_goes_on(raw, end)
        if not is_closed:
            self._held = raw[start:]
            return len(raw)
        self._kept.write(raw[start : end + 1])
        return end + 1

    def _long_goes_on(self, raw: bytes, at: int) -> int:
        """Step over what is in a long string from here; tell where it ends."""
        end = _content_end(raw, at)
        if end == len(raw) or raw[end] != QUOTE:
            self._held = raw[end:]
            return len(raw)
        self._gaps.append(Gap(self._kept.tell(), self._came - len(raw) + end, self._long_start))
        self._long_start = 0
        self._kept.write(b'"')
        return end + 1


@lru_cache(maxsize=8)
def _short(long_bytes: int) -> re.Pattern[bytes]:
    """Match up to the first string that may be long, breaks off or has many escapes."""
    return re.compile(rb'(?:[^"]*+%b)*+[^"]*+' % short_string(long_bytes), re.DOTALL)


def _content_end(raw: bytes, at: int) -> int:
    """Find the end of what is in a string: a quote, a last backslash, or the end of the bytes."""
    quote = raw.find(b'"', at)
    end = quote if quote >= 0 else len(raw)
    return end if raw.find(b"\\", at, end) < 0 else _end(_CONTENT, raw, at)


def _end(pattern: re.Pattern[bytes], raw: bytes, at: int) -> int:
    found = pattern.match(raw, at)
    return found.end() if found else at
