"""What can be told of the pool at any moment: who is there, who waits, what is amiss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxy.pool.watch import Watch
from proxy.scheduler import (
    Demand,
    ModelName,
    Outlook,
    Phase,
    State,
    TicketId,
    Worker,
    WorkerId,
    outlook_of,
    outlooks,
)
from proxy.seat import Running, Seat

WORDS = {Phase.READY: "ready", Phase.DRAINING: "stopping", Phase.STOPPING: "stopping"}
"""llama-swap's; what is none of these is `starting`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A view of the scheduler's state and of the workers; it changes nothing of them."""

    state: State
    seats: Mapping[WorkerId, Seat]
    watch: Watch
    _watchers: set[asyncio.Event] = field(default_factory=set)

    def note(self) -> None:
        """Tell who watches that something may have changed; to be called after every event."""
        for wake in self._watchers:
            wake.set()

    @contextmanager
    def watched(self, wake: asyncio.Event) -> Iterator[None]:
        """Set `wake` whenever something may have changed, for the length of the block."""
        self._watchers.add(wake)
        try:
            yield
        finally:
            self._watchers.discard(wake)

    def states(self) -> Mapping[str, str]:
        """Tell the state of every model that has a worker; of two, the one that goes on."""
        told: dict[str, str] = {}
        for worker in self.state.workers.values():
            model, word = str(self.seats[worker.id].model), _word(worker)
            if told.get(model) in (None, "stopping") or word == "ready":
                told[model] = word
        return told

    def ready_seat(self, model: str) -> Seat | None:
        """Find the worker that could serve the model at once."""
        there = (s for s in self.seats.values() if s.model == model and s.order is None)
        ready = (s for s in there if s.ready_at is not None and not s.ended.is_set())
        return next((s for s in ready if s.id in self.state.workers), None)

    def running(self) -> list[Running]:
        """List the workers that exist, sorted by model."""
        told = [self._told(worker) for worker in self.state.workers.values()]
        return sorted(told, key=lambda running: running.model)

    def _told(self, worker: Worker) -> Running:
        seat, now = self.seats[worker.id], _now()
        uptime_s = now - seat.ready_at if seat.ready_at is not None else None
        return Running(
            seat.model,
            _word(worker),
            seat.process,
            seat.facts,
            uptime_s,
            None if uptime_s is None or worker.leases else now - worker.idle_since,
            worker.charge,
            seat.settings,
            seat.setup.config.ttl_s(seat.settings),
        )

    def queue(self) -> list[Outlook]:
        """Tell how things stand for everybody who waits."""
        return outlooks(self.state, _now())

    def outlook(self, ticket: TicketId) -> Outlook | None:
        """Tell how things stand for one; None: he does not wait any more."""
        return outlook_of(self.state, ticket, _now())

    def progress(self, model: ModelName) -> float | None:
        """Tell how much of a model that loads is loaded, 0 to 1, if it says so."""
        loading = (s for s in self.seats.values() if s.model == model and s.may_load.is_set())
        return next((seat.process.progress for seat in loading if seat.ready_at is None), None)

    @property
    def charged(self) -> Demand:
        return dict(self.state.charged)

    @property
    def budget(self) -> Demand:
        return self.state.budget

    def alarms(self) -> Sequence[str]:
        """Tell what is wrong with the devices, for people."""
        stuck = [
            f"{seat.model} was stopped, and its process or memory does not go away"
            for seat in self.seats.values()
            if seat.is_stuck
        ]
        return [*stuck, *self.watch.alarms]


def _word(worker: Worker) -> str:
    return "stopping" if worker.is_leaving else WORDS.get(worker.phase, "starting")


def _now() -> float:
    return asyncio.get_running_loop().time()
