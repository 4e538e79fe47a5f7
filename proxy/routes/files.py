"""OpenAI's Files API, for pictures: requests name what was put here instead of carrying it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from proxy.body import bounded
from proxy.errors import BadRequest, NotFound
from proxy.jobs import KeptAnswer
from proxy.pictures import Claim, Stored, UploadForm
from proxy.routes.access import owner_of
from proxy.routes.keys import FILES, config_of
from proxy.routes.results import hand_over

PURPOSES: Final = ("vision", "user_data")
SHORTEST_S, LONGEST_S = 3600, 2_592_000
"""Of `expires_after`, as OpenAI has them."""
MOST_LISTED: Final = 10_000
_HEADERS: Final = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}


async def take_file(request: web.Request) -> web.Response:
    """Answer POST /v1/files: the bytes go to the disk as they come."""
    config, store = config_of(request), request.app[FILES]
    form = UploadForm(request.headers.get("Content-Type", ""))
    with store.incoming() as incoming:
        async for piece in bounded(request, config.max_body_bytes, config.stall_timeout):
            for part in form.feed(piece):
                store.take(incoming, part)
        form.end()
        claim = _claim(form)
        stored = await asyncio.to_thread(store.keep, incoming, claim, owner_of(request))
    return web.json_response(_as_json(stored))


async def list_files(request: web.Request) -> web.Response:
    """Answer GET /v1/files: what this key has put here; newest first unless asked otherwise."""
    query = request.query
    purpose, order = query.get("purpose"), query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("order is asc or desc", param="order", code="invalid_value")
    limit = _limit(query.get("limit"))
    files = [
        one
        for one in request.app[FILES].of(owner_of(request))
        if purpose is None or one.purpose == purpose
    ]
    if order == "desc":
        files.reverse()
    if after := query.get("after"):
        files = files[_place_of(after, files) + 1 :]
    page = files[:limit]
    return web.json_response(
        {
            "object": "list",
            "data": [_as_json(one) for one in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(files) > len(page),
        }
    )


async def tell_file(request: web.Request) -> web.Response:
    """Answer GET /v1/files/{id}."""
    return web.json_response(_as_json(_named(request)))


async def give_file(request: web.Request) -> web.StreamResponse:
    """Answer GET /v1/files/{id}/content with the picture, byte for byte."""
    stored = _named(request)
    headers = {"Content-Type": stored.media_type, **_HEADERS}
    answer = KeptAnswer(
        stored.path, stored.size_bytes, status=200, headers=headers, size_bytes=stored.size_bytes
    )
    answer.end()
    return await hand_over(request, answer, config_of(request).stall_timeout)


async def drop_file(request: web.Request) -> web.Response:
    """Answer DELETE /v1/files/{id}; it leaves when all who have put it here have said so."""
    reference = request.match_info["id"]
    store = request.app[FILES]
    if not await asyncio.to_thread(store.drop, reference, owner_of(request)):
        raise _not_found(reference)
    return web.json_response({"id": reference, "object": "file", "deleted": True})


def _named(request: web.Request) -> Stored:
    reference = request.match_info["id"]
    stored = request.app[FILES].find(reference, owner_of(request))
    if stored is None:
        raise _not_found(reference)
    return stored


def _not_found(reference: str) -> NotFound:
    told = f"there is no file {reference[:80]!r} (any more): send it to POST /v1/files again"
    return NotFound(told, param="file_id", code="file_not_found")


def _claim(form: UploadForm) -> Claim:
    """Read what the form says of its file. Raises BadRequest."""
    purpose = form.fields.get("purpose", "")
    if purpose not in PURPOSES:
        told = f"only pictures are kept here: purpose must be {' or '.join(PURPOSES)}"
        raise BadRequest(told, param="purpose", code="invalid_value")
    return Claim(form.filename, purpose, time.time(), _keep_s(form.fields))


def _keep_s(fields: Mapping[str, str]) -> float | None:
    anchor, seconds = (fields.get(f"expires_after[{key}]") for key in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    is_number = seconds is not None and seconds.isascii() and seconds.isdecimal()
    if anchor != "created_at" or not is_number or not SHORTEST_S <= int(seconds or 0) <= LONGEST_S:
        told = f"expires_after is anchor=created_at, and seconds from {SHORTEST_S} to {LONGEST_S}"
        raise BadRequest(told, param="expires_after", code="invalid_value")
    return float(seconds or 0)


def _limit(told: str | None) -> int:
    if told is None:
        return MOST_LISTED
    if not (told.isascii() and told.isdecimal()) or not 1 <= int(told) <= MOST_LISTED:
        raise BadRequest(f"limit is 1 to {MOST_LISTED}", param="limit", code="invalid_value")
    return int(told)


def _place_of(reference: str, files: list[Stored]) -> int:
    for place, one in enumerate(files):
        if one.id == reference:
            return place
    told = f"after: there is no file {reference[:80]!r} in this list"
    raise BadRequest(told, param="after", code="invalid_value")


def _as_json(stored: Stored) -> Mapping[str, object]:
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.size_bytes,
        "created_at": int(stored.created_at),
        "expires_at": None if stored.expires_at is None else int(stored.expires_at),
        "filename": stored.name,
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
    }
