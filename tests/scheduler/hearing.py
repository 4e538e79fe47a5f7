"""What each event means for the books, and who has to be refused because of it."""

from __future__ import annotations

from dataclasses import replace

from proxy.scheduler import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Cause,
    Ended,
    Event,
    Exited,
    Left,
    Measured,
    Prepared,
    Refusal,
    Reloaded,
    ShutdownAsked,
    Stuck,
    TicketId,
    UnloadAsked,
)
from tests.scheduler.books import Books, Process

Due = dict[TicketId, set[Refusal]]
"""Who is to be refused, and for one of which reasons."""


def hear(books: Books, event: Event) -> Due:  # noqa: C901, PLR0911, PLR0912  # a line each
    """Note what happened; tell who is to be refused now."""
    books.events_count += 1
    known = books.processes
    match event:
        case Arrived():
            reasons = _reasons_to_refuse(books, event)
            if reasons:
                return {event.ticket: reasons}
            books.wait(event)
        case Left(ticket):
            books.leave(ticket)
        case Prepared(worker) if worker in known:
            known[worker].is_prepared = True
        case BecameReady(worker) if worker in known and known[worker].is_loading:
            books.become_ready(known[worker])
        case Ended(worker, out_of_memory) if worker in known:
            return _ended(books, known[worker], out_of_memory=out_of_memory)
        case Exited(worker, out_of_memory) if worker in known:
            due = _ended(books, known[worker], out_of_memory=out_of_memory)
            del known[worker]
            books.gone.append(worker)
            return due
        case Stuck(worker) if worker in known:
            known[worker].is_stuck = known[worker].is_told_to_stop
        case Measured():
            books.measure(event)
        case BudgetChanged(budget):
            books.budget = budget
        case Reloaded():
            return {ticket: {Refusal.UNKNOWN_MODEL} for ticket in books.reload(event)}
        case UnloadAsked(name, deadline):
            mine = [p for p in known.values() if name in (None, p.name)]
            due = {
                waiter.asked.ticket: {Refusal.UNLOADED}
                for process in mine
                if process.ready_at is None and not process.is_told_to_stop
                for waiter in books.waiting[process.name]
            }
            books.retire(mine, deadline, Cause.UNLOAD)
            return due
        case ShutdownAsked(deadline):
            books.is_shutting_down = True
            books.retire(known.values(), deadline, Cause.SHUTDOWN)
            waiters = [w for queue in books.waiting.values() for w in queue]
            return {w.asked.ticket: {Refusal.SHUTTING_DOWN} for w in waiters}
    return {}


def _reasons_to_refuse(books: Books, asked: Arrived) -> set[Refusal]:
    name = asked.model
    if name not in books.models:
        return {Refusal.UNKNOWN_MODEL}
    reasons = {
        Refusal.SHUTTING_DOWN: books.is_shutting_down,
        Refusal.NO_ROOM: not books.is_servable(asked),
        Refusal.COOLING_DOWN: name in books.cooling and books.now < books.cooling[name][0],
        Refusal.QUEUE_FULL: len(books.waiting[name]) >= books.models[name].queue_limit,
    }
    return {reason for reason, holds in reasons.items() if holds}


def _ended(books: Books, process: Process, *, out_of_memory: bool) -> Due:
    """Note that a process is over; what it held stays charged until it has exited."""
    if process.is_seated:
        books.line.pop(process.name, None)
    was_told, process.is_told_to_stop = process.is_told_to_stop, True
    if was_told or process.ready_at is not None:
        return {}
    front = books.front(process.name)
    if out_of_memory and front is not None and _may_do_better_alone(books, process):
        assert process.place is not None
        books.alone.add(process.name)
        books.line[process.name] = replace(process.place, priority=front.asked.priority)
        return {}
    books.cool_down(process.name)
    books.alone.discard(process.name)
    waiters = books.waiting[process.name]
    return {waiter.asked.ticket: {Refusal.START_FAILED} for waiter in waiters}


def _may_do_better_alone(books: Books, process: Process) -> bool:
    """Tell whether it loaded beside others who could have left."""
    devices = process.charge.keys()
    return not process.is_alone and any(
        not (books.model(other).pinned or other.is_stuck or devices.isdisjoint(other.charge))
        for other in books.processes.values()
        if other is not process
    )
