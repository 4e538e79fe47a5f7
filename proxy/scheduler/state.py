"""The scheduler's state, and what can be read from it; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from proxy.scheduler.types import Model, ModelName, Phase, TicketId, WorkerId


@dataclass(slots=True)
class Worker:
    """One process, in any phase."""

    id: WorkerId
    model: Model
    phase: Phase = Phase.PREPARING
    leases: set[TicketId] = field(default_factory=set)
    is_charged: bool = (
        False  # from Load on, until it has exited: it holds memory, or may hold some
    )
    load_began: float = 0.0
    ready_since: float = 0.0
    idle_since: float = 0.0  # means something without leases
    retire_by: float | None = None  # asked to unload: drains, and ends by then in any case

    @property
    def is_coming(self) -> bool:
        """Has not been told to load yet."""
        return self.phase in (Phase.PREPARING, Phase.PREPARED)

    @property
    def is_serving(self) -> bool:
        return self.phase in (Phase.READY, Phase.DRAINING)

    @property
    def is_leaving(self) -> bool:
        """Gives its memory back without being asked again."""
        return self.phase is Phase.STOPPING or self.retire_by is not None

    @property
    def has_room(self) -> bool:
        is_open = self.phase is Phase.READY and not self.is_leaving
        return is_open and len(self.leases) < self.model.concurrency


@dataclass(slots=True)
class Failure:
    """A model whose last start failed: no new try before `until`."""

    until: float
    pause_s: float


@dataclass(slots=True)
class State:
    """Who is there and who waits."""

    models: dict[ModelName, Model]
    budget: int
    workers: dict[WorkerId, Worker] = field(default_factory=dict)
    queues: dict[ModelName, dict[TicketId, float]] = field(default_factory=dict)  # → arrived at
    line: dict[ModelName, float] = field(default_factory=dict)  # waited for, no seat → since when
    failures: dict[ModelName, Failure] = field(default_factory=dict)
    load_s: dict[ModelName, float] = field(default_factory=dict)  # measured at the last load

    def __post_init__(self) -> None:
        self.queues = {name: {} for name in self.models}

    @property
    def charged(self) -> int:
        """Tell what is promised of the budget, in its unit."""
        return sum(w.model.demand for w in self.workers.values() if w.is_charged)

    def reserved_beside(self, model: Model) -> int:
        """Sum what the other pinned models hold or will hold: it is never to be had."""
        return sum(m.demand for m in self.models.values() if m.pinned and m is not model)

    def is_wanted(self, model: Model) -> bool:
        return bool(self.queues[model.name])

    def is_idle(self, worker: Worker) -> bool:
        return not worker.leases and not self.is_wanted(worker.model)

    def absent(self) -> list[ModelName]:
        """List the models that are waited for and have no seat."""
        seated = {w.model.name for w in self.workers.values() if w.is_charged and not w.is_leaving}
        return [name for name, queue in self.queues.items() if queue and name not in seated]

    def coming(self, model: Model) -> Worker | None:
        """Find the model's process that holds no memory yet."""
        mine = (w for w in self.workers.values() if w.model is model and w.is_coming)
        return next(mine, None)

    def head(self) -> Worker | None:
        """Find the prepared worker that waits for memory, and whose turn it is."""
        models = (self.models[name] for name in self.line)
        turn = next((model for model in models if model.demand > 0), None)
        worker = self.coming(turn) if turn is not None else None
        return worker if worker is not None and worker.phase is Phase.PREPARED else None

    def need(self) -> int:
        """Tell what the head lacks once everyone who is leaving has left; none has drained."""
        head = self.head()
        if head is None:
            return 0
        workers = self.workers.values()
        leaving = sum(w.model.demand for w in workers if w.is_charged and w.is_leaving)
        return max(head.model.demand - (self.budget - self.charged) - leaving, 0)

    def draining(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.phase is Phase.DRAINING and not w.is_leaving]

    def evictable(self) -> list[Worker]:
        """List who may be asked to make room: READY ones, and loads that nobody waits for."""
        return [
            w
            for w in self.workers.values()
            if not w.model.pinned
            and not w.is_leaving
            and (w.phase is Phase.READY or (w.phase is Phase.LOADING and self.is_idle(w)))
        ]

    def spared_until(self, worker: Worker, head: Worker) -> float:
        """Tell how long the head's patience lets a busy worker go on."""
        return max(self.line[head.model.name], worker.ready_since) + head.model.patience_s

    def expiry(self, worker: Worker) -> float | None:
        """Tell when the worker's ttl is over, if its clock runs at all."""
        clock_runs = worker.phase is Phase.READY and self.is_idle(worker)
        if not clock_runs or worker.model.pinned or worker.model.ttl_s <= 0:
            return None
        return worker.idle_since + worker.model.ttl_s

    def next_change(self, now: float) -> float | None:
        """Tell when something will be due though no event comes."""
        times = (time for w in self.workers.values() for time in self._times(w))
        return min((time for time in times if time > now), default=None)

    def _times(self, worker: Worker) -> Iterator[float]:
        expiry = self.expiry(worker)
        if expiry is not None:
            yield expiry
        if worker.retire_by is not None and worker.phase is not Phase.STOPPING:
            yield worker.retire_by
        head = self.head()
        if head is not None and worker in self.evictable() and not self.is_idle(worker):
            yield self.spared_until(worker, head)
