"""What a careful listener knows of the scheduler, from events and commands alone.

The oracles are written from the package's docstring; none of them looks inside the scheduler.
They judge a batch of commands as a whole: the order within it is the scheduler's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

from proxy.scheduler import (
    Arrived,
    BecameReady,
    Command,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Model,
    ModelName,
    Prepare,
    Prepared,
    Refusal,
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


@dataclass(slots=True)
class Process:
    """One worker's process, as far as it was heard of; gone when it has exited."""

    id: WorkerId
    model: Model
    is_prepared: bool = False
    load_began: float | None = None
    ready_at: float | None = None
    idle_since: float = 0.0
    leases: set[TicketId] = field(default_factory=set)
    retire_by: float | None = None
    must_stop: bool = False  # unloaded before it was ready
    is_told_to_stop: bool = False

    @property
    def is_leaving(self) -> bool:
        return self.is_told_to_stop or self.must_stop or self.retire_by is not None

    @property
    def is_coming(self) -> bool:
        return self.load_began is None and not (self.is_told_to_stop or self.must_stop)

    @property
    def is_charged(self) -> bool:
        return self.load_began is not None

    @property
    def is_loading(self) -> bool:
        return self.is_charged and self.ready_at is None and not self.is_leaving

    @property
    def may_expire(self) -> bool:
        return self.model.ttl_s > 0 and not self.model.pinned

    @property
    def is_open(self) -> bool:
        return self.ready_at is not None and not self.is_leaving


@dataclass(slots=True)
class Batch:
    """The commands that answer one event, by kind."""

    prepares: dict[WorkerId, ModelName] = field(default_factory=dict)
    loads: list[WorkerId] = field(default_factory=list)
    grants: dict[TicketId, WorkerId] = field(default_factory=dict)
    refusals: dict[TicketId, Refuse] = field(default_factory=dict)
    stops: list[WorkerId] = field(default_factory=list)

    @classmethod
    def of(cls, commands: list[Command]) -> Batch:
        batch = cls()
        for command in commands:
            match command:
                case Prepare(worker, name):
                    batch.prepares[worker] = name
                case Load(worker):
                    batch.loads.append(worker)
                case Grant(ticket, worker):
                    assert ticket not in batch.grants
                    batch.grants[ticket] = worker
                case Refuse(ticket):
                    assert ticket not in batch.refusals
                    batch.refusals[ticket] = command
                case Terminate(worker):
                    batch.stops.append(worker)
        assert len(set(batch.stops)) == len(batch.stops)
        assert not batch.grants.keys() & batch.refusals.keys()
        return batch


