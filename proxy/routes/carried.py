"""The bytes of a picture that a body carries or names, wherever they are."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import IO, Final, TypeAlias, assert_never

from aiohttp import web

from proxy.body import STORED, Body, Inline, Odd, Picture, Reference, Remote, Span
from proxy.errors import BadRequest, NotFound
from proxy.pictures import sniff
from proxy.routes.keys import FETCHER, FILES, config_of

PIECE_BYTES: Final = 3 << 16
"""Of threes, which base64 makes fours of."""
SHOWN_CHARACTERS: Final = 100
UNKNOWN: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Filed:
    """A picture in a file that stays open: the picture itself may leave meanwhile."""

    file: IO[bytes]
    media_type: str
    digest: str  # half of its SHA-256 in hex, as references have it

    async def whole(self) -> bytes:
        """Give its bytes."""
        self.file.seek(0)
        return await asyncio.to_thread(self.file.read)

    async def as_uri(self) -> AsyncIterator[bytes]:
        """Give it as a data URI, piece by piece."""
        yield f"data:{self.media_type};base64,".encode()
        self.file.seek(0)
        while piece := await asyncio.to_thread(self.file.read, PIECE_BYTES):
            yield base64.b64encode(piece)


@dataclass(frozen=True, slots=True)
class Carried:
    """A picture that stands in a body."""

    body: Body
    where: str
    text: Span
    digest: str = ""  # as above, once it was looked at

    async def whole(self) -> bytes:
        """Give its bytes. Raises BadRequest."""
        return await asyncio.to_thread(_content, await self.body.read(self.text), self.where)


Seen: TypeAlias = Filed | Carried


async def seen(request: web.Request, body: Body, picture: Picture, held: ExitStack) -> Seen:
    """Open a picture, until `held` lets go of it. Raises NotFound and BadRequest."""
    match picture.source:
        case Inline(text):
            carried = Carried(body, picture.where, text)
            raw = await carried.whole()
            return replace(carried, digest=await asyncio.to_thread(_digest, raw))
        case Reference() as source:
            filed = _stored(request, picture, source)
        case Remote(url):
            filed = await _fetched(request, picture, url)
        case Odd():
            raise no_picture(picture)
        case _:
            assert_never(picture.source)
    held.callback(filed.file.close)
    return filed


def _stored(request: web.Request, picture: Picture, source: Reference) -> Filed:
    found = request.app[FILES].find(source.name)
    if found is not None:
        with suppress(OSError):  # it has just left
            file = found.path.open("rb")
            return Filed(file, found.media_type, found.id.removeprefix(STORED))
    raise no_such_picture(picture, source)


async def _fetched(request: web.Request, picture: Picture, url: str) -> Filed:
    rules = config_of(request).fetch_images
    if rules is None:
        raise not_fetched(picture)
    raw = await request.app[FETCHER].fetch(url, rules, param=picture.where)
    return await asyncio.to_thread(_filed_for_now, raw)


def not_fetched(picture: Picture) -> BadRequest:
    return BadRequest(
        f"{picture.where}: pictures are not fetched from elsewhere; send a data: URI or a"
        " reference (POST /v1/files), or set fetch_images: true in swap.yaml",
        param=picture.where,
        code="remote_images_off",
    )


def no_picture(picture: Picture) -> BadRequest:
    told = f"{picture.where}: this is no picture; send a data: URI or a reference"
    return BadRequest(told, param=picture.where, code="invalid_image")


def no_such_picture(picture: Picture, source: Reference) -> NotFound:
    shown = source.name[:SHOWN_CHARACTERS]
    return NotFound(
        f"{picture.where}: there is no picture {shown!r} here, or not any more;"
        " send it again, to POST /v1/files or as a data: URI",
        param=picture.where,
        code="file_not_found",
    )


def _filed_for_now(raw: bytes) -> Filed:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # given away
    file.write(raw)
    return Filed(file, sniff(raw) or UNKNOWN, _digest(raw))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _content(text: bytes, where: str) -> bytes:
    """Decode a data URI or bare base64, a JSON string; as leniently as the workers do."""
    head, comma, coded = json.loads(text).partition(",")
    with suppress(ValueError):
        if not comma:
            head, coded = "data:;base64", head
        is_right = head[:5].lower() == "data:" and head.lower().endswith(";base64")
        if is_right and (raw := base64.b64decode(coded)):
            return raw
    raise BadRequest(
        f"{where}: the picture is not valid base64; send data:image/png;base64,…",
        param=where,
        code="invalid_base64",
    )
