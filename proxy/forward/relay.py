"""Brings one request to who answers it, and the answer back.

Bytes go through as they come: no buffering, no re-chunking by us, back-pressure both ways. An
answer that breaks off is never ended cleanly: an event stream gets one error event, and then the
connection is cut, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import AnswerLate, HotseatError, WorkerDied, WorkerRefused
from proxy.forward.errand import ERROR_STATUS, EVENTS, Errand, break_off, cut
from proxy.forward.upstream import Upstream, end_to_end
from proxy.seat import Lease
from proxy.tokens import INFLATABLE, Ends
from proxy.wishes import PRIORITY, TIMEOUT

NOT_SENT_ON = ("host", "content-length", "expect", PRIORITY.lower(), TIMEOUT.lower())
"""Our own hop's, or for us; the length is set anew."""
DECODED = frozenset({"br", "deflate", "gzip", "zstd"})
"""Encodings that a body loses on its way in, as aiohttp decodes it."""
NOT_SENT_BACK = ("access-control-allow-origin", "date", "server")
ERROR_BYTES = 64 << 10
SWITCHING_PROTOCOLS = 101


class BrokenAnswer(Exception):
    """The answer ended, but not as a whole one."""


async def relay(errand: Errand, upstream: Upstream) -> web.StreamResponse:
    """Send the request and relay the answer to its end.

    Raises what `upstream` makes of a failure before the answer began. Cancelling closes the
    connection, which cancels the work. A client that takes nothing for `stall_s` is cut off: it
    must not hold the seat.
    """
    try:
        answer = await _ask(errand, upstream)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise await upstream.not_reached(error) from error
    except (aiohttp.ClientError, OSError) as error:
        raise await upstream.broke_off("before it answered", error) from error
    async with answer:
        if answer.status == SWITCHING_PROTOCOLS:
            raise upstream.spoke_nonsense("switched protocols unasked")
        upstream.note_head(answer.headers)
        if errand.response is not None and not _is_events(answer):
            raise await _not_streamed(errand, answer, upstream)
        return await _Relay(errand, answer, upstream).run()


async def _ask(errand: Errand, upstream: Upstream) -> aiohttp.ClientResponse:
    """Send the request, and wait for the head of its answer. Raises AnswerLate."""
    times, body = upstream.timeouts, errand.body
    limit = asyncio.timeout(None)
    try:
        async with limit:

            def is_out() -> None:
                with suppress(RuntimeError):  # it may have been answered before all was sent
                    limit.reschedule(asyncio.get_running_loop().time() + times.response_header)

            if times.response_header and not body.size:
                is_out()
            chunks = _told(body.chunks(), is_out) if times.response_header else body.chunks()
            return await upstream.session.request(
                errand.request.method,
                URL(upstream.url + errand.path, encoded=True),
                headers=_headers(errand, upstream),
                data=chunks if body.size else None,
                allow_redirects=False,
                timeout=_connecting(times.connect, times.tls_handshake),
            )
    except TimeoutError:
        if not limit.expired():
            raise
        told = f"{upstream.name} has not begun to answer within {times.response_header:g} s"
        raise AnswerLate(f"{told} (timeouts.responseHeader)") from None


@lru_cache(maxsize=64)
def _connecting(connect_s: float, tls_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s + tls_s if connect_s else None)


async def _told(
    chunks: AsyncIterator[bytes | memoryview], is_out: Callable[[], None]
) -> AsyncIterator[bytes | memoryview]:
    async for chunk in chunks:
        yield chunk
    is_out()


def _headers(errand: Errand, upstream: Upstream) -> CIMultiDict[str]:
    headers = end_to_end(errand.request.headers, drop=(*NOT_SENT_ON, *upstream.not_told))
    if errand.response is not None:
        headers.pop("Accept-Encoding", None)  # our head is out, and says nothing of an encoding
    elif errand.request.method == "POST" and "Accept-Encoding" in headers:
        headers["Accept-Encoding"] = _readable(headers["Accept-Encoding"])
    if headers.get("Content-Encoding", "").lower() in DECODED:
        del headers["Content-Encoding"]
    if errand.body.size:
        headers["Content-Length"] = str(errand.body.size)
    headers.update(upstream.own_headers)
    headers.update(errand.marks)
    return headers


def _readable(accepted: str) -> str:
    """Keep the encodings in which an answer's count of tokens can be read."""
    parts = [part.strip() for part in accepted.split(",")]
    kept = [part for part in parts if part.partition(";")[0].rstrip().lower() in INFLATABLE]
    return ", ".join(kept) or "identity"


