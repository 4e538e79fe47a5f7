"""An answer that goes into a file, and is read from there, while it grows or later."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

log = logging.getLogger(__name__)

READ_BYTES = 256 << 10
SET_ANEW = frozenset({"content-length", "transfer-encoding"})
"""Headers that are true of the answer as it came, and not as it is told again."""


@dataclass(slots=True, eq=False)
class KeptAnswer:
    """An outlet to a file. It may be read once its head is known, and until it is thrown away."""

    path: Path
    most_bytes: int
    is_held_back: bool = False  # nobody reads before its end: something is still to be changed
    status: int = 0
    reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    is_over: bool = False
    is_cut: bool = False
    why: str = ""  # it could not be kept
    _file: IO[bytes] | None = None
    _opened: asyncio.Event = field(default_factory=asyncio.Event)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(
        self, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        return _ToFile(self, status, reason, headers)

    def cut(self, _request: web.Request) -> None:
        """Remember that it broke off: who reads it sees that too."""
        self.is_cut = True

    def open(self, status: int, reason: str | None, headers: Mapping[str, str]) -> None:
        """Take the head; the bytes come after it."""
        self.status, self.reason = status, reason
        self.headers = {k: v for k, v in headers.items() if k.lower() not in SET_ANEW}
        with self._cut_on_failure():
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = self.path.open("wb")
        if not self.is_held_back:
            self._opened.set()

    def append(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        if self._file is None or not chunk:
            return
        with self._cut_on_failure():
            if self.size_bytes + len(chunk) > self.most_bytes:
                raise OSError(errno.EFBIG, f"it has more than {self.most_bytes} bytes")
            self._file.write(chunk)
            self._file.flush()  # readers have files of their own
            self.size_bytes += len(chunk)
        self._tell()

    def fill(
        self, status: int, reason: str | None, headers: Mapping[str, str], raw: bytes
    ) -> None:
        """Be this answer, whatever came before; it is whole then."""
        if self._file is not None:
            self._file.close()
        self.size_bytes, self.is_cut, self.why = 0, False, ""
        self.open(status, reason, headers)
        self.append(raw)
        self.end()

    def end(self) -> None:
        """Take no more."""
        if self._file is not None:
            self._file.close()
        self._file, self.is_over = None, True
        self._opened.set()
        self._tell()

    async def opened(self) -> None:
        """Wait until it can be read."""
        await self._opened.wait()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give what is there, and then what comes, to the end. Raises OSError if it was cut."""
        with self.path.open("rb") as file:
            while True:
                grown = self._grown
                while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                    yield chunk
                if self.is_over and file.tell() >= self.size_bytes:
                    return
                if self._grown is grown:
                    if self.is_over:
                        raise OSError(errno.EIO, "the file has become shorter than it was")
                    await grown.wait()

    @contextmanager
    def _cut_on_failure(self) -> Iterator[None]:
        """Break off where there is no room for more: the request itself may go on."""
        try:
            yield
        except OSError as error:
            log.warning("not_kept", extra={"path": self.path, "why": error})
            with suppress(OSError):  # what it could not write is tried again
                if self._file is not None:
                    self._file.close()
            self._file, self.is_cut = None, True
            self.why = f"the answer could not be kept: {error.strerror or error}"

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class _ToFile(web.StreamResponse):
    """What forwarding writes to: like an answer to a client, but nobody is there."""

    def __init__(
        self, kept: KeptAnswer, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status=status, reason=reason, headers=headers)
        self._kept = kept

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._kept.open(self.status, self.reason, self.headers)
        return None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._kept.append(data)

    async def write_eof(self, data: bytes = b"") -> None:
        self._kept.append(data)
