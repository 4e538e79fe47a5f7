"""Bringing the state to rest: all that is due is done, and doing it again changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.scheduler.amounts import missing, total
from proxy.scheduler.eviction import choose_victims
from proxy.scheduler.hand import Hand
from proxy.scheduler.line import Turn, evictable, spared_until, turns
from proxy.scheduler.queue import Queue
from proxy.scheduler.state import Place, State, Worker
from proxy.scheduler.types import Cause, Demand, Phase, Refusal


def settle(hand: Hand, now: float) -> list[Turn]:
    """Do all that is due, until there is nothing more; return the line as it stands then."""
    while True:
        _refuse_hopeless(hand)
        _stop_due(hand, now)
        for worker in hand.state.workers.values():
            if worker.model.name in hand.state.stirred:
                hand.serve(worker, now)
        line = _lined_up(hand, now)
        if not (
            _reprieve(hand, line)
            or _use_memory(hand, line, now)
            or _shrink(hand)
            or _make_room(hand, line, now)
        ):
            return line


def _refuse_hopeless(hand: Hand) -> None:
    """Refuse those for whom there is no room any more, whoever left."""
    if hand.state.has_less_room:
        hand.state.has_less_room = False
        for queue in hand.state.queues.values():
            _refuse_unservable(hand, queue)


def _refuse_unservable(hand: Hand, queue: Queue) -> None:
    for waiting in list(queue):
        if not hand.state.is_servable(waiting.asked):
            hand.refuse(waiting.ticket, Refusal.NO_ROOM)


def _stop_due(hand: Hand, now: float) -> None:
    """End the retired, the drained, the idle, and processes that nobody waits for."""
    for worker in hand.state.workers.values():
        if worker.phase is Phase.LOADING or (worker.leases and worker.is_open):
            continue  # by far the most of them, at most times
        cause = _cause_to_stop(hand.state, worker, now)
        if cause is not None:
            hand.stop(worker, cause)


def _cause_to_stop(state: State, worker: Worker, now: float) -> Cause | None:
    if worker.phase is Phase.STOPPING:
        return None
    if worker.retire_by is not None and (not worker.leases or now >= worker.retire_by):
        return worker.retire_cause
    if worker.phase is Phase.DRAINING and not worker.leases:
        return Cause.SWAP
    expiry = state.expiry(worker)
    if expiry is not None and now >= expiry:
        return Cause.TTL
    unwanted = worker.is_coming and not state.is_wanted(worker.model.name)
    return Cause.UNWANTED if unwanted else None


def _shrink(hand: Hand) -> bool:
    """Stop idle ones while more is promised than there is; tell whether there was one."""
    state = hand.state
    if all(amount <= state.budget.get(device, 0) for device, amount in state.charged.items()):
        return False
    workers = state.workers.values()
    leaving = total(w.charge for w in workers if w.gives_back or w.phase is Phase.DRAINING)
    over = {
        device: amount - leaving.get(device, 0) - state.budget.get(device, 0)
        for device, amount in state.charged.items()
    }
    over = {device: amount for device, amount in over.items() if amount > 0}
    idle = [w for w in evictable(state) if state.is_idle(w)]
    helpful = [w for w in idle if not over.keys().isdisjoint(w.charge)]
    victims = _victims(state, helpful, [], over) or helpful
    for worker in victims:
        hand.stop(worker, Cause.OVER_BUDGET)
    return bool(victims)


def _lined_up(hand: Hand, now: float) -> list[Turn]:
    """Let those stand in line that wait for memory: who has just lost his stands last."""
    state = hand.state
    stirred = state.stirred
    for name in stirred if len(stirred) == 1 else [n for n in state.models if n in stirred]:
        known = state.line.get(name)
        if known is None and state.is_wanting(name):
            # a seat that it has just lost may have served more than there is room for now
            _refuse_unservable(hand, state.queues[name])
        if not state.is_wanting(name):
            if state.line.pop(name, None) is not None:
                hand.turns = None
            continue
        priority = state.queues[name].front.asked.priority
        since, entered = (known.since, known.entered) if known else (now, state.event_count)
        place = Place(since, entered, priority)
        if place != known:
            hand.line_up(name, place)
    state.stirred = set()
    if hand.turns is None or state.company.has_choice:  # which goes by who is busy
        hand.turns = turns(state)
    return hand.turns


def _reprieve(hand: Hand, line: list[Turn]) -> bool:
    """Let drained ones serve again whom nobody needs any more; tell whether there was one."""
    draining = hand.state.draining()
    if not draining:
        return False
    heads = [turn for turn in line if turn.is_head]
    spared: list[Worker] = []
    for worker in sorted(draining, key=lambda w: -len(w.leases)):
        rest = [w for w in draining if w is not worker and w not in spared]
        if not any(worker in head.expels or _still_lacking(head, rest) for head in heads):
            spared.append(worker)
    for worker in spared:
        hand.reprieve(worker)
    return bool(spared)


def _still_lacking(head: Turn, gone: Iterable[Worker]) -> Demand:
    """Tell what memory the head lacks when these have left, and all whom it expels."""
    return missing(head.lack, total(w.charge for w in {*gone, *head.expels}))


def _use_memory(hand: Hand, line: list[Turn], now: float) -> bool:
    """Give those whose turn it is a process, and memory as it is free; tell if anybody got it."""
    has_acted = False
    for turn in line:
        worker = turn.worker
        if worker is None:
            hand.prepare(turn.model, now)
        elif turn.fits and worker.phase is Phase.PREPARED:
            hand.load(worker, turn.demand, now)
            if hand.state.company.beside:
                return True  # who comes next may have to expel it
        elif turn.fits and worker.phase is Phase.READY:
            hand.grow(worker, turn.demand)
            return True  # it serves now, and may want to grow again before others have theirs
        else:
            continue
        has_acted = True
        if hand.state.has_less_room:
            break  # a pinned one has got more than was due to it: look anew who may hope
    return has_acted


def _make_room(hand: Hand, line: list[Turn], now: float) -> bool:
    """Let as few go as a head of the line needs, if its patience is over; tell if anybody must.

    One head at a time: who goes for it may make room for the next one too.
    """
    heads = [turn for turn in line if turn.is_head]
    draining = hand.state.draining() if heads else []
    for head in heads:
        going = _going_for(hand.state, head, draining, now)
        for worker in going:
            hand.evict(worker, head.model.name, now)
        if going:
            return True
    return False


def _going_for(state: State, head: Turn, draining: list[Worker], now: float) -> list[Worker]:
    """Choose who goes: all whom the head expels, and victims for its memory; or nobody yet."""
    expelled = [w for w in head.expels if w.phase is not Phase.DRAINING]
    need = _still_lacking(head, draining)
    if not need and not expelled:
        return []
    candidates = evictable(state, head)
    idle = [w for w in candidates if state.is_idle(w)]
    busy = [w for w in candidates if not state.is_idle(w) and now >= spared_until(state, w, head)]
    if not all(w in idle or w in busy for w in expelled):
        return []
    idle, busy = ([w for w in some if w not in expelled] for some in (idle, busy))
    victims = _victims(state, idle, busy, need)
    return [*expelled, *victims] if victims or not need else []


def _victims(state: State, idle: list[Worker], busy: list[Worker], need: Demand) -> list[Worker]:
    victims = choose_victims(
        idle,
        busy,
        need,
        charge=lambda w: w.charge,
        cost=lambda w: (state.load_s.get(w.model.name, 0.0), w.idle_since),
    )
    return list(victims)
