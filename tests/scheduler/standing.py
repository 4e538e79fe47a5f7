"""How the line for memory stands: the spec's rule of overtaking, walked through once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from proxy.scheduler import Demand, ModelName
from tests.scheduler.books import Books, Place, Process, less, short, summed


@dataclass(frozen=True, slots=True)
class Standing:
    """One model in the line."""

    name: ModelName
    place: Place
    demand: Demand
    process: Process | None  # its coming one, or the one that must grow
    is_turn: bool  # nobody before it keeps it from going on
    fits: bool  # into what is free, and not set aside for those before
    lack: Demand  # what all who are leaving will not make room for

    @property
    def may_take(self) -> bool:
        return self.process is not None and (self.process.is_prepared or self.process.is_ready)

    @property
    def is_head(self) -> bool:
        """Whether room is to be made for it."""
        return self.is_turn and self.may_take and bool(self.lack)


def standings(
    books: Books, staying: Collection[Process] = (), absent: Collection[ModelName] = ()
) -> list[Standing]:
    """Walk the line; `staying` are taken for workers that nobody has asked to leave.

    `absent` models do not stand in the line yet.
    """
    leaving = [p for p in books.processes.values() if p.is_leaving and not p.is_stuck]
    free = books.free()
    hope = summed([free, *(p.charge for p in leaving if p not in staying)])
    lacked: set[str] = set()
    awaited: set[str] = set()
    out = []
    for name, place in books.line.items():
        if name in absent:
            continue
        demand = books.demand(name)
        lack = short(demand, hope)
        is_turn = lacked.isdisjoint(demand) and awaited.isdisjoint(lack)
        fits = not short(demand, free)
        process = books.seat(name) or books.coming(name)
        standing = Standing(name, place, demand, process, is_turn, fits, lack)
        free, hope = less(free, demand), less(hope, demand)
        lacked |= lack.keys()
        if not (is_turn and fits and standing.may_take):
            awaited |= demand.keys()
        out.append(standing)
    return out


def evictable(books: Books, head: Standing | None = None) -> list[Process]:
    """List who may be asked to go, for the head."""
    return [
        p
        for p in books.processes.values()
        if not books.model(p).pinned
        and (head is None or p is not head.process)
        and ((p.is_ready and not p.drains) or (p.is_loading and books.is_idle(p)))
    ]


def spared_until(books: Books, process: Process, head: Standing) -> float:
    """Tell when the head's patience with a busy worker is over."""
    assert process.ready_at is not None
    rank = head.place.rank - Place(0.0, books.priority(process)).rank
    return max(rank, process.ready_at) + books.patience_s(head.name)
