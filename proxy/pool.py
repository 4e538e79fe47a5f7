"""Carries out the scheduler's commands, and hands out leases.

The scheduler says what has to happen; here it happens. Each worker has one task for its whole
life, and that task is the only one to start, await and end the process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
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
from proxy.process import Process
from proxy.refusals import amounts, has_bytes, refused
from proxy.scheduler import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Command,
    Demand,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Measured,
    ModelName,
    Outlook,
    Phase,
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
    larger,
    outlook_of,
    outlooks,
)
from proxy.seat import Lease, Running, Seat
from proxy.swaps import Swap, SwapLog
from proxy.watch import Watch
from proxy.wishes import Wish

log = logging.getLogger(__name__)

RETRY_PINNED_S = 60.0


class Ticket:
    """A request's place in the queue."""

    def __init__(self, id_: TicketId, model: str, request_class: RequestClass, now: float) -> None:
        loop = asyncio.get_running_loop()
        self.id = id_
        self.model = ModelName(model)
        self.request_class = request_class
        self.asked_at = now
        self.seat: asyncio.Future[Seat] = loop.create_future()
        self.charge: Demand = {}  # of the worker, at the grant

    async def lease(self) -> Lease:
        """Wait for the turn. Raises an error of `errors` when there is none to be had."""
        seat = await asyncio.shield(self.seat)
        queued_s = asyncio.get_running_loop().time() - self.asked_at
        loading_s = (seat.ready_at or 0.0) - max(self.asked_at, seat.load_began_at)
        return Lease(seat, queued_s, max(0.0, loading_s), self.charge)


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
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._hub = hub
        self._devices = devices
        self._demands = demands
        self._swaps = swaps
        self._watch = Watch(devices, demands, yields=config.gpu.yields)
        self._scheduler = Scheduler(demands.models(), demands.budget)
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._watching: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._tickets: dict[TicketId, Ticket] = {}
        self._seats: dict[WorkerId, Seat] = {}
        self._failures: dict[ModelName, errors.StartFailed] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._is_feeding = False
        self._is_closing = asyncio.Event()
        self._world = World(
            self._tasks, demands, self._watch, swaps, self._feed, self._seated, self._is_closing
        )

    def __repr__(self) -> str:
        return repr(self._scheduler).replace("Scheduler", "Pool", 1)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._watch.has_work:
            run = self._watch.run(self._seats.values, lambda: self.charged, self._note_budget)
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
        await self._tasks.__aexit__(kind, error, trace)
        await asyncio.to_thread(self._demands.save)

    # Leases

    @contextmanager
    def ask(self, model: str, wish: Wish | None = None) -> Iterator[Ticket]:
        """Stand in the queue for the length of the block, and hold what was granted.

        Cancelling the wait or the block gives the place back.
        """
        wish = wish or Wish()
        request_class = self._demands.class_of(model, wish.pixels)
        number = TicketId(next(self._numbers))
        self._tickets[number] = ticket = Ticket(number, model, request_class, self._loop.time())
        demand = (
            {} if request_class == PLAIN else self._demands.reckon(model, request_class).demand
        )
        try:
            self._feed(Arrived(number, ticket.model, wish.priority, demand, wish.keep_alive_s))
            yield ticket
        finally:
            del self._tickets[number]
            self._feed(Left(number))
            self._end_lease(ticket)

    @asynccontextmanager
    async def lease(self, model: str, wish: Wish | None = None) -> AsyncIterator[Lease]:
        """Hold a ready worker for the length of the block; may wait for a swap.

        Raises an error of `errors` when there is none to be had.
        """
        with self.ask(model, wish) as ticket:
            yield await ticket.lease()

    def _end_lease(self, ticket: Ticket) -> None:
        if not ticket.seat.done():
            ticket.seat.cancel()
            return
        if ticket.seat.cancelled() or ticket.seat.exception() is not None:
            return
        seat = ticket.seat.result()
        self._swaps.tell(seat.swap)
        if seat.id in self._seats and self._watch.end(seat, ticket.request_class):
            self._tell_measured(seat)
        service_s = self._scheduler.state.service_s.get(ticket.model)
        self._demands.note_times(ticket.model, service_s=service_s)

    def note_out_of_memory(self, lease: Lease) -> None:
        """Remember that the worker ran out of memory while it served this."""
        seat = lease.seat
        self._demands.ran_out(seat.model, seat.serves, lease.charge)
        log.warning("out_of_memory", extra={"model": seat.model, "when": "request"})
        if seat.id in self._seats:
            self._tell_measured(seat)

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

    def running(self) -> list[Running]:
        """List the workers that exist, sorted by model."""
        words = {Phase.READY: "ready", Phase.DRAINING: "stopping", Phase.STOPPING: "stopping"}
        now, out = self._loop.time(), []
        for worker in self._scheduler.state.workers.values():
            seat = self._seats[worker.id]
            state = "stopping" if worker.is_leaving else words.get(worker.phase, "starting")
            uptime_s = now - seat.ready_at if seat.ready_at is not None else None
            idle_s = None if uptime_s is None or worker.leases else now - worker.idle_since
            out.append(
                Running(
                    seat.model,
                    state,
                    seat.process,
                    seat.facts,
                    uptime_s,
                    idle_s,
                    worker.charge,
                    seat.is_stuck,
                )
            )
        return sorted(out, key=lambda running: running.model)

    def queue(self) -> list[Outlook]:
        """Tell how things stand for everybody who waits."""
        return outlooks(self._scheduler.state, self._loop.time())

    def outlook(self, ticket: Ticket) -> Outlook | None:
        """Tell how things stand for one; None: he does not wait any more."""
        return outlook_of(self._scheduler.state, ticket.id, self._loop.time())

    def progress(self, model: str) -> float | None:
        """Tell how much of a model that loads is loaded, 0 to 1, if it says so."""
        loading = (s for s in self._seats.values() if s.model == model and s.may_load.is_set())
        return next((seat.process.progress for seat in loading if seat.ready_at is None), None)

    @property
    def charged(self) -> Demand:
        return dict(self._scheduler.state.charged)

    @property
    def budget(self) -> Demand:
        return self._scheduler.state.budget

    def alarms(self) -> Sequence[str]:
        """Tell what is wrong with the devices, for people."""
        stuck = [
            f"{seat.model} was stopped, and its process or memory does not go away"
            for seat in self._seats.values()
            if seat.is_stuck
        ]
        return [*stuck, *([self._watch.lost] if self._watch.lost else [])]

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
            ticket.charge = self._scheduler.state.workers[seat.id].charge
            ticket.seat.set_result(seat)

    def _refuse(self, ticket: Ticket, refusal: Refuse) -> None:
        if not ticket.seat.done():
            state, name = self._scheduler.state, ticket.model
            error = refused(
                refusal,
                name,
                self._failures.get(name),
                needs=self._demands.reckon(name, ticket.request_class).demand,
                room=state.room(state.models[name]),
            )
            ticket.seat.set_exception(error)
            ticket.seat.exception()  # seen: it is no mistake when nobody asks for it

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
            log.info("budget", extra={"bytes": dict(budget)})
            self._feed(BudgetChanged(budget))

    def _seated(self, seat: Seat) -> None:
        self._feed(BecameReady(seat.id))
        self._tell_measured(seat)
        if not self._scheduler.state.workers[seat.id].leases:
            self._swaps.tell(seat.swap)  # no answer's first byte is to be waited for

    def _tell_measured(self, seat: Seat) -> None:
        """Let the scheduler know what the worker and its model are now known to need."""
        model_demand = self._demands.reckon(seat.model).demand
        charge = model_demand
        for request_class in seat.classes:
            charge = larger(charge, self._demands.reckon(seat.model, request_class).demand)
        if drift := self._demands.drifts(seat.model):
            declared, measured = drift
            told = {"model": seat.model, "declared": dict(declared), "measured": dict(measured)}
            log.warning("holds_more_than_declared", extra=told)
        self._feed(Measured(seat.id, charge, model_demand))

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
            devices=self._devices.environment(self._config, model),
            on_line=lambda line: self._hub.write(name, line),
        )
        cause = "request" if any(t.model == name for t in self._tickets.values()) else "pin"
        return Seat(
            worker_id, name, process, self._loop.time(), Swap(name, cause), self._swaps.tell
        )

    async def _live(self, seat: Seat) -> None:
        model = self._config.models[seat.model]
        limits = Limits(self._config.start_timeout_s(model), self._config.grace_s(model))
        failure = await Life(seat, limits, self._world).live()
        if failure is not None:
            self._note_failure(seat, failure)
        elif seat.order is None:
            words = seat.process.last_words()
            log.warning("worker_died", extra={"model": seat.model, "last_words": words})
            if model.pin:
                self._tasks.create_task(self._keep_seated(seat.model))
        else:
            stop_s = self._loop.time() - (seat.stop_began_at or 0.0)
            cause = seat.order.cause.value
            log.info("unloaded", extra={"model": seat.model, "cause": cause, "stop_s": stop_s})
        if seat.ready_at is not None:
            self._swaps.tell(seat.swap)
        del self._seats[seat.id]
        seat.gone.set()
        ran_out = failure is not None and failure.reason == "out_of_memory"
        self._feed(Exited(seat.id, out_of_memory=ran_out))

    def _note_failure(self, seat: Seat, failure: errors.StartFailed) -> None:
        worker = self._scheduler.state.workers[seat.id]
        if failure.reason == "out_of_memory" and has_bytes(worker.charge):
            given = f"it was given {amounts(worker.charge)} of {amounts(self.budget)}"
            failure = errors.StartFailed(f"{failure.message}; {given}", reason=failure.reason)
        self._failures[seat.model] = failure
        seat.swap.error = failure.message
        log.warning("start_failed", extra={"model": seat.model, "why": failure.message})

    def _grace_s(self, name: str) -> float:
        return self._config.grace_s(self._config.models[name])
