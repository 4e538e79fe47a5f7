"""Reads a request's body: JSON into memory, uploads to a spool; peeks as it comes."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum, auto
from types import TracebackType
from typing import IO, Self

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.body.edit import Edit, splices_in
from proxy.body.form import FormPeek
from proxy.body.peek import Peek, peek_json
from proxy.body.query import peek_query, renamed
from proxy.body.splice import Span, Splice, pieces, size_after
from proxy.errors import BadRequest, BodyStalled, BodyTooLarge

READ_BYTES = 256 << 10
MEMORY_BYTES = 1 << 20  # a larger upload goes to disk
URLENCODED = "application/x-www-form-urlencoded"
JSON_BEGINS = (b"{", b"[")  # curl -d calls everything a form


class Kind(Enum):
    """How a body says things, which decides how it is edited."""

    JSON = auto()
    FORM = auto()
    QUERY = auto()  # a urlencoded form
    OTHER = auto()  # nobody has looked


class Body:
    """Bytes in memory or spooled to disk; close it, or use it as a context."""

    def __init__(
        self,
        source: bytes | IO[bytes],
        size: int,
        peek: Peek,
        kind: Kind = Kind.OTHER,
        models: Sequence[Span] = (),
    ) -> None:
        """`models` are the places of the model's name in a form."""
        self.peek = peek
        self._source = source
        self._source_size = size
        self._kind = kind
        self._models = models
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
        match self._kind:
            case Kind.JSON if isinstance(self._source, bytes):
                self._splices = splices_in(self._source, edit) if edit else ()
            case Kind.FORM if edit.model is not None:
                name = edit.model.encode()
                self._splices = [Splice(one.start, one.end, name) for one in self._models]
            case Kind.QUERY if edit.model is not None:
                self._splices = renamed(self._models, edit.model)
            case _:
                self._splices = ()

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

    JSON stays in memory once, as bytes; a multipart upload is spooled to disk as it comes. What
    does not say what it is, is taken for JSON: many a client forgets.
    """
    incoming = _bounded(request, max_bytes, stall_s)
    if request.content_type.startswith("multipart/"):
        form = FormPeek(request.headers["Content-Type"])
        spool, size = await _spool(incoming, form.feed)
        try:
            return Body(spool, size, form.end(), Kind.FORM, form.models)
        except BaseException:
            spool.close()
            raise
    buffer = io.BytesIO()  # gives its bytes away uncopied; joined pieces would be there twice
    async for piece in incoming:
        buffer.write(piece)
    raw = buffer.getvalue()
    buffer.close()
    if request.content_type == URLENCODED and raw[:64].lstrip()[:1] not in JSON_BEGINS:
        peek, models = peek_query(raw)
        return Body(raw, len(raw), peek, Kind.QUERY, models)
    return Body(raw, len(raw), peek_json(raw), Kind.JSON)


async def read_blindly(
    request: web.Request, max_bytes: int, stall_s: float, peek: Peek | None = None
) -> Body:
    """Read the whole body without a look at what it is. Raises as `read_body` does.

    `peek` is what is known of the request otherwise.
    """
    spool, size = await _spool(_bounded(request, max_bytes, stall_s), lambda _: None)
    return Body(spool, size, peek or Peek())


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
