"""Reads a request's body: a small one into memory, the others to a spool; peeks as it comes."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.body.edit import Edit
from proxy.body.form import FormPeek
from proxy.body.lexer import JsonPeek
from proxy.body.look import Blind, Known, KnownJson, KnownQuery, Look
from proxy.body.parts import Picture
from proxy.body.peek import Peek
from proxy.body.query import peek_query
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Span, Splice, pieces, size_after, steps
from proxy.body.texts import Quote
from proxy.errors import BadRequest, BodyStalled, BodyTooLarge

READ_BYTES = 256 << 10
MEMORY_BYTES = 1 << 20  # a larger body goes to disk
URLENCODED = "application/x-www-form-urlencoded"
MOST_ESCAPED = 12  # bytes that one character of a JSON string may take, as \ud83d\ude00
JSON_BEGINS = (b"{", b"[")  # curl -d calls everything a form


@dataclass(frozen=True, slots=True)
class Change:
    """What stands in a span of a body gives way to what is given."""

    span: Span
    give: Callable[[], AsyncIterator[bytes]]


class Body:
    """Bytes in memory or spooled to disk; close it, or use it as a context."""

    def __init__(
        self,
        source: bytes | IO[bytes],
        size: int,
        peek: Peek,
        known: Known | None = None,
    ) -> None:
        """`known` tells what is in it, and what an edit changes; None: nothing."""
        self.peek = peek
        self._source = source
        self._source_size = size
        self._known = known or Blind()
        self._reading = asyncio.Lock()
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
        self._splices = self._known.splices(edit)

    async def pictures(self) -> Sequence[Picture]:
        """Find the pictures in it, as it came, and those that it names."""
        return await asyncio.to_thread(self._known.pictures)

    async def texts(self, names: Collection[str], most_characters: int) -> Sequence[str]:
        """Give the words in these fields, as they came. Raises BadRequest for too many."""
        texts: list[str] = []
        left = most_characters
        for one in await asyncio.to_thread(self._known.texts, names):
            if isinstance(one, Quote) and len(one.span) > MOST_ESCAPED * left:
                raise _too_wordy(most_characters)
            text = one if isinstance(one, str) else one.read(await self.read(one.span))
            left -= len(text)
            if left < 0:
                raise _too_wordy(most_characters)
            texts.append(text)
        return texts

    async def read(self, span: Span) -> bytes:
        """Give a part of it, as it came."""
        return bytes(await self._piece(span))

    async def changed(self, changes: Sequence[Change], max_bytes: int) -> Body:
        """Make another body of it as it came, with these changes, which must be in order.

        It is looked at anew, and not edited yet. Raises BodyTooLarge, and what a change raises.
        """
        return await _spooled(_within(max_bytes, self._told(changes)), JsonPeek())

    async def _told(self, changes: Sequence[Change]) -> AsyncIterator[bytes]:
        at = 0
        for change in (*changes, None):
            until = self._source_size if change is None else change.span.start
            for span in steps(at, until, READ_BYTES):
                yield bytes(await self._piece(span))
            if change is not None:
                at = change.span.end
                async for piece in change.give():
                    yield piece

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """Give the body piece by piece; may be asked for again, for a second try."""
        for piece in pieces(self._splices, self._source_size, READ_BYTES):
            yield piece if isinstance(piece, bytes) else await self._piece(piece)

    async def _piece(self, span: Span) -> bytes | memoryview:
        if isinstance(self._source, bytes):
            return memoryview(self._source)[span.start : span.end]
        async with self._reading:  # a file has one place where it is read
            return await asyncio.to_thread(_read, self._source, span)


def _read(spool: IO[bytes], span: Span) -> bytes:
    spool.seek(span.start)
    return spool.read(span.end - span.start)


async def read_body(request: web.Request, max_bytes: int, stall_s: float) -> Body:
    """Read the whole body and peek into it. Raises BadRequest, BodyTooLarge, BodyStalled.

    A form with parts is spooled as it comes, and so is JSON from `MEMORY_BYTES` on. What does not
    say what it is, is taken for JSON: many a client forgets.
    """
    incoming = bounded(request, max_bytes, stall_s)
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
        return Body(raw, len(raw), peek, KnownQuery(raw, models))
    return body_of(buffer.getvalue())


def body_of(raw: bytes) -> Body:
    """Take JSON that is in memory already. Raises BadRequest."""
    text = Skeleton(raw)
    return Body(text.raw, len(text.raw), text.peek(), KnownJson(text))


async def read_blindly(
    request: web.Request, max_bytes: int, stall_s: float, peek: Peek | None = None
) -> Body:
    """Read the whole body without a look at what it is. Raises as `read_body` does.

    `peek` is what is known of the request otherwise.
    """
    return await _spooled(bounded(request, max_bytes, stall_s), Blind(peek or Peek()))


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
        return Body(spool, size, look.end(), look)
    except BaseException:  # whatever ends it, the spool must not stay
        spool.close()
        raise


async def bounded(request: web.Request, max_bytes: int, stall_s: float) -> AsyncIterator[bytes]:
    """Yield what comes, up to `max_bytes` in all, never waiting longer than `stall_s` for more.

    Raises BadRequest, BodyTooLarge, BodyStalled.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    while piece := await _next_piece(request, stall_s):
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield piece


async def _within(max_bytes: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces as long as there are no more bytes in all."""
    size = 0
    async for piece in pieces:
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


def _too_wordy(most_characters: int) -> BadRequest:
    told = f"the text is longer than {most_characters} characters, which is more than is checked"
    return BadRequest(told, code="text_too_long")


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than {max_bytes} bytes; send less or raise maxBodyBytes"
    )
