"""How the line for memory stands: the spec's rule of overtaking, walked through once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from proxy.scheduler import Demand, ModelName
from tests.scheduler.books import Books, Place, Process, less, short, summed
from tests.scheduler.rules import Way


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
    expels: frozenset[Process]  # who may not be there when it loads, and is not leaving

    @property
    def may_take(self) -> bool:
        return self.process is not None and (self.process.is_prepared or self.process.is_ready)

    @property
    def is_head(self) -> bool:
        """Whether room is to be made for it."""
        return self.is_turn and self.may_take and bool(self.lack or self.expels)


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
    hall = _Hall(books, staying)
    out = []
    for name, place in books.line.items():
        if name in absent:
            continue
        demand = books.demand(name)
        lack = short(demand, hope)
        is_let_in, in_the_way = hall.look_at(name)
        is_turn = is_let_in and lacked.isdisjoint(demand) and awaited.isdisjoint(lack)
        fits = not in_the_way and not short(demand, free)
        process = books.seat(name) or books.coming(name)
        expels = frozenset(p for p in in_the_way if not p.is_leaving or p in staying)
        standing = Standing(name, place, demand, process, is_turn, fits, lack, expels)
        free, hope = less(free, demand), less(hope, demand)
        lacked |= lack.keys()
        if not (is_turn and fits and standing.may_take):
            awaited |= demand.keys()
        out.append(standing)
    return out


class _Hall:
    """Who is there, and what those in the line make of each other."""

    def __init__(self, books: Books, staying: Collection[Process]) -> None:
        self._books = books
        self._there = books.company()
        self._staying = [p for p in self._there if not p.is_leaving or p in staying]
        self._going = {p for p in self._there if p.drains and p not in staying}
        self._growing: set[Process] = set()
        self._ways: list[Way] = []  # of those who stand before

    def look_at(self, name: ModelName) -> tuple[bool, set[Process]]:
        """Tell whether those before let the model in, and who must not be there then."""
        books, seat = self._books, self._books.seat(name)
        if books.models[name].pinned:
            return True, set()
        if seat is not None:
            self._growing.add(seat)
            return True, set()
        way = self._way(name)
        in_the_way = {p for p in self._there if p.name not in way or p.name == name}
        is_let_in = all(name in before for before in self._ways) and not (
            in_the_way & self._growing
        )
        self._ways.append(way)
        if is_let_in:
            self._going |= in_the_way
        return is_let_in, in_the_way

    def _way(self, name: ModelName) -> Way:
        """Choose the cheapest way; the listener's own understanding of which that is."""
        books, ways = self._books, self._books.rules.ways(name)

        def price(way: Way) -> tuple[float, ...]:
            out = [p for p in self._staying if p.name not in way or p.name == name]
            return (
                sum(books.rules.cost(p.name) for p in out if p not in self._going),
                len(out),
                sum(not books.is_idle(p) for p in out),
                max((max(p.idle_since, p.load_began or 0.0) for p in out), default=0.0),
                ways.index(way),
            )

        return min(ways, key=price)


def evictable(books: Books, head: Standing | None = None) -> list[Process]:
    """List who may be asked to go, for the head."""
    return [
        p
        for p in books.processes.values()
        if not books.model(p).pinned
        and (head is None or p is not head.process)
        and ((p.is_ready and not p.drains) or (p.is_loading and books.is_idle(p)))
    ]


def still_lacking(head: Standing, gone: Collection[Process]) -> Demand:
    """Tell what memory the head lacks when these have left, and all whom it expels."""
    return short(head.lack, summed(p.charge for p in {*gone, *head.expels}))


def spared_until(books: Books, process: Process, head: Standing) -> float:
    """Tell when the head's patience with a busy worker is over."""
    assert process.ready_at is not None
    rank = head.place.rank - Place(0.0, books.priority(process)).rank
    return max(rank, process.ready_at) + books.patience_s(head.name)
