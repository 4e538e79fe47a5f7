"""A request's body: kept as the bytes that came, and peeked into for what routing needs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Annotated, Self

import python_multipart
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from pydantic import BaseModel, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from proxy.errors import BadRequest, BodyStalled, BodyTooLarge

READ_BYTES = 256 << 10
MEMORY_BYTES = 1 << 20  # a larger upload goes to disk
MODEL_BYTES = 1 << 10  # of the form field `model`
PICTURE_PARTS = frozenset({"image_url", "input_image", "image"})


@dataclass(frozen=True, slots=True)
class Peek:
    """What routing needs to know of a body."""

    model: str | None = None
    has_pictures: bool = False


class _Part(BaseModel):
    type: str = ""


class _Message(BaseModel):
    content: Annotated[str | list[_Part] | None, Field(union_mode="left_to_right")] = None


class _Document(BaseModel):
    """Only these keys become Python objects; megabytes of base64 beside them do not."""

    model: str | None = None
    messages: list[_Message] | None = None


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


def peek_json(raw: bytes) -> Peek:
    """Look into a JSON body. Raises BadRequest."""
    try:
        document = _Document.model_validate_json(raw)
    except ValidationError as error:
        raise _as_bad_request(error) from None
    parts = [
        part.type
        for message in document.messages or ()
        if isinstance(message.content, list)
        for part in message.content
    ]
    has_pictures = not PICTURE_PARTS.isdisjoint(parts)
    return Peek(document.model, has_pictures)


def _as_bad_request(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    if not first["loc"]:
        return BadRequest("the body must be a JSON object", code="invalid_json")
    names = [str(part) for part in first["loc"] if not str(part).startswith(("list[", "str"))]
    return BadRequest(
        f"{'.'.join(names)}: {first['msg']}", param=".".join(names), code="invalid_value"
    )


class FormPeek:
    """Follows a multipart body and keeps its field `model`."""

    def __init__(self, content_type: str) -> None:
        """Raise BadRequest for a content type without a boundary."""
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise BadRequest("multipart without a boundary", code="invalid_multipart")
        self._model = b""
        self._is_model = False  # the part that is coming
        self._header, self._value = b"", b""
        self._parser = python_multipart.MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name_comes,
                "on_header_value": self._header_value_comes,
                "on_header_end": self._header_ends,
                "on_part_data": self._data_comes,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises BadRequest."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequest(f"not a valid form: {error}", code="invalid_multipart") from None

    def end(self) -> Peek:
        """Tell what was in it. Raises BadRequest when it breaks off."""
        if self._parser.state != MultipartState.END:
            raise BadRequest("the form breaks off before its end", code="invalid_multipart")
        return Peek(self._model.decode("utf-8", "replace") or None)

    def _part_begins(self) -> None:
        self._is_model = False

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._is_model = options.get(b"name") == b"model"
        self._header = self._value = b""

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        if not self._is_model:
            return
        self._model += data[start:end]
        if len(self._model) > MODEL_BYTES:
            raise BadRequest("the form field model is too long", param="model")
