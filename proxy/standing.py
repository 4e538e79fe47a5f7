"""What can be told of the pool at any moment: who is there, who waits, what is amiss."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from proxy.watch import Watch

WORDS = {Phase.READY: "ready", Phase.DRAINING: "stopping", Phase.STOPPING: "stopping"}
"""llama-swap's; what is none of these is `starting`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A view of the scheduler's state and of the workers; it changes nothing."""

    state: State
    seats: Mapping[WorkerId, Seat]
    watch: Watch

    def running(self) -> list[Running]:
        """List the workers that exist, sorted by model."""
        told = [self._told(worker) for worker in self.state.workers.values()]
        return sorted(told, key=lambda running: running.model)

    def _told(self, worker: Worker) -> Running:
        seat, now = self.seats[worker.id], _now()
        uptime_s = now - seat.ready_at if seat.ready_at is not None else None
        return Running(
            seat.model,
            "stopping" if worker.is_leaving else WORDS.get(worker.phase, "starting"),
            seat.process,
            seat.facts,
            uptime_s,
            None if uptime_s is None or worker.leases else now - worker.idle_since,
            worker.charge,
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


def _now() -> float:
    return asyncio.get_running_loop().time()
