"""The scheduler's state, and what can be read from it; nothing here changes anything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.scheduler.amounts import fits, larger, missing, total
from proxy.scheduler.queue import PRIORITY_S, Queue
from proxy.scheduler.types import (
    Arrived,
    Cause,
    Company,
    Demand,
    Device,
    Model,
    ModelName,
    Phase,
    TicketId,
    WorkerId,
)

PATIENCE_UNKNOWN_S = 5.0
PATIENCE_LEAST_S = 2.0
PATIENCE_MOST_S = 8.0


@dataclass(frozen=True, slots=True)
class Leased:
    """A ticket with a grant."""

    since: float
    priority: int


@dataclass(frozen=True, slots=True)
class Place:
    """A model's place in the line for memory."""

    since: float
    entered: int  # with which event
    priority: int  # of its foremost ticket

    @property
    def rank(self) -> float:
        return self.since - PRIORITY_S * self.priority


@dataclass(slots=True, eq=False)
class Worker:
    """One process, in any phase."""

    id: WorkerId
    model: Model
    asked_at: float
    phase: Phase = Phase.PREPARING
    leases: dict[TicketId, Leased] = field(default_factory=dict)
    charge: Demand = field(default_factory=dict)
    is_charged: bool = (
        False  # from Load on, until it has exited: it holds memory, or may hold some
    )
    lined_up: Place | None = None  # where its model waited for the memory that it was given
    load_began: float = 0.0
    ready_since: float = 0.0
    idle_since: float = 0.0  # means something without leases
    keep_alive_s: float | None = None  # as the last request wished
    drain_began: float | None = None
    makes_room_for: ModelName | None = None
    retire_by: float | None = None  # asked to unload: drains, and ends by then in any case
    retire_cause: Cause = Cause.UNLOAD
    is_alone: bool = False  # was given all there is room for, as less was not enough
    is_stale: bool = False  # of a model that the config does not have any more, or not like this
    is_stuck: bool = False  # told to stop, and its memory does not come back

    @property
    def is_coming(self) -> bool:
        """Has not been told to load yet."""
        return self.phase in (Phase.PREPARING, Phase.PREPARED)

    @property
    def is_awaited(self) -> bool:
        """Is on its way to a seat."""
        return self.is_coming or self.phase is Phase.LOADING

    @property
    def is_serving(self) -> bool:
        return self.phase in (Phase.READY, Phase.DRAINING)

    @property
    def is_leaving(self) -> bool:
        """Needs no asking any more to go."""
        return self.phase is Phase.STOPPING or self.retire_by is not None

    @property
    def gives_back(self) -> bool:
        """Will free its memory, and soon."""
        return self.is_leaving and not self.is_stuck

    @property
    def is_open(self) -> bool:
        return self.phase is Phase.READY and self.retire_by is None

    @property
    def has_room(self) -> bool:
        return self.is_open and len(self.leases) < self.model.concurrency

    @property
    def ttl_s(self) -> float:
        """How long it may be idle."""
        if self.model.pinned:
            return math.inf
        return self.keep_alive_s if self.keep_alive_s is not None else self.model.ttl_s or math.inf


@dataclass(slots=True)
class Failure:
    """A model whose last start failed: no new try before `until`."""

    until: float
    pause_s: float


