"""One worker's whole life: the process is started, awaited and ended here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from proxy import errors
from proxy.pool.watch import Watch
from proxy.scheduler import Event, Prepared, Stuck
from proxy.seat import Seat
from proxy.swaps import SwapLog, Victim

log = logging.getLogger(__name__)

STUCK_AFTER_S = 5.0  # beyond its grace: by then a process is dead and its memory is free
CLOSING_S = 1.0
"""How long memory is waited for at the very end: nobody is to load into it."""


@dataclass(frozen=True, slots=True)
class World:
    """What every worker's life has to do with."""

    watch: Watch
    swaps: SwapLog
    feed: Callable[[Event], None]
    seated: Callable[[Seat], None]  # told when the worker is ready
    ended: Callable[[Seat, errors.StartFailed | None], None]  # told when it is over, unasked
    is_closing: asyncio.Event  # the server is about to end: nobody waits for what is stuck


class Life:
    """The only one to start, await and end the process of its seat."""

    def __init__(self, seat: Seat, world: World) -> None:
        self._seat = seat
        self._world = world

    async def live(self) -> None:
        """Return when nothing of the worker is left."""
        seat = self._seat
        try:
            # a group of its own: what goes wrong elsewhere must not keep it from ending well
            async with asyncio.TaskGroup() as tasks:
                rise = tasks.create_task(self._rise())
                stop = tasks.create_task(seat.must_stop.wait())
                await asyncio.wait({rise, stop}, return_when=asyncio.FIRST_COMPLETED)
                rise.cancel()
                stop.cancel()
            failure = None if rise.cancelled() else rise.result()
            if seat.ready_at is None:
                self._note_failure(failure)
            if seat.order is None:
                self._world.ended(seat, failure)
        finally:  # a process that was just starting has ended with its start, or is here now
            seat.stop_began_at = seat.stop_began_at or _now()
            await self._see_off()

    def _note_failure(self, failure: errors.StartFailed | None) -> None:
        """Let the record of the swap tell how it ended."""
        seat, swap = self._seat, self._seat.swap
        if not seat.may_load.is_set() and failure is not None:
            self._world.swaps.add(swap, since=seat.asked_at)
        swap.total_s = (seat.stop_began_at or _now()) - seat.asked_at
        cause = seat.order.cause.value if seat.order is not None else "it ended"
        swap.error = failure.message if failure is not None else f"given up: {cause}"

    async def _rise(self) -> errors.StartFailed | None:
        """Go from nothing to ready and wait for the end; gives why it did not get ready."""
        seat = self._seat
        limit_s = seat.start_s
        try:
            await self._prepare()
            await seat.may_load.wait()
            await self._forerunners_gone()
            await self._load()
        except TimeoutError:
            told = f"{seat.model} was not ready within {limit_s:g} s (healthCheckTimeout)"
            last = seat.process.last_words()
            return errors.StartTimeout(f"{told}; its last words: {last}", reason="timeout")
        except errors.StartFailed as failure:
            return failure
        except Exception as error:  # the top of a worker's life: it must end in a refusal
            log.exception("start_broke", extra={"model": seat.model})
            return errors.StartFailed(f"{type(error).__name__}: {error}", reason="internal")
        self._world.seated(seat)
        await seat.process.exited()
        return None

    async def _prepare(self) -> None:
        seat = self._seat
        async with asyncio.timeout(seat.start_s):
            await seat.process.prepare()
        checked_at = seat.process.checked_at
        seat.prepared_at = _now()
        seat.swap.spawn_s = (checked_at or seat.prepared_at) - seat.asked_at
        seat.swap.import_s = seat.prepared_at - checked_at if checked_at is not None else None
        self._world.feed(Prepared(seat.id))

    async def _forerunners_gone(self) -> None:
        """Let those have left whose port, or name, is to be this one's."""
        for seat in self._seat.forerunners:
            await seat.gone.wait()
            self._seat.load_began_at = _now()
        self._seat.forerunners = ()

    async def _load(self) -> None:
        seat, swap = self._seat, self._seat.swap
        swap.wait_s = seat.load_began_at - seat.prepared_at
        self._world.swaps.add(swap, since=seat.asked_at)
        async with asyncio.timeout(seat.start_s):
            seat.facts = await seat.process.load()
        await self._world.watch.look_at_ready(seat)
        seat.ready_at = _now()
        swap.load_s, swap.read_s = seat.ready_at - seat.load_began_at, seat.process.read_s
        swap.total_s = seat.ready_at - seat.asked_at
        seat.setup.demands.note_times(seat.model, load_s=swap.load_s)

    async def _see_off(self) -> None:
        """End the process, and wait until all that it held is free; tell when that takes long."""
        seat, world = self._seat, self._world
        await world.watch.look_before_stop(seat)
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(self._end())
            await asyncio.wait({end}, timeout=seat.grace_s + STUCK_AFTER_S)
            if end.done():
                return
            seat.is_stuck = True
            log.error("stuck", extra={"model": seat.model, "pid": seat.process.pid})
            seat.gone.set()  # for who waits for it: it is of no more use
            world.feed(Stuck(seat.id))
            closing = tasks.create_task(world.is_closing.wait())
            await asyncio.wait({end, closing}, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            end.cancel()

    async def _end(self) -> None:
        seat = self._seat
        await seat.process.stop(seat.grace_s)
        seat.ended.set()
        reaped_at = _now()
        if seat.held:
            await self._memory_seen_free()
        freed_at, order = _now(), seat.order
        self._world.swaps.note_departure(
            Victim(
                seat.model,
                cause=order.cause.value if order else "exit",
                made_room_for=order.made_room_for if order else None,
                at=freed_at,
                drain_s=seat.drain_s,
                stop_s=reaped_at - (seat.stop_began_at or reaped_at),
                memory_free_s=freed_at - reaped_at,
            )
        )

    async def _memory_seen_free(self) -> None:
        """Wait until what the process held is free; when the server is about to end, not long."""
        async with asyncio.TaskGroup() as tasks:
            free = tasks.create_task(self._world.watch.seen_free(self._seat))
            closing = tasks.create_task(self._world.is_closing.wait())
            await asyncio.wait({free, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not free.done():
                await asyncio.wait({free}, timeout=CLOSING_S)
            if not free.done():
                log.warning("memory_not_seen_free", extra={"model": self._seat.model})
            free.cancel()
            closing.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
