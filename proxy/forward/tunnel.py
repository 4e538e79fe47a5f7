"""Carries a websocket between a client and a worker, message by message, both ways at once.

Pings, pongs and the reasons of a close are each side's own affair: they pass. A side that has said
its last word may still listen to the other's. A worker that goes away without a word closes the
client's socket with 1011, so that nobody takes silence for an end.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from yarl import URL

from proxy.errors import WorkerDied, WorkerRefused
from proxy.forward import CLIENT_LEFT, NOT_SENT_ON, Errand, NotSent, cut, end_to_end
from proxy.forward.worker import host_for
from proxy.seat import Seat

log = logging.getLogger(__name__)

HANDSHAKE = (
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
)
"""Each hop shakes hands for itself; the protocol is chosen by the worker."""

PASSED = frozenset({WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG})
LAST_WORDS_S = 10.0
"""How long a side that has been told of the other's close has for its own."""
GONE_WITHIN_S = 1.0
"""How long a broken connection waits for word that the process is gone too."""
SLOWEST_BYTES_PER_S = 64 << 10
"""A client that takes less of a large message, after the time to stall, is taken for stalled."""

Side = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]


def is_websocket(request: web.Request) -> bool:
    """Tell whether the request asks to become a websocket."""
    named = request.headers.get("Connection", "").lower().split(",")
    asked = request.headers.get("Upgrade", "").strip().lower()
    return asked == "websocket" and "upgrade" in (name.strip() for name in named)


async def tunnel(errand: Errand, seat: Seat) -> web.StreamResponse:
    """Let client and worker talk until both have closed, or one is gone.

    Raises NotSent when the worker was not reached, WorkerDied when it ended over the handshake. A
    worker that will not have the websocket gives its status to the client.
    """
    try:
        upstream = await _connect(errand, seat)
    except aiohttp.WSServerHandshakeError as error:
        return _refused(errand, seat, error.status)
    except aiohttp.ClientConnectorError as error:
        await _see_it_gone(seat)
        raise NotSent(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        await _see_it_gone(seat)
        told = f"the worker of {seat.model} went away before the websocket was open"
        raise WorkerDied(f"{told}. It said: {seat.process.last_words()}") from error
    async with upstream:
        client = web.WebSocketResponse(
            autoping=False,
            autoclose=False,
            compress=False,
            decode_text=False,
            max_msg_size=errand.config.max_body_bytes,
            protocols=[upstream.protocol] if upstream.protocol else (),
        )
        try:
            await client.prepare(errand.request)
        except ConnectionResetError:
            raise asyncio.CancelledError from None  # nobody is there to be answered
        errand.response, errand.sent.status = client, client.status
        await _Talk(errand, seat, client, upstream).run()
        return client


async def _connect(errand: Errand, seat: Seat) -> aiohttp.ClientWebSocketResponse[bool]:
    request = errand.request
    headers = end_to_end(request.headers, drop=(*NOT_SENT_ON, *errand.withheld, *HANDSHAKE))
    headers.update(host_for(errand, seat))
    asked = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    return await seat.process.session.ws_connect(
        URL(seat.process.url + errand.path, encoded=True),
        headers=headers,
        protocols=[name.strip() for name in asked if name.strip()],
        autoping=False,
        autoclose=False,
        decode_text=False,
        max_msg_size=errand.config.max_body_bytes,
    )


def _refused(errand: Errand, seat: Seat, status: int) -> web.Response:
    errand.sent.status = status if status >= WorkerRefused.status - 100 else WorkerDied.status
    told = f"the worker of {seat.model} takes no websocket here: it answered with status {status}"
    body = WorkerDied(told, code="websocket_refused").body
    return web.json_response(body, status=errand.sent.status)


@dataclass(slots=True)
class _Talk:
    """One websocket's two directions."""

    errand: Errand
    seat: Seat
    client: web.WebSocketResponse[bool]
    upstream: aiohttp.ClientWebSocketResponse[bool]
    _closed: set[Side] = field(default_factory=set)  # those that have been told of a close

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            up = tasks.create_task(self._pass(self.client, self.upstream))
            down = tasks.create_task(self._pass(self.upstream, self.client))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if all(one.result() for one in (up, down) if one.done()):
                await asyncio.wait({up, down}, timeout=LAST_WORDS_S)
            up.cancel()
            down.cancel()
        await self._part(
            has_lost_client=up.done() and not up.cancelled() and not up.result(),
            has_lost_worker=down.done() and not down.cancelled() and not down.result(),
        )

    async def _pass(self, source: Side, target: Side) -> bool:
        """Pass on what `source` says until it has closed; False: one of them is gone."""
        while True:
            message = await source.receive()
            if message.type == WSMsgType.CLOSE:
                last = _last_word(message.data, message.extra)
                return await self._send(target, last, WSMsgType.CLOSE)
            if message.type not in PASSED or not isinstance(message.data, bytes | bytearray):
                return False
            if not await self._send(target, bytes(message.data), message.type):
                return False

    async def _send(self, target: Side, data: bytes, kind: WSMsgType) -> bool:
        errand = self.errand
        try:
            if target is self.client:
                self._note(data)
                async with asyncio.timeout(errand.stall_s + len(data) / SLOWEST_BYTES_PER_S):
                    await target.send_frame(data, kind)
            else:
                await target.send_frame(data, kind)
        except TimeoutError:
            cut(errand, f"the client took nothing for {errand.stall_s:g} s")
            return False
        except ConnectionResetError:
            return False
        if kind == WSMsgType.CLOSE:
            self._closed.add(target)
        return True

    def _note(self, data: bytes) -> None:
        sent = self.errand.sent
        if sent.first_byte_at is None:
            sent.first_byte_at = time.monotonic()
        sent.size += len(data)

    async def _part(self, *, has_lost_client: bool, has_lost_worker: bool) -> None:
        """Close what is still open; who has been told of a close is not told again."""
        transport = self.errand.request.transport
        if has_lost_worker and self.client not in self._closed and not has_lost_client:
            await _see_it_gone(self.seat)
            self.errand.sent.is_cut = True
            told = {"path": self.errand.request.path, "why": "the worker went away"}
            log.warning("answer_cut", extra=told)
            code, last = WSCloseCode.INTERNAL_ERROR, b"the worker went away"
            await self._send(self.client, _last_word(code, last.decode()), WSMsgType.CLOSE)
        elif has_lost_client and self.upstream not in self._closed:
            self.errand.sent.status = CLIENT_LEFT
            await self.upstream.close(code=WSCloseCode.GOING_AWAY)
        if transport is not None:
            transport.close()  # what is written goes out; nothing more is


async def _see_it_gone(seat: Seat) -> None:
    """Wait for word that the process is gone too: who asks again is not sent to it then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GONE_WITHIN_S):
            await seat.ended.wait()


def _last_word(code: object, why: object) -> bytes:
    """Make the payload of a close; 0: without a code, as it came."""
    if not isinstance(code, int) or code == 0:
        return b""
    return struct.pack("!H", code) + (why.encode() if isinstance(why, str) else b"")
