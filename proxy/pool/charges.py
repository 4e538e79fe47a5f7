"""What the scheduler is told of memory: what models need, what workers hold, what there is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from proxy.demand import PLAIN, RequestClass
from proxy.pool.ticket import Ticket
from proxy.pool.watch import Watch
from proxy.scheduler import BudgetChanged, Demand, Event, ModelName, State, WorkerId
from proxy.seat import Lease, Seat
from proxy.setup import Setup

log = logging.getLogger(__name__)


class Charges:
    """Keeps the scheduler's numbers true; `run` is to run beside the server."""

    def __init__(
        self,
        setup: Setup,
        state: State,
        seats: Mapping[WorkerId, Seat],
        feed: Callable[[Event], None],
    ) -> None:
        self._setup = setup
        self._state = state
        self._seats = seats
        self._feed = feed
        self._has_news = asyncio.Event()
        self.watch = Watch(setup)

    @property
    def budget(self) -> Demand:
        """Tell what there is, as far as it has been seen."""
        return dict(self.watch.budget)

    async def look_first(self) -> None:
        """Find what others use before anything of ours runs."""
        if self.watch.has_work:
            await self.watch.look_first()
            self._note_budget(self.budget)

    async def run(self) -> None:
        """Look at the devices, and keep what was learned: a disk may be slow, so beside the loop.

        Runs until it is cancelled.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_news())
            tasks.create_task(self.watch.run(self._state, self._seats.values, self._note_budget))

    async def _save_news(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            await asyncio.to_thread(self._setup.demands.save)

    def _note_budget(self, budget: Demand) -> None:
        if budget != self._state.budget:
            log.debug("budget", extra={"bytes": dict(budget)})
            self._feed(BudgetChanged(budget))

    def reload(self, setup: Setup) -> None:
        """Count by another config from now on."""
        self._setup = setup
        self.watch.reload(setup)

    def under(self, setup: Setup, kept: Collection[Seat]) -> Mapping[WorkerId, Demand]:
        """Tell how workers count under another config; `kept` are those that it knows as they run.

        Where seats are counted, those take what their models are said to take: one that is pinned
        now gives its seat to who waits. Of what was not counted before, as other things were
        scarce then, the others hold all there is: nobody knows how much it is.
        """
        before, after = self._setup.demands.budget, setup.demands.budget
        new = {on: count for on, count in after.items() if on not in before}
        charges: dict[WorkerId, Demand] = {}
        for seat in self._seats.values():
            worker = self._state.workers[seat.id]
            if worker.is_charged and seat in kept and not setup.devices.budgets:
                charges[seat.id] = setup.demands.reckon(seat.model).demand
            elif worker.is_charged:
                known = {on: count for on, count in worker.charge.items() if on in after}
                wants = setup.demands.reckon(seat.model).demand if seat in kept else new
                holds = seat.setup.demands.touched(seat.model, wants)
                charges[seat.id] = {**{on: n for on, n in holds.items() if on in new}, **known}
        return charges

    def recount(self, seats: Iterable[Seat]) -> None:
        """Charge workers that live on under another config what they are seen to hold."""
        if self.watch.counts_bytes:
            for seat in seats:
                self.tell_measured(seat)

    # What is needed

    def class_of(self, model: str, pixels: int | None) -> RequestClass:
        known = model in self._setup.config.models
        return self._setup.demands.class_of(model, pixels) if known else PLAIN

    def demand(self, model: str, request_class: RequestClass) -> Demand:
        """Tell what a worker must hold for such a request, with what is feared where it fits."""
        if request_class == PLAIN:
            return {}
        reckoned = self._setup.demands.reckon(model, request_class)
        return reckoned.within(self.room(ModelName(model)))

    def room(self, model: ModelName) -> Demand:
        """Tell what the model could have at best; nothing for one that is not known any more."""
        known = self._state.models.get(model)
        return self._state.room(known) if known is not None else {}

    def needs(self, ticket: Ticket) -> Demand:
        """Tell what the request needs; nothing when its model is not known any more."""
        if ticket.model not in self._setup.config.models:
            return {}
        return self._setup.demands.reckon(ticket.model, ticket.request_class).demand

    # What was seen

    def begin(self, ticket: Ticket, seat: Seat) -> None:
        """Note that the worker serves the request from now on."""
        self.watch.begin(seat, ticket.request_class)

    def end(self, ticket: Ticket, seat: Seat, service_s: float) -> None:
        """Note what the request has shown of its model, now that it is over."""
        if self.watch.end(seat, ticket.request_class, was_well=ticket.is_served):
            self._has_news.set()
        if ticket.is_served:
            seat.setup.demands.note_times(seat.model, service_s=service_s)

    def ran_out(self, lease: Lease) -> None:
        """Note that the worker ran out of memory while it served this."""
        seat = lease.seat
        seat.setup.demands.ran_out(seat.model, lease.request_class, lease.charge)
        seat.process.forget_words()  # or its next end would pass for the same
        log.warning("out_of_memory", extra={"model": seat.model, "when": "request"})

    def tell_measured(self, seat: Seat) -> None:
        """Let the scheduler know what the worker and its model are now known to need, if new."""
        worker = self._state.workers.get(seat.id)
        if worker is None:
            return
        model = worker.model
        measured = self.watch.measured(seat, self._state.room(model))
        if measured is None:
            return
        known = (worker.charge, model.demand, model.feared, model.loads_alone)
        if known != (measured.charge, measured.model_demand, measured.model_feared, False):
            self._feed(measured)

    async def save(self) -> None:
        """Keep what was learned for the next start."""
        await asyncio.to_thread(self._setup.demands.save)
