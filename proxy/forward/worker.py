"""A worker of ours as one who answers; owns what its death means for a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from proxy.config import Timeouts
from proxy.errors import CapacityExceeded, HotseatError, ShuttingDown, Unloaded, WorkerDied
from proxy.forward.errand import Errand
from proxy.forward.upstream import NotSent
from proxy.refusals import amounts, has_bytes
from proxy.scheduler import Cause
from proxy.seat import Lease, Seat

MEMORY = "X-Hotseat-Memory"  # bytes; a worker that can do with less keeps to it
REASON = "X-Hotseat-Reason"  # by which a worker says what an error of its own was about
UNFRAMED_WAIT_S = 0.1
"""How long the end of an answer without length or chunks waits for word of its worker's death."""
GONE_WITHIN_S = 1.0
"""How long a broken connection waits for word that the process is gone too."""


class ToWorker:
    """The way of one request to the worker of its lease."""

    not_heard: frozenset[str] = frozenset()

    def __init__(self, errand: Errand, seat: Seat) -> None:
        self._errand = errand
        self._seat = seat
        self.name = f"the worker of {seat.model}"
        self.not_told = frozenset(errand.withheld)

    @property
    def url(self) -> str:
        return self._seat.process.url

    @property
    def session(self) -> aiohttp.ClientSession:
        return self._seat.process.session

    @property
    def timeouts(self) -> Timeouts:
        return self._errand.config.models[self._seat.model].timeouts

    @property
    def own_headers(self) -> Mapping[str, str]:
        return {**host_for(self._errand, self._seat), **room_for(self._seat)}

    def note_head(self, headers: Mapping[str, str]) -> None:
        self._errand.ran_out_of_memory = headers.get(REASON) == "out_of_memory"

    def note_first_byte(self) -> None:
        self._seat.note_first_byte(asyncio.get_running_loop().time())

    async def not_reached(self, error: Exception) -> Exception:
        await self._see_it_gone()
        return NotSent(str(error))

    def spoke_nonsense(self, told: str) -> HotseatError:
        return WorkerDied(f"{self.name} {told}")

    async def broke_off(self, when: str, error: Exception | None = None) -> HotseatError:
        """Make the error, once it is known whether the process is gone.

        A client that asks again at once is then not sent to the same dying worker.
        """
        if isinstance(error, aiohttp.ClientResponseError):
            return self.spoke_nonsense(f"answered nonsense: {error}")
        seat = self._seat
        await self._see_it_gone()
        if seat.order is not None:
            return _sent_away(seat, seat.order.cause, when)
        words, lease = seat.process.last_words(), self._errand.leases[-1]
        if seat.process.ran_out_of_memory:
            self._errand.ran_out_of_memory = True
            return CapacityExceeded(_told_of_memory(lease, words), retry_after_s=1.0)
        told = f"{self.name} went away {when}; its last words: {words}"
        return WorkerDied(f"{told}{_suspected(lease)}")

    async def has_died(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(UNFRAMED_WAIT_S):
                await self._seat.ended.wait()
            return True
        return False

    async def _see_it_gone(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_WITHIN_S):
                await self._seat.ended.wait()


def host_for(errand: Errand, seat: Seat) -> Mapping[str, str]:
    """Tell a foreign worker by which name we were asked: some compare it with Origin."""
    host = errand.request.headers.get("Host")
    is_foreign = seat.settings.kind == "cmd"
    return {"Host": host} if is_foreign and host else {}


def room_for(seat: Seat) -> Mapping[str, str]:
    """Tell a worker of ours what it could come to hold at most, if that is counted."""
    most_bytes = None if seat.settings.kind == "cmd" else seat.setup.demands.most_bytes(seat.model)
    return {} if most_bytes is None else {MEMORY: str(most_bytes)}


def _sent_away(seat: Seat, cause: Cause, when: str) -> HotseatError:
    """Make the error for a worker that was ended while it still served."""
    match cause:
        case Cause.SHUTDOWN:
            return ShuttingDown(f"the server shut down {when}", retry_after_s=5.0)
        case Cause.RELOAD:
            return Unloaded(f"{seat.model} has another config now, and was ended {when}")
        case _:
            return Unloaded(f"{seat.model} was unloaded {when}")


def _suspected(lease: Lease) -> str:
    """Say what the likely reason is where an engine seldom says it by itself."""
    if lease.seat.settings.kind != "sd":
        return ""
    needs = f", thought to be {amounts(lease.charge)}" if has_bytes(lease.charge) else ""
    return (
        f". Mostly an image engine ends so for want of memory{needs}: ask again, for a smaller"
        " picture, or with vae_tiling"
    )


def _told_of_memory(lease: Lease, words: str) -> str:
    had = amounts(lease.charge)
    return (
        f"{lease.seat.model} ran out of memory, which it was thought to need {had} of, and went"
        f" away: {words}. More is set aside for it now: ask again, or for less"
    )