@dataclass(slots=True)
class _Relay:
    """One answer on its way back."""

    errand: Errand
    answer: aiohttp.ClientResponse
    upstream: Upstream
    _has_told: bool = False  # that it breaks off: who answers himself, in his last bytes

    async def run(self) -> web.StreamResponse:
        errand, sent = self.errand, self.errand.sent
        sent.status = self.answer.status
        sent.ends = Ends(self.answer.headers.get("Content-Encoding", ""))
        try:
            response = errand.response or await self._begin()
            async for chunk in self.answer.content.iter_any():
                self._note(chunk)
                await errand.write(chunk)
            await self._see_it_whole()
            await response.write_eof()
        except aiohttp.ClientConnectionResetError:
            sent.note_client_left()
        except (TimeoutError, BrokenAnswer) as error:
            cut(errand, str(error) or f"the client took nothing for {errand.stall_s:g} s")
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
            broken = await self.upstream.broke_off("in the middle of its answer", error)
            if self._has_told:
                cut(errand, broken.message)
            else:
                await break_off(errand, broken)
        if errand.response is None:
            raise RuntimeError("an answer without a head")
        return errand.response

    def _note(self, chunk: bytes) -> None:
        sent = self.errand.sent
        if sent.first_byte_at is None:
            sent.first_byte_at = time.monotonic()
            self.upstream.note_first_byte()
        sent.size += len(chunk)
        sent.ends.take(chunk)
        self._has_told = b'"error":' in chunk

    async def _begin(self) -> web.StreamResponse:
        """Send the head: as it came, and how long the request has waited."""
        headers = end_to_end(self.answer.headers, drop=(*NOT_SENT_BACK, *self.upstream.not_heard))
        if _is_events(self.answer):
            headers["X-Accel-Buffering"] = "no"
        headers.update(_waiting_told(self.errand.leases))
        headers.update(self.errand.marks)
        response = self.errand.outlet.begin(self.answer.status, self.answer.reason, headers)
        self.errand.response = response
        try:
            await response.prepare(self.errand.request)
        except ValueError as error:  # a header that is none; nothing of the head is out
            self.errand.response = None
            raise self.upstream.spoke_nonsense(f"answered nonsense: {error}") from error
        return response

    async def _see_it_whole(self) -> None:
        """Tell the end of an unframed answer from a broken one. Raises BrokenAnswer."""
        if not self._is_framed and await self.upstream.has_died():
            raise BrokenAnswer("the worker went away at the end of its answer")

    @property
    def _is_framed(self) -> bool:
        """Tell whether the answer itself says where it ends."""
        headers = self.answer.headers
        return "Content-Length" in headers or "Transfer-Encoding" in headers


def _is_events(answer: aiohttp.ClientResponse) -> bool:
    return answer.content_type == EVENTS


def _waiting_told(leases: Sequence[Lease]) -> Mapping[str, str]:
    """Say how long the request has waited, in milliseconds, and who left for it."""
    if not leases:
        return {}
    told = {
        "X-Queue-Ms": f"{1000 * sum(lease.queued_s for lease in leases):.0f}",
        "X-Load-Ms": f"{1000 * sum(lease.loading_s for lease in leases):.0f}",
    }
    if leases[-1].was_swapped_in:
        left = ",".join(victim.model for victim in leases[-1].seat.swap.victims)
        told["X-Swap"] = quote(left, safe=",/ ") or "nobody"
    return told


async def _not_streamed(
    errand: Errand, answer: aiohttp.ClientResponse, upstream: Upstream
) -> HotseatError:
    """Make the error for who answers otherwise, when a stream has begun already."""
    if answer.status < ERROR_STATUS:
        told = f"{upstream.name} answered with {answer.content_type} to a request for a stream"
        return WorkerDied(f"{told}; ask without stream, or set waitingNotes: 0")
    raw = b""
    try:
        async with asyncio.timeout(errand.stall_s):
            while len(raw) < ERROR_BYTES and (chunk := await answer.content.readany()):
                raw += chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        return await upstream.broke_off("in the middle of an error", error)
    with suppress(ValueError, LookupError, TypeError):
        told = json.loads(raw)["error"]
        return WorkerRefused(str(told["message"]), answer.status, told)
    return WorkerDied(f"{upstream.name} answered with status {answer.status}")
