"""Nobody waits in the dark: who streams hears how things stand, until his answer begins.

Clients give up on a connection that says nothing during a long load. So a stream begins at once,
with comments (lines that begin with a colon: WHATWG HTML, 9.2.6), which clients skip.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import aiohttp

from proxy.config import Config
from proxy.errors import HotseatError
from proxy.forward import EVENTS, Errand, cut
from proxy.pool import Pool, Ticket
from proxy.routes import paths
from proxy.routes.keys import POOL
from proxy.scheduler import Outlook, TicketId, WaitsFor
from proxy.seat import Lease

STREAMED = frozenset({paths.CHAT, "/completions"})
"""Where `stream: true` is answered by an event stream, whatever the worker is."""
PAINTED = frozenset({"/images/generations", "/images/edits", "/images/variations"})
"""Likewise, where the worker is our own; others answer with JSON, whatever is asked."""
_T = TypeVar("_T")


async def take_turn(errand: Errand, ticket: Ticket) -> Lease:
    """Wait for the ticket's turn. Raises what `Ticket.lease` raises."""
    config = errand.config
    if not _is_told(errand, config):
        return await ticket.lease()
    if not ticket.seat.done() and errand.response is None:
        await _open(errand)
    notes = _Notes(errand, ticket)
    while not ticket.seat.done():
        await notes.send()
        await asyncio.wait({ticket.seat}, timeout=config.waiting_notes)
    if ticket.seat.exception() is None:
        await notes.send_last()
    return await ticket.lease()


async def meanwhile(errand: Errand, work: Awaitable[_T], told: str) -> _T:
    """Await what a request needs before its turn; who streams is told of it, if it takes long."""
    is_ours = errand.model_id in errand.config.models
    if not is_ours or not _is_told(errand, errand.config):
        return await work
    async with asyncio.TaskGroup() as tasks:
        doing = tasks.create_task(_outcome(work))
        while not doing.done():
            await asyncio.wait({doing}, timeout=errand.config.waiting_notes)
            if not doing.done():
                await _say(errand, told)
    outcome = doing.result()
    if isinstance(outcome, HotseatError):
        raise outcome
    return outcome


async def _outcome(work: Awaitable[_T]) -> _T | HotseatError:
    """Give an error as a value, which a group of tasks would wrap."""
    try:
        return await work
    except HotseatError as error:
        return error


async def _say(errand: Errand, text: str) -> None:
    """Say how things stand, in a comment."""
    if errand.response is None:
        await _open(errand)
    await _write(errand, f": {text}\n\n")


def _is_told(errand: Errand, config: Config) -> bool:
    path = paths.plain(errand.request.path)
    paints = config.models[errand.model_id].kind == "sd" and path in PAINTED
    is_sure = path in STREAMED or paints
    return errand.body.peek.is_stream and is_sure and config.waiting_notes > 0


async def _open(errand: Errand) -> None:
    headers = {"Content-Type": EVENTS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    errand.response = errand.outlet.begin(200, None, {**headers, **errand.marks})
    try:
        await errand.response.prepare(errand.request)
    except aiohttp.ClientConnectionResetError:
        raise asyncio.CancelledError from None
    errand.sent.status = errand.response.status


class _Notes:
    """What one waiting client is told."""

    def __init__(self, errand: Errand, ticket: Ticket) -> None:
        config = errand.config
        model = config.models[errand.model_id]
        self._errand = errand
        self._ticket = ticket
        self._pool = errand.request.app[POOL]
        self._shows = (
            config.sends_loading_state(model) and paths.plain(errand.request.path) == paths.CHAT
        )
        self._shown = ""
        self._began = time.monotonic()

    async def send(self) -> None:
        text = describe(self._pool, self._ticket.id)
        await _write(self._errand, f": {text}\n\n")
        if self._shows and text != self._shown:
            self._shown = text
            await _write(self._errand, self._as_reasoning(f"{text}\n"))

    async def send_last(self) -> None:
        if self._shown:
            took_s = time.monotonic() - self._began
            await _write(self._errand, self._as_reasoning(f"Done! ({took_s:.2f}s)\n\n"))

    def _as_reasoning(self, text: str) -> str:
        choice = {"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}
        chunk = {
            "id": "hotseat-waiting",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._errand.model_id,
            "choices": [choice],
        }
        return f"data: {json.dumps(chunk)}\n\n"


async def _write(errand: Errand, text: str) -> None:
    try:
        await errand.write(text.encode())
    except aiohttp.ClientConnectionResetError:
        raise asyncio.CancelledError from None  # nobody is there to be answered
    except TimeoutError:
        cut(errand, f"the client took nothing for {errand.stall_s:g} s")
        raise asyncio.CancelledError from None


def describe(pool: Pool, ticket: TicketId) -> str:
    """Say how things stand for a waiting ticket: `queue 2, flux loading 43 %, about 6 s`."""
    outlook = pool.standing.outlook(ticket)
    return ", ".join(_phrases(pool, outlook)) if outlook is not None else "next"


def _phrases(pool: Pool, outlook: Outlook) -> Iterator[str]:
    yield f"queue {outlook.position}"
    names = ", ".join(outlook.others)
    match outlook.waits_for:
        case WaitsFor.LOAD:
            progress = pool.standing.progress(outlook.model)
            part = f" {100 * progress:.0f} %" if progress is not None else ""
            yield f"{outlook.model} loading{part}"
        case WaitsFor.START:
            yield f"{outlook.model} starting"
        case WaitsFor.ROOM:
            yield f"{outlook.model} waits for {names or 'memory'}"
        case WaitsFor.LINE:
            yield f"{outlook.model} comes after {names}"
        case WaitsFor.REQUESTS:
            yield f"{outlook.model} is busy"
    if outlook.eta_s is not None and outlook.eta_s >= 1:
        yield f"about {outlook.eta_s:.0f} s"
