"""Carries out the scheduler's commands, and hands out leases.

The scheduler says what has to happen; here it happens. Each worker has one task for its whole
life, and that task is the only one to start, await and end the process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from proxy import demand, errors
from proxy.bundled import Bundled
from proxy.config import Config
from proxy.foreign import Foreign
from proxy.logs import LogHub
from proxy.process import Process
from proxy.refusals import refused
from proxy.scheduler import (
    Arrived,
    BecameReady,
    Command,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    ModelName,
    Phase,
    Prepare,
    Prepared,
    Refuse,
    Scheduler,
    ShutdownAsked,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)
from proxy.seat import Departure, Lease, Running, Seat, tell_swap

log = logging.getLogger(__name__)

RETRY_PINNED_S = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A ticket whose answer somebody awaits."""

    model: str
    granted: asyncio.Future[Seat]


class Pool:
    """The workers of one config. Use as an async context; leaving it ends every process."""

    def __init__(self, config: Config, run_dir: Path, hub: LogHub) -> None:
        self._config = config
        self._run_dir = run_dir
        self._hub = hub
        self._scheduler = Scheduler(demand.models(config), demand.ONE_SEAT)
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._tickets = itertools.count(1)
        self._asked: dict[TicketId, Asked] = {}
        self._seats: dict[WorkerId, Seat] = {}
        self._failures: dict[ModelName, errors.StartFailed] = {}
        self._departures: list[Departure] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._is_feeding = False
        self._is_closing = asyncio.Event()

    def __repr__(self) -> str:
        return repr(self._scheduler).replace("Scheduler", "Pool", 1)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shut_down(0.0)
        await self._tasks.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[Lease]:
        """Hold a ready worker for the length of the block; may wait for a swap.

        Raises an error of `errors` when there is none to be had. Cancelling the wait or the block
        gives the place back.
        """
        ticket = TicketId(next(self._tickets))
        asked_at = self._loop.time()
        self._asked[ticket] = asked = Asked(model, self._loop.create_future())
        try:
            self._feed(Arrived(ticket, ModelName(model)))
            seat = await asked.granted
            loaded_s = (seat.ready_at or 0.0) - max(asked_at, seat.load_began_at)
            yield Lease(seat, self._loop.time() - asked_at, max(0.0, loaded_s))
        finally:
            del self._asked[ticket]
            self._feed(Left(ticket))

    def seat_pinned(self) -> None:
        """Load the pinned models, though nobody has asked for them."""
        for name, model in self._config.models.items():
            if model.pin:
                self._tasks.create_task(self._keep_seated(name))

    async def _keep_seated(self, model: str) -> None:
        """Load the model, and try again as often as that fails, each time when it cools down."""
        while not self._is_closing.is_set():
            try:
                async with self.lease(model):
                    return
            except errors.HotseatError as error:
                pause_s = error.retry_after_s or RETRY_PINNED_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_closing.wait()

    async def unload(self, model: str | None) -> None:
        """Unload the model, or all; running requests have the model's grace to end.

        Returns when the workers are gone. Waits for nobody else, and nobody else waits for it.
        """
        name = ModelName(model) if model is not None else None
        leaving = [seat for seat in self._seats.values() if name in (None, seat.model)]
        grace_s = max((self._grace_s(seat.model) for seat in leaving), default=0.0)
        self._feed(UnloadAsked(name, self._loop.time() + grace_s))
        for seat in leaving:
            await seat.gone.wait()

    async def shut_down(self, drain_s: float) -> None:
        """Take no more requests, let running ones end within `drain_s`, end every worker."""
        self._is_closing.set()
        self._feed(ShutdownAsked(self._loop.time() + drain_s))
        for seat in list(self._seats.values()):
            await seat.gone.wait()
        if self._alarm is not None:
            self._alarm.cancel()

    def kill(self) -> None:
        """End every process at once, whatever its grace; `shut_down` must still be called."""
        for seat in self._seats.values():
            seat.process.kill()

    def running(self) -> list[Running]:
        """List the workers that exist, sorted by model."""
        words = {Phase.READY: "ready", Phase.DRAINING: "stopping", Phase.STOPPING: "stopping"}
        now, out = self._loop.time(), []
        for worker in self._scheduler.state.workers.values():
            seat = self._seats[worker.id]
            state = "stopping" if worker.is_leaving else words.get(worker.phase, "starting")
            uptime_s = now - seat.ready_at if seat.ready_at is not None else None
            idle_s = None if uptime_s is None or worker.leases else now - worker.idle_since
            out.append(Running(seat.model, state, seat.process, seat.facts, uptime_s, idle_s))
        return sorted(out, key=lambda running: running.model)

    # Events in, commands out

    def _feed(self, event: Event) -> None:
        # No await in here: an event and all its commands are one step, so the scheduler needs no
        # lock, and nobody sees it between two steps.
        if self._is_feeding:
            raise RuntimeError(f"{event} came while another event was carried out")
        self._is_feeding = True
        try:
            commands = self._scheduler.handle(event, self._loop.time())
            log.debug("event", extra={"event": event, "commands": commands, "pool": self})
            for command in commands:
                self._do(command)
        finally:
            self._is_feeding = False

    def _do(self, command: Command) -> None:
        match command:
            case Prepare(worker_id, name):
                self._seats[worker_id] = seat = self._new_seat(worker_id, name)
                self._tasks.create_task(self._live(seat))
            case Load(worker_id):
                self._seats[worker_id].order_load(self._loop.time())
            case Terminate(worker_id):
                self._seats[worker_id].order_stop(self._loop.time())
            case Grant(ticket, worker_id):
                asked = self._asked[ticket]
                if not asked.granted.done():  # else it was cancelled, and is about to leave
                    asked.granted.set_result(self._seats[worker_id])
            case Refuse(ticket, why, retry_after_s):
                asked = self._asked[ticket]
                if not asked.granted.done():
                    failure = self._failures.get(ModelName(asked.model))
                    error = refused(why, asked.model, failure, retry_after_s)
                    asked.granted.set_exception(error)
            case WakeAt(when):
                self._set_alarm(when)
            case _:
                assert_never(command)

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if when is not None:
            self._alarm = self._loop.call_at(when, self._feed, Woke())

    # The life of a worker

    def _new_seat(self, worker_id: WorkerId, name: ModelName) -> Seat:
        model = self._config.models[name]
        way = (
            Foreign(model)
            if model.kind == "cmd"
            else Bundled(model, self._run_dir / f"{worker_id}.sock")
        )
        process = Process(
            model,
            way,
            cwd=self._config.folder,
            on_line=lambda line: self._hub.write(name, line),
        )
        return Seat(worker_id, name, process, self._loop.time())

    async def _live(self, seat: Seat) -> None:
        """Be the worker's whole life, from the first process to the last."""
        rise = self._tasks.create_task(self._rise(seat))
        stop = self._tasks.create_task(seat.must_stop.wait())
        try:
            await asyncio.wait({rise, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rise.cancel()
            stop.cancel()
            await asyncio.wait({rise})  # a process that it is just starting is its to end
            seat.stop_began_at = seat.stop_began_at or self._loop.time()
            await seat.process.stop(self._grace_s(seat.model))
            self._bury(seat, rise)

    def _bury(self, seat: Seat, rise: asyncio.Task[errors.StartFailed | None]) -> None:
        now = self._loop.time()
        failure = rise.result() if rise.done() and not rise.cancelled() else None
        if failure is not None:
            self._failures[seat.model] = failure
            log.warning("start_failed", extra={"model": seat.model, "why": failure.message})
        elif not seat.must_stop.is_set():
            words = seat.process.last_words()
            log.warning("worker_died", extra={"model": seat.model, "last_words": words})
            if self._config.models[seat.model].pin:
                self._tasks.create_task(self._keep_seated(seat.model))
        else:
            stop_s = now - (seat.stop_began_at or now)
            log.info("unloaded", extra={"model": seat.model, "stop_s": stop_s})
        self._departures = [d for d in self._departures if now - d.at < self._longest_start_s]
        self._departures.append(Departure(seat.model, now, now - (seat.stop_began_at or now)))
        del self._seats[seat.id]
        seat.gone.set()
        self._feed(Exited(seat.id))

    async def _rise(self, seat: Seat) -> errors.StartFailed | None:
        """Go from nothing to ready and wait for the end; gives why it did not get ready."""
        limit_s = self._config.start_timeout_s(self._config.models[seat.model])
        try:
            async with asyncio.timeout(limit_s):
                await seat.process.prepare()
            seat.prepared_at = self._loop.time()
            self._feed(Prepared(seat.id))
            await seat.may_load.wait()
            async with asyncio.timeout(limit_s):
                seat.facts = await seat.process.load()
        except TimeoutError:
            told = f"{seat.model} was not ready within {limit_s:g} s (healthCheckTimeout)"
            last = seat.process.last_words()
            return errors.StartTimeout(f"{told}; its last words: {last}", reason="timeout")
        except errors.StartFailed as failure:
            return failure
        except Exception as error:  # the top of a worker's life: it must end in a refusal
            log.exception("start_broke", extra={"model": seat.model})
            return errors.StartFailed(f"{type(error).__name__}: {error}", reason="internal")
        seat.ready_at = self._loop.time()
        tell_swap(seat, self._departures)
        self._feed(BecameReady(seat.id))
        await seat.process.exited()
        return None

    @property
    def _longest_start_s(self) -> float:
        models = self._config.models.values()
        return 2 * max(self._config.start_timeout_s(model) for model in models)

    def _grace_s(self, name: str) -> float:
        return self._config.grace_s(self._config.models[name])
