"""The only hand that changes the scheduler's state."""

from __future__ import annotations

from typing import assert_never

from proxy.scheduler.eviction import choose_victims
from proxy.scheduler.state import Failure, State, Worker
from proxy.scheduler.types import (
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
    Phase,
    Prepare,
    Prepared,
    Refusal,
    Refuse,
    ShutdownAsked,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)

COOL_DOWN_FIRST_S = 1.0
COOL_DOWN_LONGEST_S = 60.0


class Scheduler:
    """Decides; the package docstring has the rules, and `handle` is the door."""

    def __init__(self, models: list[Model], budget: int) -> None:
        self.state = State({model.name: model for model in models}, budget)
        self._last_worker = 0
        self._alarm: float | None = None
        self._is_shutting_down = False
        self._out: list[Command] = []

    def __repr__(self) -> str:
        seats = ", ".join(
            f"{w.model.name}#{w.id} {w.phase.value} {len(w.leases)}"
            for w in self.state.workers.values()
        )
        waiting = sum(map(len, self.state.queues.values()))
        charged = f"{self.state.charged}/{self.state.budget} charged"
        return f"<Scheduler {seats or 'empty'} | {waiting} waiting | {charged}>"

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event, and say everything that has to be done about it, in order.

        `now` is monotonic, in seconds, and never smaller than before.
        """
        match event:
            case Arrived(ticket, name):
                self._take_in(ticket, name, now)
            case Left(ticket):
                self._let_go(ticket, now)
            case Prepared(worker_id):
                self._prepared(worker_id)
            case BecameReady(worker_id):
                self._became_ready(worker_id, now)
            case Exited(worker_id):
                self._exited(worker_id, now)
            case UnloadAsked(name, deadline):
                self._retire(name, deadline)
            case ShutdownAsked(deadline):
                self._shut_down(deadline)
            case Woke():
                self._alarm = None
            case _:
                assert_never(event)
        self._settle(now)
        out, self._out = self._out, []
        return out

    # Taking in what happened

    def _take_in(self, ticket: TicketId, name: ModelName, now: float) -> None:
        model = self.state.models.get(name)
        if model is None:
            self._out.append(Refuse(ticket, Refusal.UNKNOWN_MODEL))
            return
        refusal = self._reason_to_refuse(model, ticket, now)
        if refusal is not None:
            self._out.append(refusal)
        else:
            self.state.queues[name][ticket] = now

    def _reason_to_refuse(self, model: Model, ticket: TicketId, now: float) -> Refuse | None:
        state = self.state
        if self._is_shutting_down:
            return Refuse(ticket, Refusal.SHUTTING_DOWN)
        if model.demand > max(state.budget - state.reserved_beside(model), 0):
            return Refuse(ticket, Refusal.NEVER_FITS)
        failure = state.failures.get(model.name)
        if failure is not None and now < failure.until:
            return Refuse(ticket, Refusal.COOLING_DOWN, failure.until - now)
        if len(state.queues[model.name]) >= model.queue_limit:
            return Refuse(ticket, Refusal.QUEUE_FULL, max(1.0, state.load_s.get(model.name, 0.0)))
        return None

    def _let_go(self, ticket: TicketId, now: float) -> None:
        for queue in self.state.queues.values():
            queue.pop(ticket, None)
        for worker in self.state.workers.values():
            if ticket in worker.leases:
                worker.leases.remove(ticket)
                worker.idle_since = now

    def _prepared(self, worker_id: WorkerId) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is not None and worker.phase is Phase.PREPARING:
            worker.phase = Phase.PREPARED

    def _became_ready(self, worker_id: WorkerId, now: float) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is None or worker.phase is not Phase.LOADING:
            return  # it crossed our order to stop
        worker.phase = Phase.READY
        worker.ready_since = worker.idle_since = now
        self.state.load_s[worker.model.name] = now - worker.load_began
        self.state.failures.pop(worker.model.name, None)

    def _exited(self, worker_id: WorkerId, now: float) -> None:
        worker = self.state.workers.pop(worker_id, None)
        if worker is None or worker.is_serving or worker.phase is Phase.STOPPING:
            return
        name = worker.model.name
        before = self.state.failures.get(name)
        pause_s = min(before.pause_s * 2, COOL_DOWN_LONGEST_S) if before else COOL_DOWN_FIRST_S
        self.state.failures[name] = Failure(now + pause_s, pause_s)
        self._refuse_waiting(name, Refusal.START_FAILED, pause_s)

    def _retire(self, name: ModelName | None, deadline: float) -> None:
        for worker in self.state.workers.values():
            if name not in (None, worker.model.name):
                continue
            if worker.is_serving:
                known = worker.retire_by
                worker.retire_by = deadline if known is None else min(known, deadline)
            else:
                self._stop(worker)

    def _shut_down(self, deadline: float) -> None:
        self._is_shutting_down = True
        for name in self.state.queues:
            self._refuse_waiting(name, Refusal.SHUTTING_DOWN)
        self._retire(None, deadline)

    def _refuse_waiting(
        self, name: ModelName, why: Refusal, retry_after_s: float | None = None
    ) -> None:
        queue = self.state.queues[name]
        self._out += [Refuse(ticket, why, retry_after_s) for ticket in queue]
        queue.clear()

    # Bringing the state to rest

    def _settle(self, now: float) -> None:
        """Do all that is due; what one step does may only please the steps after it."""
        self._stop_due(now)
        self._line_up(now)
        self._reprieve()
        self._grant(now)
        self._load_and_prepare(now)
        self._drain_for_head(now)
        alarm = self.state.next_change(now)
        if alarm != self._alarm:
            self._alarm = alarm
            self._out.append(WakeAt(alarm))

    def _stop_due(self, now: float) -> None:
        """End the retired, the drained, the idle, and processes that nobody waits for."""
        for worker in self.state.workers.values():
            expiry = self.state.expiry(worker)
            retired = worker.retire_by is not None and (
                not worker.leases or now >= worker.retire_by
            )
            drained = worker.phase is Phase.DRAINING and not worker.leases
            idle = expiry is not None and now >= expiry
            unwanted = worker.is_coming and not self.state.is_wanted(worker.model)
            if retired or drained or idle or unwanted:
                self._stop(worker)

    def _line_up(self, now: float) -> None:
        """Let those stand in line that wait for a seat: who has just lost his stands last."""
        absent, before = self.state.absent(), self.state.line
        kept = {name: since for name, since in before.items() if name in absent}
        self.state.line = kept | {name: now for name in absent if name not in kept}

    def _reprieve(self) -> None:
        """Let drained ones serve again whom the head does not need any more."""
        draining = self.state.draining()
        surplus = sum(w.model.demand for w in draining) - self.state.need()
        for worker in sorted(draining, key=lambda w: -len(w.leases)):
            if worker.model.demand <= surplus:
                surplus -= worker.model.demand
                worker.phase = Phase.READY

    def _grant(self, now: float) -> None:
        for worker in self.state.workers.values():
            queue = self.state.queues[worker.model.name]
            while queue and worker.has_room:
                ticket = next(iter(queue))
                del queue[ticket]
                worker.leases.add(ticket)
                worker.idle_since = now
                self._out.append(Grant(ticket, worker.id))

    def _load_and_prepare(self, now: float) -> None:
        """Give the absent models that are waited for a process, and memory as it is free.

        The head blocks all behind it, except those that take nothing from it.
        """
        blocked = False
        for name in list(self.state.line):
            model = self.state.models[name]
            if blocked and model.demand > 0:
                continue
            worker = self.state.coming(model)
            if worker is None:
                self._prepare(model)
            elif worker.phase is Phase.PREPARED and self._fits(model):
                worker.phase = Phase.LOADING
                worker.is_charged = True
                worker.load_began = now
                del self.state.line[name]
                self._out.append(Load(worker.id))
                continue
            blocked = blocked or model.demand > 0

    def _fits(self, model: Model) -> bool:
        return self.state.charged + model.demand <= self.state.budget

    def _prepare(self, model: Model) -> None:
        self._last_worker += 1
        worker = Worker(WorkerId(self._last_worker), model)
        self.state.workers[worker.id] = worker
        self._out.append(Prepare(worker.id, model.name))

    def _drain_for_head(self, now: float) -> None:
        state, head = self.state, self.state.head()
        need = state.need() - sum(w.model.demand for w in state.draining())
        if head is None or need <= 0:
            return
        candidates = state.evictable()
        victims = choose_victims(
            [w for w in candidates if state.is_idle(w)],
            [w for w in candidates if not state.is_idle(w) and now >= state.spared_until(w, head)],
            need,
            demand=lambda w: w.model.demand,
            cost=lambda w: (state.load_s.get(w.model.name, 0.0), w.idle_since),
        )
        for victim in victims:
            if victim.leases:
                victim.phase = Phase.DRAINING
            else:
                self._stop(victim)

    def _stop(self, worker: Worker) -> None:
        if worker.phase is not Phase.STOPPING:
            worker.phase = Phase.STOPPING
            self._out.append(Terminate(worker.id))
