"""What a careful listener writes down: who waits, who holds what, and who stands in the line.

All of it comes from events and commands. The arithmetic is the listener's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from proxy.scheduler import (
    PRIORITY_S,
    Arrived,
    Cause,
    Demand,
    Device,
    Measured,
    Model,
    ModelName,
    Reloaded,
    TicketId,
    WorkerId,
)
from tests.scheduler.rules import Anybody, Rules


def summed(demands: Iterable[Demand]) -> Demand:
    out: dict[Device, int] = {}
    for demand in demands:
        for device, amount in demand.items():
            out[device] = out.get(device, 0) + amount
    return out


def less(one: Demand, other: Demand) -> Demand:
    """Subtract, and go below nothing if need be."""
    return summed([one, {device: -amount for device, amount in other.items()}])


def short(demand: Demand, there: Demand) -> Demand:
    """Tell by how much what is there falls short of the demand, where it does."""
    gap = {d: amount - there.get(d, 0) for d, amount in demand.items() if amount > 0}
    return {device: amount for device, amount in gap.items() if amount > 0}


def most(one: Demand, other: Demand) -> Demand:
    return {d: max(one.get(d, 0), other.get(d, 0)) for d in [*one, *other]}


@dataclass(frozen=True, slots=True)
class Waiter:
    """A ticket that was neither granted nor refused yet."""

    asked: Arrived
    since: float
    number: int

    @property
    def rank(self) -> tuple[float, int]:
        return self.since - PRIORITY_S * self.asked.priority, self.number


@dataclass(slots=True, eq=False)
class Process:
    """One worker's process, as far as it was heard of; gone when it has exited."""

    id: WorkerId
    name: ModelName
    own_model: Model | None = None  # once the config knows another one
    is_prepared: bool = False
    place: Place | None = None  # where its model stood in the line when it was told to load
    load_began: float | None = None
    ready_at: float | None = None
    idle_since: float = 0.0
    charge: Demand = field(default_factory=dict)
    leases: dict[TicketId, int] = field(default_factory=dict)  # the priority of each
    keep_alive_s: float | None = None
    retire_by: float | None = None
    must_stop: bool = False  # unloaded before it was ready
    cause: Cause | None = None  # of either
    is_told_to_stop: bool = False
    is_stuck: bool = False
    is_alone: bool = False  # loads for the second time, with all there is
    drains: bool = False  # as the scheduler's repr says

    @property
    def is_leaving(self) -> bool:
        return self.is_told_to_stop or self.must_stop or self.retire_by is not None

    @property
    def is_coming(self) -> bool:
        return not self.is_charged and not self.is_leaving

    @property
    def is_charged(self) -> bool:
        return self.load_began is not None

    @property
    def is_loading(self) -> bool:
        return self.is_charged and self.ready_at is None and not self.is_leaving

    @property
    def is_ready(self) -> bool:
        return self.ready_at is not None and not self.is_leaving

    @property
    def is_seated(self) -> bool:
        return self.is_charged and not self.is_leaving


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model stands in the line."""

    since: float
    priority: int
    entered: int = 0  # with which event

    @property
    def rank(self) -> float:
        return self.since - PRIORITY_S * self.priority


class Books:
    """The facts; `listener.py` judges them."""

    def __init__(
        self, models: Iterable[Model], budget: Demand, rules: Rules | None = None
    ) -> None:
        self.now = 0.0
        self.rules = rules or Anybody()
        self.budget = budget
        self.models = {model.name: model for model in models}
        self.waiting: dict[ModelName, list[Waiter]] = {name: [] for name in self.models}
        self.processes: dict[WorkerId, Process] = {}
        self.gone: list[WorkerId] = []
        self.line: dict[ModelName, Place] = {}
        self.events_count = 0
        self.cooling: dict[ModelName, tuple[float, float]] = {}  # until, pause
        self.load_s: dict[ModelName, float] = {}
        self.alone: set[ModelName] = set()
        self.is_shutting_down = False
        self._arrivals_count = 0
        self._learn_times()

    # Who is there

    def model(self, process: Process) -> Model:
        return process.own_model or self.models[process.name]

    def front(self, name: ModelName) -> Waiter | None:
        return next(iter(self.waiting.get(name, [])), None)

    def is_idle(self, process: Process) -> bool:
        return not process.leases and not self.waiting.get(process.name)

    def seat(self, name: ModelName) -> Process | None:
        return next((p for p in self.processes.values() if p.name == name and p.is_seated), None)

    def coming(self, name: ModelName) -> Process | None:
        return next((p for p in self.processes.values() if p.name == name and p.is_coming), None)

    def expiry(self, process: Process) -> float:
        """Tell when its ttl is over."""
        model = self.model(process)
        ttl_s = process.keep_alive_s
        if ttl_s is None:
            ttl_s = model.ttl_s or math.inf
        is_counted = process.is_ready and self.is_idle(process) and not model.pinned
        return process.idle_since + ttl_s if is_counted else math.inf

    def patience_s(self, name: ModelName) -> float:
        known = self.models[name].patience_s
        if known is not None:
            return known
        load_s = self.load_s.get(name)
        return 5.0 if load_s is None else min(8.0, max(2.0, 2 * load_s))

    def priority(self, process: Process) -> int:
        front = self.front(process.name)
        waiting = [front.asked.priority] if front is not None else []
        return max([*process.leases.values(), *waiting], default=0)

    def company(self) -> list[Process]:
        """List who is there for the rules of company."""
        there = [p for p in self.processes.values() if p.is_charged and not p.is_stuck]
        return [p for p in there if not self.model(p).pinned]

    # Memory

    def charged(self) -> Demand:
        return summed(p.charge for p in self.processes.values())

    def free(self) -> Demand:
        return less(self.budget, self.charged())

    def room(self, name: ModelName) -> Demand:
        """Tell what the model could have if all left that can."""
        others = [m for m in self.models.values() if m.pinned and m.name != name]
        stuck = [p.charge for p in self.processes.values() if p.is_stuck]
        return less(self.budget, summed([*map(self._due_or_held, others), *stuck]))

    def _due_or_held(self, model: Model) -> Demand:
        seat = self.seat(model.name)
        if seat is None or seat.is_alone:
            return model.demand
        return most(model.demand, seat.charge)

    def is_servable(self, asked: Arrived) -> bool:
        demand = most(self.models[asked.model].demand, asked.demand)
        seat = self.seat(asked.model)
        sits = seat is not None and not short(asked.demand, seat.charge)
        return sits or not short(demand, self.room(asked.model))

    def hopeless(self) -> set[TicketId]:
        waiters = [waiter for queue in self.waiting.values() for waiter in queue]
        return {w.asked.ticket for w in waiters if not self.is_servable(w.asked)}

    def demand(self, name: ModelName) -> Demand:
        """Tell what the model stands in the line for."""
        front, seat = self.front(name), self.seat(name)
        assert front is not None
        if seat is not None:
            return short(front.asked.demand, seat.charge)
        return self._to_load(name)

    def _to_load(self, name: ModelName) -> Demand:
        model, front = self.models[name], self.front(name)
        demand = most(model.demand, front.asked.demand if front is not None else {})
        if self.must_be_alone(name):
            room = self.room(name)
            return most(demand, {device: room.get(device, 0) for device in model.demand})
        if model.feared:
            room = self.room(name)
            return most(demand, {on: min(n, room.get(on, 0)) for on, n in model.feared.items()})
        return demand

    def must_be_alone(self, name: ModelName) -> bool:
        return name in self.alone or self.models[name].loads_alone

    # The line

    def line_up(self, *, is_at_rest: bool = False) -> None:
        """Let those stand in the line who want memory, as they are to be called.

        Who has stood there keeps his place until all is granted that can be.
        """
        for name in list(self.line):
            if self.front(name) is None or (is_at_rest and not self.wants_memory(name)):
                del self.line[name]
        for name in self.models:
            front = self.front(name)
            if front is not None and self.wants_memory(name):
                known = self.line.get(name, Place(self.now, 0, self.events_count))
                self.line[name] = replace(known, priority=front.asked.priority)
        order = list(self.models)
        ranks = sorted(
            (place.rank, place.entered, order.index(name), name)
            for name, place in self.line.items()
        )
        self.line = {rank[-1]: self.line[rank[-1]] for rank in ranks}

    def wants_memory(self, name: ModelName) -> bool:
        front, seat = self.front(name), self.seat(name)
        if front is None:
            return False
        if seat is None:
            return True
        has_room = len(seat.leases) < self.models[name].concurrency
        is_open = seat.is_ready and not seat.drains
        return is_open and has_room and bool(short(front.asked.demand, seat.charge))

    # Events

    def wait(self, asked: Arrived) -> None:
        self._arrivals_count += 1
        queue = self.waiting[asked.model]
        queue.append(Waiter(asked, self.now, self._arrivals_count))
        queue.sort(key=lambda waiter: waiter.rank)

    def give_up(self, tickets: Iterable[TicketId]) -> None:
        """Forget those who wait no more."""
        tickets = set(tickets)
        for name, queue in self.waiting.items():
            queue[:] = [waiter for waiter in queue if waiter.asked.ticket not in tickets]
            if not queue:
                self.alone.discard(name)

    def leave(self, ticket: TicketId) -> None:
        self.give_up([ticket])
        for process in self.processes.values():
            if process.leases.pop(ticket, None) is not None:
                process.idle_since = self.now

    def become_ready(self, process: Process) -> None:
        assert process.load_began is not None
        process.ready_at = process.idle_since = self.now
        self.load_s[process.name] = self.now - process.load_began
        self.cooling.pop(process.name, None)
        self.alone.discard(process.name)
        if process.is_alone and not self.models[process.name].loads_alone:
            process.is_alone = False
            demand, held = self._to_load(process.name), process.charge
            process.charge = {d: min(amount, held.get(d, 0)) for d, amount in demand.items()}

    def cool_down(self, name: ModelName) -> None:
        pause_s = min(60.0, 2 * self.cooling[name][1]) if name in self.cooling else 1.0
        self.cooling[name] = self.now + pause_s, pause_s

    def measure(self, event: Measured) -> None:
        process = self.processes.get(event.worker)
        if process is None:
            return
        if process.own_model is None:
            known = self.models[process.name]
            measured = replace(
                known,
                demand=event.model_demand,
                feared=event.model_feared,
                loads_alone=False,
            )
            self.models[process.name] = measured
            process.is_alone = False
        if process.is_charged and not process.is_told_to_stop:
            process.charge = event.charge

    def retire(self, which: Iterable[Process], deadline: float, cause: Cause) -> None:
        for process in which:
            if process.is_told_to_stop:
                continue
            if process.cause is None:
                process.cause = cause
            if process.is_seated:
                self.line.pop(process.name, None)
            if process.ready_at is None:
                process.must_stop = True
            else:
                process.retire_by = min(deadline, process.retire_by or math.inf)

    def reload(self, event: Reloaded) -> list[TicketId]:
        """Take the new config; list those whose model is gone."""
        models = {model.name: model for model in event.models}
        lost = [p for p in self.processes.values() if self._is_lost(p, event, models)]
        for process in lost:
            process.own_model = self.model(process)
        self.retire(lost, event.deadline, Cause.RELOAD)
        for name in [name for name in self.models if name not in models or name in event.changed]:
            self.cooling.pop(name, None)
            self.load_s.pop(name, None)
            self.alone.discard(name)
        self.models, self.budget = models, event.budget
        self._learn_times()
        gone = [w for name, queue in self.waiting.items() if name not in models for w in queue]
        self.waiting = {name: self.waiting.get(name, []) for name in models}
        self.line = {name: place for name, place in self.line.items() if name in models}
        return [waiter.asked.ticket for waiter in gone]

    def _is_lost(self, process: Process, event: Reloaded, models: dict[ModelName, Model]) -> bool:
        return process.name in event.changed or process.name not in models

    def _learn_times(self) -> None:
        for name, model in self.models.items():
            if model.load_s is not None:
                self.load_s.setdefault(name, model.load_s)
