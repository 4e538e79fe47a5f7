"""Streams one request to one worker, and its answer back; owns the worker's death.

Bytes go through as they come: no buffering, no re-chunking by us, back-pressure both ways. An
answer that breaks off is never ended cleanly: an event stream gets one error event, and then the
connection is cut, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.body import Body
from proxy.errors import WorkerDied
from proxy.seat import Seat

log = logging.getLogger(__name__)

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 §7.6.1, and those that `Connection` names."""


GONE_WITHIN_S = 1.0
"""How long a broken connection waits for word that the process is gone too."""


class NotSent(Exception):
    """The worker could not be reached: it has not seen the request, so another may."""


@dataclass(slots=True)
class Sent:
    """What went out: kept up to date while it goes."""

    status: int = 0
    size: int = 0
    first_byte_at: float | None = None  # time.monotonic()
    is_cut: bool = False


async def forward(
    request: web.Request, seat: Seat, path: str, body: Body, sent: Sent
) -> web.StreamResponse:
    """Send the request to the worker's `path` and relay the answer to its end.

    Raises NotSent before anything was sent, WorkerDied when the worker broke off before its
    answer began. Cancelling closes the connection to the worker, which cancels its work.
    """
    headers = _end_to_end(request.headers, drop=("host", "content-length", "expect"))
    if body.size:
        headers["Content-Length"] = str(body.size)
    try:
        upstream = await seat.process.session.request(
            request.method,
            seat.process.url + path,
            headers=headers,
            data=body.chunks() if body.size else None,
            allow_redirects=False,
        )
    except aiohttp.ClientConnectorError as error:
        await _see_it_gone(seat)
        raise NotSent(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise await _died(seat, "before it answered") from error
    async with upstream:
        return await _relay(request, upstream, seat, sent)


async def _relay(
    request: web.Request, upstream: aiohttp.ClientResponse, seat: Seat, sent: Sent
) -> web.StreamResponse:
    dropped = ("access-control-allow-origin", "date", "server")
    response = web.StreamResponse(
        status=upstream.status,
        reason=upstream.reason,
        headers=_end_to_end(upstream.headers, drop=dropped),
    )
    sent.status = upstream.status
    is_events = upstream.content_type == "text/event-stream"
    if is_events:
        response.headers["X-Accel-Buffering"] = "no"
    try:
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            sent.first_byte_at = sent.first_byte_at or time.monotonic()
            sent.size += len(chunk)
            await response.write(chunk)
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
        sent.is_cut = True
        if not isinstance(error, aiohttp.ClientConnectionResetError):
            await _cut(request, response, seat, is_events=is_events)
        return response
    await response.write_eof()
    return response


async def _cut(
    request: web.Request, response: web.StreamResponse, seat: Seat, *, is_events: bool
) -> None:
    """End a broken answer so that it looks broken."""
    died = await _died(seat, "in the middle of its answer")
    log.warning("answer_cut", extra={"path": request.path, "why": died.message})
    if is_events:
        event = f"\n\ndata: {json.dumps(died.body)}\n\n"
        await response.write(event.encode())
    if request.transport is not None:
        request.transport.abort()


async def _died(seat: Seat, when: str) -> WorkerDied:
    """Make the error, once it is known whether the process is gone.

    A client that asks again at once is then not sent to the same dying worker.
    """
    await _see_it_gone(seat)
    words = seat.process.last_words()
    return WorkerDied(f"the worker of {seat.model} went away {when}; ask again. It said: {words}")


async def _see_it_gone(seat: Seat) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(GONE_WITHIN_S):
            await seat.gone.wait()


def _end_to_end(
    headers: Mapping[str, str] | CIMultiDictProxy[str], drop: Iterable[str]
) -> CIMultiDict[str]:
    """Copy the headers without those that are for one hop only, and without `drop`."""
    named = {
        name.strip().lower()
        for value in CIMultiDict(headers).getall("Connection", ())
        for name in value.split(",")
    }
    left_out = HOP_BY_HOP | named | set(drop)
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in left_out)
