"""Carries out the scheduler's commands, and hands out leases.

The scheduler says what has to happen; here it happens. Each worker has one task for its whole
life, and that task is the only one to start, await and end the process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from proxy import errors
from proxy.budget import Devices
from proxy.bundled import Bundled
from proxy.config import Config
from proxy.demand import PLAIN, Demands, RequestClass
from proxy.foreign import Foreign
from proxy.life import Life, Limits, World
from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.process import Process
from proxy.refusals import amounts, has_bytes, refused
from proxy.scheduler import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Command,
    Demand,
    Ended,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    ModelName,
    Prepare,
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
from proxy.seat import Lease, Seat
from proxy.standing import Standing
from proxy.swaps import Swap, SwapLog
from proxy.ticket import Ticket
from proxy.watch import Watch
from proxy.wishes import Wish

log = logging.getLogger(__name__)

RETRY_PINNED_S = 60.0


class Pool:
    """The workers of one config. Use as an async context; leaving it ends every process."""

    def __init__(  # noqa: PLR0913  # what app.py wires
        self,
        config: Config,
        run_dir: Path,
        *,
        hub: LogHub,
        devices: Devices,
        demands: Demands,
        swaps: SwapLog,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self._run_dir = run_dir
        self._hub = hub
        self._devices = devices
        self._demands = demands
        self._swaps = swaps
        self._metrics = metrics
        self._watch = Watch(devices, demands, yields=config.gpu.yields)
        self._scheduler = Scheduler(demands.models(), demands.budget)
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._watching: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._tickets: dict[TicketId, Ticket] = {}
        self._seats: dict[WorkerId, Seat] = {}
        self._failures: dict[ModelName, errors.StartFailed] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._is_feeding = False
        self._is_closing = asyncio.Event()
        self.standing = Standing(self._scheduler.state, self._seats, self._watch)
        self._world = World(
            demands,
            self._watch,
            swaps,
            feed=self._feed,
            seated=self._seated,
            ended=self._ended,
            is_closing=self._is_closing,
        )

    def __repr__(self) -> str:
        return repr(self._scheduler).replace("Scheduler", "Pool", 1)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._watch.has_work:
            await self._watch.look_first()
            self._note_budget(dict(self._watch.budget))
            state = self._scheduler.state
            run = self._watch.run(state, self._seats.values, self._note_budget)
            self._watching = self._tasks.create_task(run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shut_down(0.0)
        if self._watching is not None:
            self._watching.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await asyncio.to_thread(self._demands.save)

    # Leases

    @contextmanager
    def ask(
        self, model: str, wish: Wish | None = None, cause: str = "request"
    ) -> Iterator[Ticket]:
        """Stand in the queue for the length of the block, and hold what was granted.

        `cause` is what a swap for it is told to be for. Cancelling the wait or the block gives the
        place back.
        """
        wish = wish or Wish()
        request_class = self._demands.class_of(model, wish.pixels)
        demand = {} if request_class == PLAIN else self._demand(model, request_class)
        number = TicketId(next(self._numbers))
        self._tickets[number] = ticket = Ticket(number, model, request_class, cause)
        try:
            self._feed(Arrived(number, ticket.model, wish.priority, demand, wish.keep_alive_s))
            yield ticket
        finally:
            seat = ticket.granted()
            if seat is not None:
                self._learn(ticket, seat)
            del self._tickets[number]
            self._feed(Left(number, was_served=ticket.is_served))
            if ticket.is_served and seat is not None and seat.id in self._seats:
                self._tell_measured(seat)

    @asynccontextmanager
    async def lease(self, model: str, cause: str = "request") -> AsyncIterator[Lease]:
        """Hold a ready worker for the length of the block; may wait for a swap.

        Raises an error of `errors` when there is none to be had.
        """
        with self.ask(model, cause=cause) as ticket:
            yield await ticket.lease()

    def _learn(self, ticket: Ticket, seat: Seat) -> None:
        """Note what the request has shown of its model, now that it is over."""
        self._swaps.tell(seat.swap)
        if self._watch.end(seat, ticket.request_class, was_well=ticket.is_served):
            self._save_soon()
        if ticket.is_served:
            service_s = self._loop.time() - ticket.granted_at
            self._demands.note_times(ticket.model, service_s=service_s)

    def note_out_of_memory(self, lease: Lease) -> None:
        """Remember that the worker ran out of memory while it served this."""
        seat = lease.seat
        self._demands.ran_out(seat.model, lease.request_class, lease.charge)
        seat.process.forget_words()  # or its next end would pass for the same
        log.warning("out_of_memory", extra={"model": seat.model, "when": "request"})
        self._metrics.out_of_memory.labels(seat.model, "request").inc()
        if seat.id in self._seats:
            self._tell_measured(seat)

    def seat_pinned(self) -> None:
        """Load the pinned models, though nobody has asked for them."""
        for name, model in self.config.models.items():
            if model.pin:
                self._tasks.create_task(self._keep_seated(name))

    async def _keep_seated(self, model: str) -> None:
        """Load the model, and try again as often as that fails, each time when it cools down."""
        while not self._is_closing.is_set():
            try:
                async with self.lease(model, cause="pin"):
                    return
            except errors.HotseatError as error:
                pause_s = error.retry_after_s or RETRY_PINNED_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_closing.wait()

    # What people ask

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

    def _save_soon(self) -> None:
        """Keep what was learned, beside the loop: a disk may be slow, and the proxy killed."""
        if self._saving is None or self._saving.done():
            self._saving = self._tasks.create_task(asyncio.to_thread(self._demands.save))

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
                self._order_stop(command)
            case Grant(ticket_id, worker_id):
                self._grant(self._tickets[ticket_id], self._seats[worker_id])
            case Refuse(ticket_id):
                self._refuse(self._tickets[ticket_id], command)
            case WakeAt(when):
                self._set_alarm(when)
            case _:
                assert_never(command)

    def _grant(self, ticket: Ticket, seat: Seat) -> None:
        if not ticket.seat.done():  # else it was cancelled, and is about to leave
            self._watch.begin(seat, ticket.request_class)
            ticket.grant(seat, self._scheduler.state.workers[seat.id].charge)

    def _refuse(self, ticket: Ticket, refusal: Refuse) -> None:
        if not ticket.seat.done():
            state, name = self._scheduler.state, ticket.model
            failure = self._failures.get(name)
            needs = self._demands.reckon(name, ticket.request_class).demand
            room = state.room(state.models[name]) if name in state.models else {}
            ticket.refuse(refused(refusal, name, failure, needs=needs, room=room))

    def _order_stop(self, order: Terminate) -> None:
        now, worker = self._loop.time(), self._scheduler.state.workers[order.worker]
        drain_s = now - worker.drain_began if worker.drain_began is not None else 0.0
        self._seats[order.worker].order_stop(order, now, drain_s)

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if when is not None:
            self._alarm = self._loop.call_at(when, self._feed, Woke())

    def _note_budget(self, budget: Demand) -> None:
        if budget != self._scheduler.state.budget:
            log.debug("budget", extra={"bytes": dict(budget)})
            self._feed(BudgetChanged(budget))

    def _seated(self, seat: Seat) -> None:
        self._feed(BecameReady(seat.id))
        self._tell_measured(seat)
        if not self._scheduler.state.workers[seat.id].leases:
            self._swaps.tell(seat.swap)  # no answer's first byte is to be waited for

    def _tell_measured(self, seat: Seat) -> None:
        """Let the scheduler know what the worker and its model are now known to need, if new."""
        state = self._scheduler.state
        worker, model = state.workers[seat.id], state.models[seat.model]
        measured = self._watch.measured(seat, state.room(model))
        if measured is None:
            return
        known = (worker.charge, model.demand, model.feared, model.loads_alone)
        if known != (measured.charge, measured.model_demand, measured.model_feared, False):
            self._feed(measured)

    def _demand(self, name: str, request_class: RequestClass) -> Demand:
        """Tell what a worker must hold for such a request, with what is feared where it fits."""
        state = self._scheduler.state
        return self._demands.reckon(name, request_class).within(
            state.room(state.models[ModelName(name)])
        )

    # The life of a worker

    def _new_seat(self, worker_id: WorkerId, name: ModelName) -> Seat:
        model = self.config.models[name]
        way = (
            Foreign(model)
            if model.kind == "cmd"
            else Bundled(model, self._run_dir / f"{worker_id}.sock")
        )
        process = Process(
            model,
            way,
            cwd=self.config.folder,
            devices=self._devices.environment(self.config, model),
            on_line=lambda line: self._hub.write(name, line),
        )
        causes = (ticket.cause for ticket in self._tickets.values() if ticket.model == name)
        swap = Swap(name, next(causes, "request"))
        return Seat(worker_id, name, process, self._loop.time(), swap, self._swaps.tell)

    async def _live(self, seat: Seat) -> None:
        model = self.config.models[seat.model]
        limits = Limits(self.config.start_timeout_s(model), self.config.grace_s(model))
        try:
            await Life(seat, limits, self._world).live()
        finally:
            seat.gone.set()  # whatever happens: there may be who waits for it
        if seat.order is not None:
            stop_s = self._loop.time() - (seat.stop_began_at or 0.0)
            cause = seat.order.cause.value
            log.info("unloaded", extra={"model": seat.model, "cause": cause, "stop_s": stop_s})
        if seat.ready_at is not None:
            self._swaps.tell(seat.swap)
        del self._seats[seat.id]
        self._feed(Exited(seat.id))

    def _ended(self, seat: Seat, failure: errors.StartFailed | None) -> None:
        """Take in that a process is over, unasked, and why it did not get ready, if so."""
        if failure is not None:
            self._note_failure(seat, failure)
        else:
            words = seat.process.last_words()
            log.warning("worker_died", extra={"model": seat.model, "last_words": words})
            if self.config.models[seat.model].pin:
                self._tasks.create_task(self._keep_seated(seat.model))
        ran_out = failure is not None and failure.reason == "out_of_memory"
        self._feed(Ended(seat.id, out_of_memory=ran_out))

    def _note_failure(self, seat: Seat, failure: errors.StartFailed) -> None:
        worker = self._scheduler.state.workers[seat.id]
        if failure.reason == "out_of_memory":
            self._metrics.out_of_memory.labels(seat.model, "load").inc()
        if failure.reason == "out_of_memory" and has_bytes(worker.charge):
            given = (
                f"it was given {amounts(worker.charge)} of {amounts(self._scheduler.state.budget)}"
            )
            failure = errors.StartFailed(f"{failure.message}; {given}", reason=failure.reason)
        self._failures[seat.model] = failure
        log.warning("start_failed", extra={"model": seat.model, "why": failure.message})

    def _grace_s(self, name: str) -> float:
        return self.config.grace_s(self.config.models[name])