@dataclass(slots=True)
class State:
    """Who is there and who waits."""

    models: dict[ModelName, Model]
    budget: Demand
    company: Company = field(default_factory=Company)
    workers: dict[WorkerId, Worker] = field(default_factory=dict)
    queues: dict[ModelName, Queue] = field(default_factory=dict)
    where: dict[TicketId, ModelName] = field(default_factory=dict)  # whom each ticket is for
    line: dict[ModelName, Place] = field(default_factory=dict)  # who waits for memory
    event_count: int = 0
    has_priorities: bool = False  # anybody ever had one
    has_less_room: bool = False  # somebody may wait for what cannot be had any more
    stirred: set[ModelName] = field(
        default_factory=set
    )  # who may have to enter the line, or leave
    alone: set[ModelName] = field(default_factory=set)  # ran out of memory beside others
    failures: dict[ModelName, Failure] = field(default_factory=dict)
    load_s: dict[ModelName, float] = field(default_factory=dict)  # measured at the last load
    service_s: dict[ModelName, float] = field(default_factory=dict)  # of a request, smoothed
    charged: dict[Device, int] = field(default_factory=dict)
    pinned: list[Model] = field(default_factory=list)
    order: dict[ModelName, int] = field(default_factory=dict)  # as they are configured
    all_demand: bool = True  # something; nobody in the line passes by the others for free

    def __post_init__(self) -> None:
        self.know(self.models.values())

    def know(self, models: Iterable[Model]) -> None:
        """Have these models; times of an earlier life count where none was measured since."""
        self.models = {model.name: model for model in models}
        for name, model in self.models.items():
            self.queues.setdefault(name, Queue())
            if model.load_s is not None:
                self.load_s.setdefault(name, model.load_s)
            if model.service_s is not None:
                self.service_s.setdefault(name, model.service_s)
        self.pinned = [model for model in self.models.values() if model.pinned]
        self.order = {name: number for number, name in enumerate(self.models)}
        self.all_demand = all(model.demand for model in self.models.values())
        self.stirred.update(self.models)

    def forget(self, name: ModelName) -> None:
        """Know nothing of how the model did."""
        self.failures.pop(name, None)
        self.load_s.pop(name, None)
        self.service_s.pop(name, None)
        self.alone.discard(name)

    # Memory

    def free(self) -> dict[Device, int]:
        """Tell what is not promised; negative where more is promised than there is."""
        return {d: amount - self.charged.get(d, 0) for d, amount in self.budget.items()}

    def room(self, model: Model) -> Demand:
        """Tell what the model could have at best: all but what never can be taken from others."""
        stuck = [w.charge for w in self.workers.values() if w.is_stuck]
        if not stuck and not self.pinned:
            return self.budget
        pinned = [self.held_or_due(m) for m in self.pinned if m.name != model.name]
        taken = total([*pinned, *stuck])
        return {d: amount - taken.get(d, 0) for d, amount in self.budget.items()}

    def held_or_due(self, model: Model) -> Demand:
        held = self.seated().get(model.name)
        if held is None or held.is_alone:
            return model.demand
        return larger(model.demand, held.charge)

    def must_be_alone(self, model: Model) -> bool:
        return model.loads_alone or model.name in self.alone

    def demand(self, model: Model) -> Demand:
        """Tell what the model must have to load, and to serve who waits foremost."""
        queue = self.queues[model.name]
        demand = larger(model.demand, queue.front.asked.demand) if queue else model.demand
        if not self.must_be_alone(model) and not model.feared:
            return demand
        room = self.room(model)
        if self.must_be_alone(model):
            return larger(demand, {device: room.get(device, 0) for device in model.demand})
        return larger(demand, {on: min(n, room.get(on, 0)) for on, n in model.feared.items()})

    def growth(self, worker: Worker) -> Demand:
        """Tell what the worker must have besides what it has, to serve who waits foremost."""
        return missing(self.queues[worker.model.name].front.asked.demand, worker.charge)

    def is_servable(self, asked: Arrived) -> bool:
        """Tell whether there is memory for the request, once all have left who can."""
        model = self.models[asked.model]
        room = self.room(model)
        if fits(model.demand, room) and fits(asked.demand, room):
            return True
        seated = self.seated().get(model.name)
        return seated is not None and not missing(asked.demand, seated.charge)

    # Who waits

    def is_wanted(self, name: ModelName) -> bool:
        return bool(self.queues.get(name))

    def is_idle(self, worker: Worker) -> bool:
        return not worker.leases and not self.is_wanted(worker.model.name)

    def seated(self) -> dict[ModelName, Worker]:
        """Find each model's worker that holds memory, or may, and is not leaving."""
        return {
            w.model.name: w for w in self.workers.values() if w.is_charged and not w.is_leaving
        }

    def is_wanting(self, name: ModelName) -> bool:
        """Tell whether the model is waited for, and needs memory for that."""
        if not self.is_wanted(name):
            return False
        held = (w for w in self.workers.values() if w.model.name == name)
        seated = next((w for w in held if w.is_charged and not w.is_leaving), None)
        return seated is None or (seated.has_room and bool(self.growth(seated)))

    # Who goes on

    def draining(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.phase is Phase.DRAINING and not w.is_leaving]

    def priority(self, worker: Worker) -> int:
        """Tell the highest priority of those whom the worker serves, or is to serve."""
        if not self.has_priorities:
            return 0
        queue = self.queues.get(worker.model.name)
        waiting = [queue.front.asked.priority] if queue else []
        return max([*(lease.priority for lease in worker.leases.values()), *waiting], default=0)

    def patience_s(self, model: Model) -> float:
        if model.patience_s is not None:
            return model.patience_s
        load_s = self.load_s.get(model.name)
        if load_s is None:
            return PATIENCE_UNKNOWN_S
        return min(max(2 * load_s, PATIENCE_LEAST_S), PATIENCE_MOST_S)

    # What time brings

    def expiry(self, worker: Worker) -> float | None:
        """Tell when the worker's ttl is over, if its clock runs at all."""
        if worker.phase is not Phase.READY or worker.leases:
            return None
        ttl_s = worker.ttl_s
        if math.isinf(ttl_s) or self.is_wanted(worker.model.name):
            return None
        return worker.idle_since + ttl_s
