"""Streams one request to one worker, and its answer back; owns the worker's death.

Bytes go through as they come: no buffering, no re-chunking by us, back-pressure both ways. An
answer that breaks off is never ended cleanly: an event stream gets one error event, and then the
connection is cut, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.body import Body
from proxy.config import Config
from proxy.errors import CapacityExceeded, HotseatError, WorkerDied, WorkerRefused
from proxy.refusals import amounts
from proxy.seat import Lease, Seat
from proxy.wishes import Wish

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


NOT_SENT_ON = ("host", "content-length", "content-encoding", "expect")
"""Our own hop's: the length is set anew, and the body was decoded on its way in."""

EVENTS = "text/event-stream"
REASON = "X-Hotseat-Reason"  # by which a worker says what an error of its own was about
ERROR_BYTES = 64 << 10
ERROR_STATUS = 400  # and above
CLIENT_LEFT = 499  # nginx's word for it; only the log says it
SWITCHING_PROTOCOLS = 101
UNFRAMED_WAIT_S = 0.1
"""How long the end of an answer without length or chunks waits for word of its worker's death."""
GONE_WITHIN_S = 1.0
"""How long a broken connection waits for word that the process is gone too."""


class NotSent(Exception):
    """The worker could not be reached: it has not seen the request, so another may."""


class BrokenAnswer(Exception):
    """The answer ended, but not as a whole one."""


@dataclass(slots=True)
class Sent:
    """What went out: kept up to date while it goes."""

    status: int = 0
    size: int = 0
    first_byte_at: float | None = None  # time.monotonic()
    is_cut: bool = False

    @property
    def is_well(self) -> bool:
        """Tell whether it was a whole and good answer."""
        return self.status < ERROR_STATUS and not self.is_cut


@dataclass(slots=True)
class Errand:
    """One request on its way to a model's worker, and what came of it so far."""

    request: web.Request
    model_id: str
    path: str  # at the worker, with its query
    body: Body
    config: Config  # under which it came; a reload may have made another since
    wish: Wish = field(default_factory=Wish)
    withheld: tuple[str, ...] = ()  # headers that are for us alone
    leases: list[Lease] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)
    response: web.StreamResponse | None = None  # once its head is out
    ran_out_of_memory: bool = False  # the worker, over this

    @property
    def stall_s(self) -> float:
        """Tell how long the client may take nothing of its answer."""
        return self.config.stall_timeout

    async def write(self, chunk: bytes) -> None:
        """Send more of the answer. Raises TimeoutError when the client does not take it."""
        if self.response is None:
            raise RuntimeError("wrote before the head was out")
        async with asyncio.timeout(self.stall_s):
            await self.response.write(chunk)


