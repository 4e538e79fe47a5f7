"""Reads a request's body: JSON into memory, anything else to a spool; peeks as it comes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from types import TracebackType
from typing import IO, Self

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.body.fields import cut
from proxy.body.form import FormPeek
from proxy.body.peek import Peek, peek_json
from proxy.errors import BadRequest, BodyStalled, BodyTooLarge

READ_BYTES = 256 << 10
MEMORY_BYTES = 1 << 20  # a larger upload goes to disk


class Body:
    """Bytes in memory (JSON) or spooled (anything else); close it, or use it as a context."""

    def __init__(self, raw: bytes, spool: IO[bytes] | None, size: int, peek: Peek) -> None:
        self._raw = raw
        self._spool = spool
        self.size = size
        self.peek = peek

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if self._spool is not None:
            self._spool.close()

    def without(self, names: Collection[str]) -> Body:
        """Give the same JSON body without these top-level fields; a spooled one as it is.

        All other bytes stay. A spool keeps its one owner: close this body, not what is given.
        """
        if self._spool is not None or not self._raw:
            return self
        raw = cut(self._raw, names)
        return Body(raw, None, len(raw), self.peek)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece; may be asked for again, for a second try."""
        if self._spool is None:
            for start in range(0, self.size, READ_BYTES):
                yield self._raw[start : start + READ_BYTES]
            return
        self._spool.seek(0)
        while chunk := await asyncio.to_thread(self._spool.read, READ_BYTES):
            yield chunk


async def read_body(request: web.Request, max_bytes: int, stall_s: float) -> Body:
    """Read the whole body and peek into it. Raises BadRequest, BodyTooLarge, BodyStalled.

    JSON stays in memory once, as bytes; a multipart upload is spooled to disk as it comes.
    """
    if request.content_type.startswith("multipart/"):
        form = FormPeek(request.headers["Content-Type"])
        spool, size = await _spool(_bounded(request, max_bytes, stall_s), form.feed)
        try:
            return Body(b"", spool, size, form.end())
        except BaseException:
            spool.close()
            raise
    raw = b"".join([piece async for piece in _bounded(request, max_bytes, stall_s)])
    return Body(raw, None, len(raw), peek_json(raw))


async def read_blindly(request: web.Request, max_bytes: int, stall_s: float) -> Body:
    """Read the whole body without a look at what it is. Raises as `read_body` does."""
    spool, size = await _spool(_bounded(request, max_bytes, stall_s), lambda _: None)
    return Body(b"", spool, size, Peek())


async def _spool(
    pieces: AsyncIterator[bytes], look: Callable[[bytes], None]
) -> tuple[IO[bytes], int]:
    """Write the body to a spool, which the caller closes; `look` sees every piece of it."""
    spool = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115  # given away
    size = 0
    try:
        async for piece in pieces:
            look(piece)
            spool.write(piece)
            size += len(piece)
    except BaseException:
        spool.close()
        raise
    return spool, size


async def _bounded(request: web.Request, max_bytes: int, stall_s: float) -> AsyncIterator[bytes]:
    """Yield what comes, up to `max_bytes` in all, never waiting longer than `stall_s` for more."""
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    while piece := await _next_piece(request, stall_s):
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield piece


async def _next_piece(request: web.Request, stall_s: float) -> bytes:
    try:
        async with asyncio.timeout(stall_s):
            return await request.content.readany()
    except TimeoutError:
        told = f"no byte of the body came for {stall_s:g} s (stallTimeout)"
        raise BodyStalled(told) from None
    except (web.RequestPayloadError, ContentEncodingError) as error:
        raise BadRequest(f"the body cannot be read: {error}", code="invalid_body") from None


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than {max_bytes} bytes; send less or raise maxBodyBytes"
    )