class Listener:
    """Passes events on to a scheduler, and holds each answer against the rules."""

    def __init__(self, models: list[Model], budget: int) -> None:
        self.models = {model.name: model for model in models}
        self.budget = budget
        self.scheduler = Scheduler(models, budget)
        self.now = 0.0
        self.alarm: float | None = None
        self.processes: dict[WorkerId, Process] = {}
        self.gone: list[WorkerId] = []
        self.waiting: dict[ModelName, list[TicketId]] = {name: [] for name in self.models}
        self.loads_count = 0
        self._line: dict[ModelName, float] = {}  # waited for, without a seat → since when
        self._cooling: dict[ModelName, tuple[float, float]] = {}  # until, pause
        self._load_s: dict[ModelName, float] = {}
        self._is_shutting_down = False
        self._must_drain: tuple[WorkerId, WorkerId] | None = None  # who, for which head

    def tell(self, event: Event, now: float) -> Batch:
        """Pass the event on; complain if the answer breaks a rule."""
        assert now >= self.now
        self.now = now
        busy = {p.id for p in self.processes.values() if p.leases}
        due_refusals = self._take_in(event)
        self._line_up()
        idle_suffice = isinstance(event, Prepared) and self._do_idle_suffice(event.worker)
        commands = self.scheduler.handle(event, now)
        batch = Batch.of(commands)
        for command in commands:
            if isinstance(command, WakeAt):
                self.alarm = command.when
        self._check_refusals(batch, due_refusals)
        self._check_stops(batch, busy)
        assert not idle_suffice or self.need() <= 0, "the idle go, not the busy"
        self._check_prepares(batch)
        self._check_loads(batch)
        self._check_grants(batch)
        self._check_rest()
        self._check_settled()
        return batch

    # What is known

    def is_idle(self, process: Process) -> bool:
        return not process.leases and not self.waiting[process.model.name]

    def head(self) -> Process | None:
        """Find the prepared process of the model whose turn it is."""
        turn = next((name for name in self._line if self.models[name].demand > 0), None)
        return next(
            (
                p
                for p in self.processes.values()
                if p.model.name == turn and p.is_coming and p.is_prepared
            ),
            None,
        )

    def need(self) -> int:
        """Tell what the head lacks when all who are leaving have left."""
        head = self.head()
        if head is None:
            return 0
        staying = [p for p in self.processes.values() if p.is_charged and not p.is_leaving]
        return head.model.demand + _demand(staying) - self.budget

    def charged(self) -> int:
        return _demand(p for p in self.processes.values() if p.is_charged)

    def _evictable(self) -> list[Process]:
        return [
            p
            for p in self.processes.values()
            if not p.model.pinned and (p.is_open or (p.is_loading and self.is_idle(p)))
        ]

    def _do_idle_suffice(self, prepared: WorkerId) -> bool:
        """Tell whether the worker is a new head whom the idle can make room for."""
        head = self.head()
        idle = [process for process in self._evictable() if self.is_idle(process)]
        return head is not None and head.id == prepared and 0 < self.need() <= _demand(idle)

    def _spared_until(self, process: Process, head: Process) -> float:
        assert process.ready_at is not None
        since = max(self._line[head.model.name], process.ready_at)
        return since + head.model.patience_s

    def _line_up(self) -> None:
        seated = {
            p.model.name for p in self.processes.values() if p.is_charged and not p.is_leaving
        }
        absent = [name for name, queue in self.waiting.items() if queue and name not in seated]
        for name in [name for name in self._line if name not in absent]:
            del self._line[name]
        for name in absent:  # several by one event (an unload of all): as configured
            self._line.setdefault(name, self.now)

    # Events

    def _take_in(self, event: Event) -> dict[TicketId, set[Refusal]]:
        """Note what happened; tell who is to be refused now, and for which reasons."""
        match event:
            case Arrived(ticket, name):
                reasons = self._reasons_to_refuse(name)
                if reasons:
                    return {ticket: reasons}
                self.waiting[name].append(ticket)
            case Left(ticket):
                self._left(ticket)
            case Prepared(worker):
                process = self.processes.get(worker)
                if process is not None:
                    process.is_prepared = True
            case BecameReady(worker):
                self._became_ready(worker)
            case Exited(worker):
                return self._exited(worker)
            case UnloadAsked(name, deadline):
                self._retire(name, deadline)
            case ShutdownAsked(deadline):
                self._is_shutting_down = True
                self._retire(None, deadline)
                tickets = [ticket for queue in self.waiting.values() for ticket in queue]
                return {ticket: {Refusal.SHUTTING_DOWN} for ticket in tickets}
            case Woke():
                self.alarm = None
        return {}

    def _reasons_to_refuse(self, name: ModelName) -> set[Refusal]:
        model = self.models[name]
        pinned = _sum(m.demand for m in self.models.values() if m.pinned and m is not model)
        reasons = {
            Refusal.SHUTTING_DOWN: self._is_shutting_down,
            Refusal.NEVER_FITS: model.demand > 0 and model.demand + pinned > self.budget,
            Refusal.COOLING_DOWN: name in self._cooling and self.now < self._cooling[name][0],
            Refusal.QUEUE_FULL: len(self.waiting[name]) >= model.queue_limit,
        }
        return {reason for reason, holds in reasons.items() if holds}

    def _left(self, ticket: TicketId) -> None:
        for queue in self.waiting.values():
            if ticket in queue:
                queue.remove(ticket)
        for process in self.processes.values():
            if ticket in process.leases:
                process.leases.remove(ticket)
                process.idle_since = self.now

    def _became_ready(self, worker: WorkerId) -> None:
        process = self.processes.get(worker)
        if process is not None and process.is_loading:
            assert process.load_began is not None
            process.ready_at = process.idle_since = self.now
            self._load_s[process.model.name] = self.now - process.load_began
            self._cooling.pop(process.model.name, None)

    def _exited(self, worker: WorkerId) -> dict[TicketId, set[Refusal]]:
        process = self.processes.pop(worker, None)
        if process is None:
            return {}
        self.gone.append(worker)
        if process.is_told_to_stop or process.ready_at is not None:
            return {}
        name = process.model.name
        pause_s = min(60.0, 2 * self._cooling[name][1]) if name in self._cooling else 1.0
        self._cooling[name] = self.now + pause_s, pause_s
        return {ticket: {Refusal.START_FAILED} for ticket in self.waiting[name]}

    def _retire(self, name: ModelName | None, deadline: float) -> None:
        for process in self.processes.values():
            if name not in (None, process.model.name) or process.is_told_to_stop:
                continue
            if process.ready_at is None:
                process.must_stop = True
            else:
                known = process.retire_by
                process.retire_by = deadline if known is None else min(deadline, known)

    # Commands

    def _check_refusals(self, batch: Batch, due: dict[TicketId, set[Refusal]]) -> None:
        assert batch.refusals.keys() == due.keys()
        for ticket, refusal in batch.refusals.items():
            assert refusal.why in due[ticket]
            match refusal.why:
                case Refusal.COOLING_DOWN | Refusal.START_FAILED:
                    pauses = [until - self.now for until, _ in self._cooling.values()]
                    assert refusal.retry_after_s in pauses
                case Refusal.QUEUE_FULL:
                    assert refusal.retry_after_s is not None
                    assert refusal.retry_after_s >= 1
                case _:
                    assert refusal.retry_after_s is None
            for queue in self.waiting.values():
                if ticket in queue:
                    queue.remove(ticket)
        self._line_up()

    def _check_stops(self, batch: Batch, busy: set[WorkerId]) -> None:
        stopped = [self.processes[worker] for worker in batch.stops]
        assert not any(p.is_told_to_stop for p in stopped)
        victims = [p for p in stopped if not self._has_own_reason_to_stop(p)]
        head, need = self.head(), self.need()
        for victim in victims:
            assert not victim.model.pinned
            assert victim.model.demand > 0
            assert not victim.leases
            assert victim.ready_at is not None or self.is_idle(victim)
            assert head is not None, "nobody is stopped before the head is prepared"
            assert need > 0
        others = [p for p in stopped if p not in victims]
        self._check_choice(
            [p for p in victims if p.id not in busy],
            [p for p in victims if p.id in busy],  # or drained before
            [p for p in others if not p.is_leaving],
        )
        for process in stopped:
            process.is_told_to_stop = True
            process.leases.clear()
        self._line_up()

    def _has_own_reason_to_stop(self, process: Process) -> bool:
        """Tell whether it goes for its own sake, and not for the head's."""
        if process.must_stop:
            return True
        if process.retire_by is not None:
            return not process.leases or self.now >= process.retire_by
        if process.is_open:
            has_expired = self.now >= process.idle_since + process.model.ttl_s
            return self.is_idle(process) and process.may_expire and has_expired
        return process.is_coming and self.is_idle(process)

    def _check_choice(
        self, victims: list[Process], maybe_drained: list[Process], others: list[Process]
    ) -> None:
        """Check that those who were idle are as few as suffice, and the cheapest."""
        if not victims:
            return
        head, need = self.head(), self.need() - _demand(p for p in others if p.is_charged)
        assert head is not None
        assert need > 0
        evictable = [p for p in self._evictable() if p not in others]
        idle = [p for p in evictable if self.is_idle(p)]
        late = [p for p in evictable if p not in idle and self.now >= self._spared_until(p, head)]
        assert _demand(idle) + _demand(late) >= need, "they do not make enough room"
        enough = [
            some
            for count in range(1, len(idle) + 1)
            for some in combinations(idle, count)
            if _demand(some) >= need
        ]
        if not enough:
            return
        chosen = [*victims, *maybe_drained]
        assert _demand(chosen) >= need
        assert len(chosen) == len(enough[0]), "fewer would do"
        least_s = min(self._cost_s(some) for some in enough if len(some) == len(chosen))
        assert self._cost_s(chosen) <= least_s + 1e-9, "others are cheaper to bring back"

    def _cost_s(self, some) -> float:
        return sum(self._load_s.get(process.model.name, 0.0) for process in some)

    def _check_prepares(self, batch: Batch) -> None:
        for worker, name in batch.prepares.items():
            assert worker not in self.processes
            assert worker not in self.gone
            assert name in self._line
            mine = [p for p in self.processes.values() if p.model.name == name]
            assert not any(p.is_coming for p in mine)
            self.processes[worker] = Process(worker, self.models[name])

    def _check_loads(self, batch: Batch) -> None:
        for worker in batch.loads:
            process = self.processes[worker]
            assert process.is_coming
            assert process.is_prepared
            assert self.waiting[process.model.name]
        loaded = [self.processes[worker] for worker in batch.loads]
        names = {p.model.name for p in loaded}
        for process in loaded:
            before = list(self._line)[: list(self._line).index(process.model.name)]
            overtaken = [n for n in before if self.models[n].demand > 0 and n not in names]
            assert process.model.demand == 0 or not overtaken
        for process in loaded:
            process.load_began = self.now
        self.loads_count += len(loaded)
        assert self.charged() <= self.budget or not loaded
        self._line_up()

    def _check_grants(self, batch: Batch) -> None:
        for name, queue in self.waiting.items():
            granted = [
                ticket
                for ticket, worker in batch.grants.items()
                if self.processes[worker].model.name == name
            ]
            assert granted == queue[: len(granted)], "first in, first out"
            del queue[: len(granted)]
        for ticket, worker in batch.grants.items():
            process = self.processes[worker]
            assert process.is_open
            process.leases.add(ticket)
            assert len(process.leases) <= process.model.concurrency
        if self._must_drain is not None and self._head_still_needs(*self._must_drain):
            assert self._must_drain[0] not in batch.grants.values(), "the head's patience is over"
        self._line_up()

    def _head_still_needs(self, worker: WorkerId, head_id: WorkerId) -> bool:
        head, process = self.head(), self.processes.get(worker)
        if head is None or head.id != head_id or process is None or process.is_leaving:
            return False
        return self.need() > _demand(
            p for p in self._evictable() if self.is_idle(p) and p is not process
        )

    # At rest

    def _check_rest(self) -> None:
        assert self.charged() <= self.budget
        assert self.alarm is None or self.alarm > self.now
        for process in self.processes.values():
            if not process.is_told_to_stop:
                self._check_process(process)
        for name, queue in self.waiting.items():
            if queue:
                self._check_waited_for(self.models[name])
        self._must_drain = None
        head = self.head()
        if head is not None and self.need() > 0:
            self._check_room_is_made(head)

    def _check_process(self, process: Process) -> None:
        assert not process.must_stop
        assert not process.is_coming or self.waiting[process.model.name], "nobody wants it"
        if process.retire_by is not None:
            assert process.leases
            self._check_alarm(process.retire_by)
        elif process.is_open and self.is_idle(process) and process.may_expire:
            self._check_alarm(process.idle_since + process.model.ttl_s)

    def _check_alarm(self, due: float) -> None:
        assert self.now < due, "missed"
        assert self.alarm is not None
        assert self.alarm <= due, "will be missed"

    def _check_waited_for(self, model: Model) -> None:
        """Check that somebody works on it, or that it waits behind a head that is worked on."""
        mine = [p for p in self.processes.values() if p.model is model]
        if model.name not in self._line:
            seated = next(p for p in mine if p.is_charged and not p.is_leaving)
            if seated.is_open and len(seated.leases) < model.concurrency:
                self._check_drains(seated)
            return
        is_turn = next((n for n in self._line if self.models[n].demand > 0), None) == model.name
        if is_turn or model.demand == 0:
            coming = next((p for p in mine if p.is_coming), None)
            assert coming is not None, "nobody works on it"
            fits = self.charged() + model.demand <= self.budget
            assert not (coming.is_prepared and fits), "it could load"

    def _check_drains(self, process: Process) -> None:
        """Check that a worker with room and waiters has a reason not to serve them."""
        head = self.head()
        assert process.leases
        assert not process.model.pinned
        assert head is not None, "it drains for nobody"
        assert self.need() > 0, "it drains for nothing"
        assert self.now >= self._spared_until(process, head), "the head still has patience"

    def _check_room_is_made(self, head: Process) -> None:
        """Check that the head does not wait for nothing, nor longer than its patience."""
        assert any(
            p.leases or p.is_loading or (p.is_charged and p.is_told_to_stop)
            for p in self.processes.values()
        ), "stuck"
        evictable = self._evictable()
        idle = [p for p in evictable if self.is_idle(p)]
        busy = [p for p in evictable if not self.is_idle(p)]
        lack = self.need() - _demand(idle)
        if not busy:
            assert lack > 0, "the idle would make room"
        elif len(busy) == 1 and 0 < lack <= busy[0].model.demand:
            if self.now >= self._spared_until(busy[0], head):
                self._must_drain = busy[0].id, head.id
            else:
                self._check_alarm(self._spared_until(busy[0], head))

    def _check_settled(self) -> None:
        before = repr(self.scheduler)
        said = self.scheduler.handle(Woke(), self.now)
        assert said == ([] if self.alarm is None else [WakeAt(self.alarm)])
        assert repr(self.scheduler) == before


def _sum(numbers) -> int:
    return sum(numbers)


def _demand(processes) -> int:
    return sum(process.model.demand for process in processes)