async def forward(errand: Errand, seat: Seat) -> web.StreamResponse:
    """Send the request to the worker and relay the answer to its end.

    Raises NotSent before anything was sent, WorkerDied when the worker broke off before its
    answer began. Cancelling closes the connection to the worker, which cancels its work. A client
    that takes nothing for `stall_s` is cut off: it must not hold the seat.
    """
    request, body = errand.request, errand.body
    headers = _end_to_end(request.headers, drop=(*NOT_SENT_ON, *errand.withheld))
    if errand.response is not None:
        headers.pop("Accept-Encoding", None)  # our head is out, and says nothing of an encoding
    if body.size:
        headers["Content-Length"] = str(body.size)
    try:
        upstream = await seat.process.session.request(
            request.method,
            URL(seat.process.url + errand.path, encoded=True),
            headers=headers,
            data=body.chunks() if body.size else None,
            allow_redirects=False,
        )
    except aiohttp.ClientConnectorError as error:
        await _see_it_gone(seat)
        raise NotSent(str(error)) from error
    except aiohttp.ClientResponseError as error:
        raise WorkerDied(f"the worker of {seat.model} answered nonsense: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise await _died(errand, seat, "before it answered") from error
    async with upstream:
        if upstream.status == SWITCHING_PROTOCOLS:
            raise WorkerDied(f"the worker of {seat.model} switched protocols unasked")
        errand.ran_out_of_memory = upstream.headers.get(REASON) == "out_of_memory"
        if errand.response is not None and not _is_events(upstream):
            raise await _not_streamed(errand, upstream, seat)
        return await _Relay(errand, upstream, seat).run()


async def break_off(errand: Errand, error: HotseatError) -> web.StreamResponse:
    """End an answer whose head is out so that it looks broken, after telling why if it can."""
    if errand.response is None:
        raise RuntimeError("nothing to break off")
    if errand.response.content_type == EVENTS:
        with suppress(aiohttp.ClientError, TimeoutError):
            await errand.write(f"\n\ndata: {json.dumps(error.body)}\n\n".encode())
    cut(errand, error.message)
    return errand.response


@dataclass(slots=True)
class _Relay:
    """One answer on its way back."""

    errand: Errand
    upstream: aiohttp.ClientResponse
    seat: Seat
    _has_told: bool = False  # that it breaks off: the worker itself, in its last bytes

    async def run(self) -> web.StreamResponse:
        errand, sent = self.errand, self.errand.sent
        sent.status = self.upstream.status
        try:
            response = errand.response or await self._begin()
            async for chunk in self.upstream.content.iter_any():
                self._note(chunk)
                await errand.write(chunk)
            if not self._is_framed:
                await self._see_it_alive()
            await response.write_eof()
        except aiohttp.ClientConnectionResetError:
            sent.status = CLIENT_LEFT
        except (TimeoutError, BrokenAnswer) as error:
            cut(errand, str(error) or f"the client took nothing for {errand.stall_s:g} s")
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            died = await _died(errand, self.seat, "in the middle of its answer")
            if self._has_told:
                cut(errand, died.message)
            else:
                await break_off(errand, died)
        if errand.response is None:
            raise RuntimeError("an answer without a head")
        return errand.response

    def _note(self, chunk: bytes) -> None:
        sent = self.errand.sent
        if sent.first_byte_at is None:
            sent.first_byte_at = time.monotonic()
            self.seat.note_first_byte(asyncio.get_running_loop().time())
        sent.size += len(chunk)
        self._has_told = b'"error":' in chunk

    async def _begin(self) -> web.StreamResponse:
        """Send the head: the worker's own, and how long the request has waited."""
        dropped = ("access-control-allow-origin", "date", "server")
        headers = _end_to_end(self.upstream.headers, drop=dropped)
        if _is_events(self.upstream):
            headers["X-Accel-Buffering"] = "no"
        headers.update(_waiting_told(self.errand.leases))
        response = web.StreamResponse(
            status=self.upstream.status, reason=self.upstream.reason, headers=headers
        )
        self.errand.response = response
        await response.prepare(self.errand.request)
        return response

    @property
    def _is_framed(self) -> bool:
        """Tell whether the answer itself says where it ends."""
        headers = self.upstream.headers
        return "Content-Length" in headers or "Transfer-Encoding" in headers

    async def _see_it_alive(self) -> None:
        """Tell the end of an unframed answer from the death of its worker. Raises BrokenAnswer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UNFRAMED_WAIT_S):
                await self.seat.ended.wait()
            raise BrokenAnswer("the worker went away at the end of its answer")


def _is_events(upstream: aiohttp.ClientResponse) -> bool:
    return upstream.content_type == EVENTS


def _waiting_told(leases: Sequence[Lease]) -> Mapping[str, str]:
    """Say how long the request has waited, in milliseconds, and who left for it."""
    told = {
        "X-Queue-Ms": f"{1000 * sum(lease.queued_s for lease in leases):.0f}",
        "X-Load-Ms": f"{1000 * sum(lease.loading_s for lease in leases):.0f}",
    }
    if leases and leases[-1].was_swapped_in:
        left = ",".join(victim.model for victim in leases[-1].seat.swap.victims)
        told["X-Swap"] = quote(left, safe=",/ ") or "nobody"
    return told


async def _not_streamed(
    errand: Errand, upstream: aiohttp.ClientResponse, seat: Seat
) -> HotseatError:
    """Make the error for a worker that answers otherwise, when a stream has begun already."""
    if upstream.status < ERROR_STATUS:
        told = f"{seat.model} answered with {upstream.content_type} to a request for a stream"
        return WorkerDied(f"{told}; ask without stream, or set waitingNotes: 0")
    raw = b""
    try:
        async with asyncio.timeout(errand.stall_s):
            while len(raw) < ERROR_BYTES and (chunk := await upstream.content.readany()):
                raw += chunk
    except (aiohttp.ClientError, TimeoutError):
        return await _died(errand, seat, "in the middle of an error")
    with suppress(ValueError, LookupError, TypeError):
        error = json.loads(raw)["error"]
        return WorkerRefused(str(error["message"]), upstream.status, error)
    return WorkerDied(f"the worker of {seat.model} answered with status {upstream.status}")


def cut(errand: Errand, why: str) -> None:
    """End a broken answer so that it looks broken."""
    request = errand.request
    errand.sent.is_cut = True
    log.warning("answer_cut", extra={"path": request.path, "why": why})
    transport = request.transport
    if transport is None:
        return
    if request.version < HttpVersion11:  # it ends with the connection: only RST tells
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _died(errand: Errand, seat: Seat, when: str) -> HotseatError:
    """Make the error, once it is known whether the process is gone.

    A client that asks again at once is then not sent to the same dying worker.
    """
    await _see_it_gone(seat)
    words = seat.process.last_words()
    if seat.order is None and seat.process.ran_out_of_memory:
        errand.ran_out_of_memory = True
        return CapacityExceeded(_told_of_memory(errand.leases[-1], words), retry_after_s=1.0)
    return WorkerDied(f"the worker of {seat.model} went away {when}; ask again. It said: {words}")


def _told_of_memory(lease: Lease, words: str) -> str:
    had = amounts(lease.charge)
    return (
        f"{lease.seat.model} ran out of memory, which it was thought to need {had} of, and went"
        f" away: {words}. More is set aside for it now: ask again, or for less"
    )


async def _see_it_gone(seat: Seat) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(GONE_WITHIN_S):
            await seat.ended.wait()


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
