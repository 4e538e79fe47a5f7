"""What those who wait wait for, and about how long: reckoned from measured times, never a promise.

Nothing here decides anything. Where a time was never measured, there is no estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from proxy.scheduler.line import Turn, evictable, spared_until, turns
from proxy.scheduler.queue import Waiting
from proxy.scheduler.state import State, Worker
from proxy.scheduler.types import Model, ModelName, Phase, TicketId

RETRY_LEAST_S = 1.0


class WaitsFor(Enum):
    """What has to happen next for a waiting ticket."""

    REQUESTS = "requests"  # others that the worker serves, or is to serve before
    LOAD = "load"  # the worker is loading
    START = "start"  # its process is starting
    ROOM = "room"  # somebody must leave, or give up memory
    LINE = "line"  # other models that have waited longer


@dataclass(frozen=True, slots=True)
class Outlook:
    """How things stand for one waiting ticket."""

    ticket: TicketId
    model: ModelName
    priority: int
    since: float
    position: int  # among those who wait for the model, from 1
    waits_for: WaitsFor
    others: tuple[ModelName, ...]  # whom: they must leave, or stand before it in the line
    eta_s: float | None  # until its grant


def outlooks(state: State, now: float) -> list[Outlook]:
    """Tell how things stand for everybody who waits, model by model in the line's order."""
    names = [*state.line, *(name for name in state.queues if name not in state.line)]
    waited = [name for name in names if state.queues[name]]
    known = {turn.model.name: turn for turn in turns(state)}
    out = []
    for name in waited:
        prospect = _prospect(state, state.models[name], known, now)
        queue = state.queues[name]
        out += [_outlook(state, prospect, one, place) for place, one in enumerate(queue, 1)]
    return out


def outlook_of(state: State, ticket: TicketId, now: float) -> Outlook | None:
    """Tell how things stand for one who waits; None: he does not."""
    name = state.where.get(ticket)
    queue = state.queues.get(name) if name is not None else None
    waiting = queue.get(ticket) if queue is not None else None
    if name is None or queue is None or waiting is None:
        return None
    known = {turn.model.name: turn for turn in turns(state)}
    prospect = _prospect(state, state.models[name], known, now)
    return _outlook(state, prospect, waiting, queue.position(ticket))


def next_place_s(state: State, model: Model, now: float) -> float:
    """Tell when about the model's full queue will have a place again, in seconds."""
    start_s = _start_s(state, model, now)
    served_s = state.service_s.get(model.name, 0.0) / model.concurrency
    return max(RETRY_LEAST_S, (start_s or 0.0) + served_s)


@dataclass(frozen=True, slots=True)
class _Prospect:
    """What all who wait for one model have in common."""

    model: Model
    waits_for: WaitsFor
    others: tuple[ModelName, ...]
    start_s: float | None
    served_count: int  # now


def _prospect(state: State, model: Model, known: dict[ModelName, Turn], now: float) -> _Prospect:
    seated = state.seated().get(model.name)
    waits_for, others = _obstacle(state, model, known)
    served_count = len(seated.leases) if seated is not None else 0
    return _Prospect(model, waits_for, others, _start_s(state, model, now), served_count)


def _outlook(state: State, prospect: _Prospect, waiting: Waiting, position: int) -> Outlook:
    model = prospect.model
    service_s = state.service_s.get(model.name)
    rounds = (position - 1 + prospect.served_count) // model.concurrency
    eta_s = prospect.start_s
    if eta_s is not None and rounds:
        eta_s = None if service_s is None else eta_s + rounds * service_s
    return Outlook(
        waiting.ticket,
        model.name,
        waiting.asked.priority,
        waiting.since,
        position,
        prospect.waits_for,
        prospect.others,
        eta_s,
    )


def _obstacle(
    state: State, model: Model, turns: dict[ModelName, Turn]
) -> tuple[WaitsFor, tuple[ModelName, ...]]:
    turn, seated = turns.get(model.name), state.seated().get(model.name)
    if model.name in state.line and turn is None:
        before = list(state.line)[: list(state.line).index(model.name)]
        return WaitsFor.LINE, tuple(before)
    if turn is None and seated is not None and seated.phase is Phase.DRAINING:
        head = seated.makes_room_for
        return WaitsFor.LINE, (head,) if head is not None else ()
    if turn is None:
        loads = seated is not None and seated.phase is Phase.LOADING
        return WaitsFor.LOAD if loads else WaitsFor.REQUESTS, ()
    if not turn.may_take:
        return WaitsFor.START, ()
    there = [w for w in state.workers.values() if w.is_charged and not w.model.pinned]
    named = [w.model.name for w in there if _is_in_the_way(w, turn)]
    return WaitsFor.ROOM, tuple(name for name in named if name != model.name)


def _is_in_the_way(worker: Worker, turn: Turn) -> bool:
    return worker in turn.in_the_way or not turn.demand.keys().isdisjoint(worker.charge)


def _start_s(state: State, model: Model, now: float) -> float | None:
    """Tell how long it takes until the model is ready."""
    seated = state.seated().get(model.name)
    if seated is not None and seated.phase is Phase.DRAINING:
        return None  # there and back again: who knows
    if seated is not None:
        return _load_left_s(state, seated, now)
    ahead: list[Model] = []
    for name in state.line:
        ahead.append(state.models[name])
        if name == model.name:
            break
    else:
        ahead = [model]
    loads = [state.load_s.get(one.name) for one in ahead]
    if None in loads:
        return None
    stays_s = sum(min(state.patience_s(one), _work_s(state, one)) for one in ahead[:-1])
    return sum(load_s or 0.0 for load_s in loads) + stays_s + _leaving_s(state, ahead[0], now)


def _load_left_s(state: State, worker: Worker, now: float) -> float | None:
    if worker.phase is not Phase.LOADING:
        return 0.0
    load_s = state.load_s.get(worker.model.name)
    return None if load_s is None else max(0.0, worker.load_began + load_s - now)


def _leaving_s(state: State, first: Model, now: float) -> float:
    """Tell how long those who sit will go on, before the first of the line gets their memory."""
    turn = next((turn for turn in turns(state) if turn.model is first), None)
    if turn is None or not (turn.lack or turn.expels):
        return 0.0
    stays = {
        w: min(max(0.0, spared_until(state, w, turn) - now), _work_s(state, w.model))
        for w in evictable(state, turn)
    }
    expelled = [stay_s for w, stay_s in stays.items() if w in turn.expels]
    giving = [s for w, s in stays.items() if not turn.lack.keys().isdisjoint(w.charge)]
    return max([*expelled, min(giving, default=0.0)])


def _work_s(state: State, model: Model) -> float:
    """Tell how long it takes to serve all who wait for the model, or are being served."""
    seated = state.seated().get(model.name)
    count = len(state.queues.get(model.name, ())) + (len(seated.leases) if seated else 0)
    return count * state.service_s.get(model.name, 0.0) / model.concurrency
