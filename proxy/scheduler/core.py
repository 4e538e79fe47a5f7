"""The scheduler itself: takes events in, brings the state to rest, says what is to be done."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from proxy.scheduler import forecast, line, settle
from proxy.scheduler.hand import Hand
from proxy.scheduler.state import Failure, State, Worker
from proxy.scheduler.types import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Cause,
    Command,
    Company,
    Demand,
    Ended,
    Event,
    Exited,
    Left,
    Measured,
    Model,
    ModelName,
    Phase,
    Prepared,
    Refusal,
    Refuse,
    Reloaded,
    ShutdownAsked,
    Stuck,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)

COOL_DOWN_FIRST_S = 1.0
COOL_DOWN_LONGEST_S = 60.0
NEWEST_WEIGHS = 0.3  # in the smoothed service time


class Scheduler:
    """Decides; the package docstring has the rules, and `handle` is the door."""

    def __init__(
        self, models: list[Model], budget: Demand, company: Company | None = None
    ) -> None:
        self.state = State({model.name: model for model in models}, budget, company or Company())
        self._hand = Hand(self.state)
        self._alarm: float | None = None
        self._is_shutting_down = False

    def __repr__(self) -> str:
        seats = ", ".join(
            f"{w.model.name}#{w.id} {w.phase.value} {len(w.leases)}"
            for w in self.state.workers.values()
        )
        waiting = sum(map(len, self.state.queues.values()))
        charged = ", ".join(
            f"{self.state.charged.get(device, 0)}/{amount} of {device}"
            for device, amount in self.state.budget.items()
        )
        return f"<Scheduler {seats or 'empty'} | {waiting} waiting | {charged or 'no budget'}>"

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event, and say everything that has to be done about it, in order.

        `now` is monotonic, in seconds, and never smaller than before.
        """
        self.state.event_count += 1
        self._take_in(event, now)
        turns = settle.settle(self._hand, now)
        alarm = line.next_change(self.state, turns, now)
        if alarm != self._alarm:
            self._alarm = alarm
            self._hand.say(WakeAt(alarm))
        return self._hand.take_commands()

    def _take_in(self, event: Event, now: float) -> None:  # noqa: C901, PLR0912  # a line for each
        match event:
            case Arrived():
                self._arrived(event, now)
            case Left(ticket, was_served):
                self._left(ticket, now, was_served=was_served)
            case Prepared(worker_id):
                self._prepared(worker_id)
            case BecameReady(worker_id):
                self._became_ready(worker_id, now)
            case Ended(worker_id, out_of_memory):
                self._ended(worker_id, now, out_of_memory=out_of_memory)
            case Exited(worker_id, out_of_memory):
                self._exited(worker_id, now, out_of_memory=out_of_memory)
            case Stuck(worker_id):
                self._stuck(worker_id)
            case Measured():
                self._measured(event)
            case BudgetChanged(budget):
                self.state.budget = budget
                self._look_anew()
            case Reloaded():
                self._reloaded(event)
            case UnloadAsked(name, deadline):
                self._unload(name, deadline)
            case ShutdownAsked(deadline):
                self._shut_down(deadline)
            case Woke():
                self._alarm = None
            case _:
                assert_never(event)

    def _look_anew(self) -> None:
        """Note that there is another budget, or another share of it for everybody."""
        self.state.has_less_room = True
        self._hand.turns = None

    # Requests

    def _arrived(self, asked: Arrived, now: float) -> None:
        refusal = self._reason_to_refuse(asked, now)
        if refusal is not None:
            self._hand.say(refusal)
        else:
            self._hand.take_in(asked, now)

    def _reason_to_refuse(self, asked: Arrived, now: float) -> Refuse | None:
        state, ticket = self.state, asked.ticket
        model = state.models.get(asked.model)
        if model is None:
            return Refuse(ticket, Refusal.UNKNOWN_MODEL)
        if self._is_shutting_down:
            return Refuse(ticket, Refusal.SHUTTING_DOWN)
        if not state.is_servable(asked):
            return Refuse(ticket, Refusal.NO_ROOM)
        failure = state.failures.get(model.name)
        if failure is not None and now < failure.until:
            return Refuse(ticket, Refusal.COOLING_DOWN, failure.until - now)
        if len(state.queues[model.name]) >= model.queue_limit:
            return Refuse(ticket, Refusal.QUEUE_FULL, forecast.next_place_s(state, model, now))
        return None

    def _left(self, ticket: TicketId, now: float, *, was_served: bool) -> None:
        name = self.state.where.get(ticket)
        if name is None:
            return
        queue = self.state.queues.get(name)  # the config may have lost the model meanwhile
        if queue is not None and ticket in queue:
            self._hand.remove(ticket)
        else:
            self._end_lease(ticket, now, was_served=was_served)
        del self.state.where[ticket]

    def _end_lease(self, ticket: TicketId, now: float, *, was_served: bool) -> None:
        for worker in self.state.workers.values():
            lease = worker.leases.pop(ticket, None)
            if lease is not None:
                worker.idle_since = now
                self.state.stirred.add(worker.model.name)
                if was_served:
                    self._note_service(worker.model.name, now - lease.since)
                return

    def _note_service(self, name: ModelName, took_s: float) -> None:
        before = self.state.service_s.get(name, took_s)
        self.state.service_s[name] = before + NEWEST_WEIGHS * (took_s - before)

    # Workers

    def _prepared(self, worker_id: WorkerId) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is not None and worker.phase is Phase.PREPARING:
            worker.phase = Phase.PREPARED
            self._hand.touch(worker)

    def _became_ready(self, worker_id: WorkerId, now: float) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is None or worker.phase is not Phase.LOADING:
            return  # it crossed our order to stop
        name = worker.model.name
        worker.phase = Phase.READY
        self._hand.touch(worker)
        worker.ready_since = worker.idle_since = now
        self.state.load_s[name] = now - worker.load_began
        self.state.failures.pop(name, None)
        self.state.alone.discard(name)
        if worker.is_alone and not worker.model.loads_alone:
            self._take_back_surplus(worker)

    def _take_back_surplus(self, worker: Worker) -> None:
        """Charge a worker that has loaded alone no more than its model demands."""
        worker.is_alone = False
        demand = self.state.demand(worker.model)
        held = {on: min(count, demand.get(on, 0)) for on, count in worker.charge.items()}
        self._hand.charge(worker, held)

    def _exited(self, worker_id: WorkerId, now: float, *, out_of_memory: bool) -> None:
        self._ended(worker_id, now, out_of_memory=out_of_memory)
        worker = self.state.workers.pop(worker_id, None)
        if worker is not None:
            self._hand.charge(worker, {})

    def _ended(self, worker_id: WorkerId, now: float, *, out_of_memory: bool) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is None or worker.phase is Phase.STOPPING:
            return
        was_serving, name = worker.is_serving, worker.model.name
        self._hand.lose_seat(worker)
        worker.phase = Phase.STOPPING
        self._hand.touch(worker)
        if was_serving:
            return
        if out_of_memory and self._may_do_better_alone(worker):
            self.state.alone.add(name)
            priority = self.state.queues[name].front.asked.priority
            if worker.lined_up is not None:
                self._hand.line_up(name, replace(worker.lined_up, priority=priority))
            self.state.has_less_room = True  # its seat may have been more than is left now
            return
        before = self.state.failures.get(name)
        pause_s = min(before.pause_s * 2, COOL_DOWN_LONGEST_S) if before else COOL_DOWN_FIRST_S
        self.state.failures[name] = Failure(now + pause_s, pause_s)
        self._hand.refuse_waiting(name, Refusal.START_FAILED, pause_s)

    def _may_do_better_alone(self, worker: Worker) -> bool:
        """Tell whether there were others whom it did not have to run out of memory with."""
        workers, held = self.state.workers.values(), worker.charge.keys()
        others = (w for w in workers if w.is_charged and not w.model.pinned and not w.is_stuck)
        return (
            not worker.is_alone
            and self.state.is_wanted(worker.model.name)
            and any(w is not worker and not held.isdisjoint(w.charge) for w in others)
        )

    def _stuck(self, worker_id: WorkerId) -> None:
        worker = self.state.workers.get(worker_id)
        if worker is not None and worker.phase is Phase.STOPPING:
            worker.is_stuck = True
            self._look_anew()

    def _measured(self, event: Measured) -> None:
        worker = self.state.workers.get(event.worker)
        if worker is None:
            return
        if not worker.is_stale:
            worker.is_alone = False
            demand, feared = event.model_demand, event.model_feared
            self._know_better(
                replace(worker.model, demand=demand, feared=feared, loads_alone=False)
            )
        if worker.is_charged and worker.phase is not Phase.STOPPING:
            self._hand.charge(worker, event.charge)

    def _know_better(self, model: Model) -> None:
        self.state.know({**self.state.models, model.name: model}.values())
        self._look_anew()
        for worker in self.state.workers.values():
            if worker.model.name == model.name and not worker.is_stale:
                worker.model = model

    # What people ask

    def _unload(self, name: ModelName | None, deadline: float) -> None:
        for worker in self.state.workers.values():
            if name in (None, worker.model.name):
                if worker.is_awaited:
                    self._hand.refuse_waiting(worker.model.name, Refusal.UNLOADED)
                self._hand.retire(worker, deadline, Cause.UNLOAD)

    def _shut_down(self, deadline: float) -> None:
        self._is_shutting_down = True
        for name in self.state.queues:
            self._hand.refuse_waiting(name, Refusal.SHUTTING_DOWN)
        for worker in self.state.workers.values():
            self._hand.retire(worker, deadline, Cause.SHUTDOWN)

    def _reloaded(self, event: Reloaded) -> None:
        state = self.state
        state.budget, state.company = event.budget, event.company
        self._look_anew()
        kept = {model.name for model in event.models} - event.changed
        for name in [name for name in state.models if name not in kept]:
            state.forget(name)
        state.know(event.models)
        for name in [name for name in state.queues if name not in state.models]:
            self._hand.refuse_waiting(name, Refusal.UNKNOWN_MODEL)
            del state.queues[name]
            state.line.pop(name, None)
        for worker in state.workers.values():
            name = worker.model.name
            self._hand.charge(worker, event.charges.get(worker.id, worker.charge))
            if name in event.changed or name not in state.models:
                worker.is_stale = True
                self._hand.retire(worker, event.deadline, Cause.RELOAD)
            elif not worker.is_stale:
                worker.model = state.models[name]
