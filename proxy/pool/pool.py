"""Carries out the scheduler's commands, and hands out leases.

The scheduler says what has to happen; here it happens. Each worker has one task for its whole
life, and that task is the only one to start, await and end the process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self, assert_never

from proxy.config import Config
from proxy.metrics import Metrics
from proxy.pool.charges import Charges
from proxy.pool.launcher import Launcher
from proxy.pool.pins import Pins
from proxy.pool.standing import Standing
from proxy.pool.ticket import Ticket
from proxy.pool.workers import Workers
from proxy.refusals import refused
from proxy.scheduler import (
    Arrived,
    Command,
    Event,
    Grant,
    Left,
    Load,
    ModelName,
    Prepare,
    Refuse,
    Reloaded,
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
from proxy.setup import Setup
from proxy.swaps import SwapLog
from proxy.wishes import Wish

log = logging.getLogger(__name__)

RELOAD_DRAIN_S = 600.0
"""How long a worker may finish what it serves when its model has another config."""


class Pool:
    """The workers of one server. Use as an async context; leaving it ends every process."""

    def __init__(
        self, setup: Setup, launcher: Launcher, *, swaps: SwapLog, metrics: Metrics
    ) -> None:
        self._setup = setup
        self._swaps = swaps
        self._metrics = metrics
        self._scheduler = Scheduler(
            setup.demands.models(), setup.demands.budget, setup.config.company
        )
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._beside: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)
        self._tickets: dict[TicketId, Ticket] = {}
        self._seats: dict[WorkerId, Seat] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._is_feeding = False
        self._is_closing = asyncio.Event()
        self._charges = Charges(setup, self._scheduler.state, self._seats, self._feed)
        self._pins = Pins(lambda: self.config, self.lease, self._is_closing, self._spawn)
        self.standing = Standing(self._scheduler.state, self._seats, self._charges.watch)
        self._workers = Workers(
            launcher,
            self._charges,
            self._scheduler.state,
            swaps=swaps,
            metrics=metrics,
            seats=self._seats,
            is_closing=self._is_closing,
            feed=self._feed,
            spawn=self._spawn,
            died=self._pins.keep,
        )

    def __repr__(self) -> str:
        return repr(self._scheduler).replace("Scheduler", "Pool", 1)

    @property
    def setup(self) -> Setup:
        return self._setup

    @property
    def config(self) -> Config:
        """The config as it is now; a reload puts another in its place."""
        return self._setup.config

    @property
    def is_closing(self) -> bool:
        return self._is_closing.is_set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        await self._charges.look_first()
        self.run_beside(self._charges.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shut_down(0.0)
        for task in self._beside:
            task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._charges.save()

    def run_beside(self, work: Coroutine[object, object, None]) -> None:
        """Do it until the block of the pool is left."""
        self._beside.append(self._tasks.create_task(work))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self._tasks.create_task(work)

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
        request_class = self._charges.class_of(model, wish.pixels)
        demand = self._charges.demand(model, request_class)
        number = TicketId(next(self._numbers))
        self._tickets[number] = ticket = Ticket(number, model, request_class, cause)
        try:
            self._feed(Arrived(number, ticket.model, wish.priority, demand, wish.keep_alive_s))
            yield ticket
        finally:
            seat = ticket.granted()
            if seat is not None:
                self._swaps.tell(seat.swap)
                self._charges.end(ticket, seat, self._loop.time() - ticket.granted_at)
            del self._tickets[number]
            self._feed(Left(number, was_served=ticket.is_served))
            if ticket.is_served and seat is not None and seat.id in self._seats:
                self._charges.tell_measured(seat)

    @asynccontextmanager
    async def lease(self, model: str, cause: str = "request") -> AsyncIterator[Lease]:
        """Hold a ready worker for the length of the block; may wait for a swap.

        Raises an error of `errors` when there is none to be had.
        """
        with self.ask(model, cause=cause) as ticket:
            yield await ticket.lease()

    def note_out_of_memory(self, lease: Lease) -> None:
        """Remember that the worker ran out of memory while it served this."""
        self._charges.ran_out(lease)
        self._metrics.out_of_memory.labels(lease.seat.model, "request").inc()
        if lease.seat.id in self._seats:
            self._charges.tell_measured(lease.seat)

    # What people ask

    def begin(self) -> None:
        """Load the pinned models and the preloaded ones, though nobody has asked for them."""
        self._pins.keep_all()
        self._pins.preload()

    def reload(self, setup: Setup, changed: Collection[str]) -> None:
        """Have another config from now on, in one step; who waits keeps his place.

        Workers of the `changed` models, and of those that are gone, finish what they serve; all
        others live on.
        """
        before, self._setup = self._setup, setup
        kept = [
            seat
            for seat in self._seats.values()
            if seat.setup is before
            and seat.model in setup.config.models
            and seat.model not in changed
        ]
        charges = self._charges.under(setup, kept)
        for seat in kept:
            seat.setup = setup
        names = frozenset(map(ModelName, changed))
        for name in names:
            self._workers.failures.pop(name, None)
        self._charges.reload(setup)
        models, deadline = tuple(setup.demands.models()), self._loop.time() + RELOAD_DRAIN_S
        company = setup.config.company
        self._feed(Reloaded(models, self._charges.budget, names, deadline, company, charges))
        self._charges.recount(kept)
        self._pins.keep_all()

    async def unload(self, model: str | None) -> None:
        """Unload the model, or all; running requests have the model's grace to end.

        Returns when the workers are gone. Waits for nobody else, and nobody else waits for it.
        """
        name = ModelName(model) if model is not None else None
        leaving = [seat for seat in self._seats.values() if name in (None, seat.model)]
        grace_s = max((seat.grace_s for seat in leaving), default=0.0)
        self._feed(UnloadAsked(name, self._loop.time() + grace_s))
        for seat in leaving:
            await seat.gone.wait()

    async def shut_down(self, drain_s: float) -> None:
        """Take no more requests, let running ones end within `drain_s`, end every worker."""
        self._is_closing.set()
        self._pins.wake()
        self._feed(ShutdownAsked(self._loop.time() + drain_s))
        for seat in list(self._seats.values()):
            await seat.gone.wait()
        if self._alarm is not None:
            self._alarm.cancel()

    def kill(self) -> None:
        """End every process at once, whatever its grace; `shut_down` must still be called."""
        self._feed(ShutdownAsked(self._loop.time()))
        for seat in self._seats.values():
            seat.process.kill()

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
        self.standing.note()

    def _do(self, command: Command) -> None:
        match command:
            case Prepare(worker_id, name):
                causes = (one.cause for one in self._tickets.values() if one.model == name)
                self._workers.begin(self._setup, worker_id, name, next(causes, "request"))
            case Load(worker_id):
                self._workers.order_load(worker_id)
            case Terminate():
                self._workers.order_stop(command)
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
            self._charges.begin(ticket, seat)
            ticket.grant(seat, self._scheduler.state.workers[seat.id].charge)

    def _refuse(self, ticket: Ticket, refusal: Refuse) -> None:
        if not ticket.seat.done():
            failure = self._workers.failures.get(ticket.model)
            needs, room = self._charges.needs(ticket), self._charges.room(ticket.model)
            ticket.refuse(refused(refusal, ticket.model, failure, needs=needs, room=room))

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if when is not None:
            self._alarm = self._loop.call_at(when, self._feed, Woke())
