"""Reads a request's body: a small one into memory, the others to a spool; peeks as it comes."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import IO, Protocol, Self

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.body.edit import Edit
from proxy.body.form import FormPeek
from proxy.body.lexer import JsonPeek
from proxy.body.peek import Peek
from proxy.body.query import peek_query, splices_in_query
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Span, Splice, pieces, size_after
from proxy.errors import BadRequest, BodyStalled, BodyTooLarge

READ_BYTES = 256 << 10
MEMORY_BYTES = 1 << 20  # a larger body goes to disk
URLENCODED = "application/x-www-form-urlencoded"
JSON_BEGINS = (b"{", b"[")  # curl -d calls everything a form


class Look(Protocol):
    """What follows a body as it comes."""

    def feed(self, piece: bytes, /) -> None:
        """Take the next bytes. Raises BadRequest."""

    def end(self) -> Peek:
        """Tell what was in it. Raises BadRequest."""
        ...

    def splices(self, edit: Edit, /) -> Sequence[Splice]:
        """Find what an edit changes in it."""
        ...


class _NoLook:
    """Follows what nobody wants to know of."""

    def __init__(self, peek: Peek) -> None:
        self._peek = peek

    def feed(self, _: bytes) -> None:
        """Let it pass."""

    def end(self) -> Peek:
        """Tell what is known otherwise."""
        return self._peek

    def splices(self, _: Edit) -> Sequence[Splice]:
        """Change nothing."""
        return ()


class Body:
    """Bytes in memory or spooled to disk; close it, or use it as a context."""

    def __init__(
        self,
        source: bytes | IO[bytes],
        size: int,
        peek: Peek,
        splices: Callable[[Edit], Sequence[Splice]] = lambda _: (),
    ) -> None:
        """`splices` tells what an edit changes in it."""
        self.peek = peek
        self._source = source
        self._source_size = size
        self._splices_of = splices
        self._splices: Sequence[Splice] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if not isinstance(self._source, bytes):
            self._source.close()

    @property
    def size(self) -> int:
        """Tell how many bytes `chunks` gives."""
        return size_after(self._splices, self._source_size)

    def edit(self, edit: Edit) -> None:
        """Let `chunks` give the edited body; all that the edit does not name stays byte for byte.

        A form is told another name and nothing else. Takes the place of an earlier edit.
        """
        self._splices = self._splices_of(edit)

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """Give the body piece by piece; may be asked for again, for a second try."""
        for piece in pieces(self._splices, self._source_size, READ_BYTES):
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(self._source, bytes):
                yield memoryview(self._source)[piece.start : piece.end]
            else:
                yield await asyncio.to_thread(_read, self._source, piece)


def _read(spool: IO[bytes], span: Span) -> bytes:
    spool.seek(span.start)
    return spool.read(span.end - span.start)


async def read_body(request: web.Request, max_bytes: int, stall_s: float) -> Body:
    """Read the whole body and peek into it. Raises BadRequest, BodyTooLarge, BodyStalled.

    A form with parts is spooled as it comes, and so is JSON from `MEMORY_BYTES` on. What does not
    say what it is, is taken for JSON: many a client forgets.
    """
    incoming = _bounded(request, max_bytes, stall_s)
    if request.content_type.startswith("multipart/"):
        return await _spooled(incoming, FormPeek(request.headers["Content-Type"]))
    buffer = io.BytesIO()  # gives its bytes away uncopied; joined pieces would be there twice
    async for piece in incoming:
        buffer.write(piece)
        if buffer.tell() > MEMORY_BYTES and not _is_query(request, buffer):
            return await _spooled(_again(buffer, incoming), JsonPeek())
    if _is_query(request, buffer):
        raw = buffer.getvalue()
        peek, models = peek_query(raw)
        return Body(raw, len(raw), peek, partial(splices_in_query, models))
    text = Skeleton(buffer.getvalue())
    return Body(text.raw, len(text.raw), text.peek(), text.splices)


async def read_blindly(
    request: web.Request, max_bytes: int, stall_s: float, peek: Peek | None = None
) -> Body:
    """Read the whole body without a look at what it is. Raises as `read_body` does.

    `peek` is what is known of the request otherwise.
    """
    return await _spooled(_bounded(request, max_bytes, stall_s), _NoLook(peek or Peek()))


def _is_query(request: web.Request, buffer: io.BytesIO) -> bool:
    head = bytes(buffer.getbuffer()[:64])
    return request.content_type == URLENCODED and head.lstrip()[:1] not in JSON_BEGINS


async def _again(buffer: io.BytesIO, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what has come already, in steps between which others have their turn, and the rest."""
    raw = buffer.getvalue()
    buffer.close()
    for at in range(0, len(raw), READ_BYTES):
        yield raw[at : at + READ_BYTES]
        await asyncio.sleep(0)  # megabytes at once would hold up all others
    del raw
    async for piece in rest:
        yield piece


async def _spooled(pieces: AsyncIterator[bytes], look: Look) -> Body:
    """Write the body to a spool; `look` sees every piece of it."""
    spool = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115  # given away
    size = 0
    try:
        async for piece in pieces:
            look.feed(piece)
            spool.write(piece)
            size += len(piece)
        return Body(spool, size, look.end(), look.splices)
    except BaseException:  # whatever ends it, the spool must not stay
        spool.close()
        raise


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
