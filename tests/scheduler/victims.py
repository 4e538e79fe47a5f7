"""Who goes to make room: as few as suffice, the idle first, the cheapest of those."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import combinations

from proxy.scheduler import Cause, Demand
from tests.scheduler.batch import Batch
from tests.scheduler.books import Books, Process, less, short, summed
from tests.scheduler.standing import Standing, evictable, spared_until, standings


def excess(books: Books, spared: Collection[Process] = ()) -> Demand:
    """Tell by how much more is promised than there is, when all who leave have left.

    Of those that drained, `spared` do not leave after all.
    """
    gone = [
        p.charge
        for p in books.processes.values()
        if (p.is_leaving and not p.is_stuck) or (p.drains and p not in spared)
    ]
    return short(less(books.charged(), summed(gone)), books.budget)


def check_shrinking(books: Books, batch: Batch, over: Demand, idle: Collection[Process]) -> None:
    """Check who goes because more is promised than there is; `idle` were so before."""
    shrunk = {
        books.processes[worker]
        for worker, stop in batch.stops.items()
        if stop.cause is Cause.OVER_BUDGET
    }
    others = [p for w in batch.stops if (p := books.processes[w]) not in shrunk]
    if shrunk:
        need = short(over, summed(p.charge for p in others))
        able = [p for p in idle if p not in others]
        helpful = {p for p in able if not need.keys().isdisjoint(p.charge)}
        assert shrunk in (_best(books, able, [], need) or [helpful]), "not they over budget"
    rest = excess(books)
    for process in evictable(books):
        is_helpful = not rest.keys().isdisjoint(process.charge)
        assert not (books.is_idle(process) and is_helpful), "more is promised than there is"


def check_victims(books: Books, victims: Iterable[Process], batch: Batch) -> None:
    """Check that those who stop or begin to drain make room for one head after the other."""
    left = set(victims)
    drained = {p for p in books.processes.values() if p.drains} - left
    while left:
        # who loses a seat by this stands in the line after it; before, he may have for growth
        lines = standings(books, left), standings(books, left, {victim.name for victim in left})
        heads = [standing for line in lines for standing in line if standing.is_head]
        shares = ((head, _share(books, head, left, drained)) for head in heads)
        head, share = next(((head, share) for head, share in shares if share), (None, None))
        assert head is not None, "not they, not for this"
        assert share is not None
        for victim in share & {books.processes[worker] for worker in batch.stops}:
            assert batch.stops[victim.id].made_room_for == head.name
        left -= share
        drained |= {p for p in share if p.drains}


def _share(
    books: Books, head: Standing, left: set[Process], drained: set[Process]
) -> set[Process] | None:
    """Find those of the victims that the head expels, and the best there are for its memory."""
    expelled = set(head.expels - drained)
    need = short(head.lack, summed(p.charge for p in {*drained, *expelled}))
    candidates = {*evictable(books, head), *left} - {head.process}
    assert not any(books.model(p).pinned for p in candidates)
    if not expelled <= candidates or not expelled <= left:
        return None
    idle = [p for p in candidates if books.is_idle(p)]
    busy = [p for p in candidates if p not in idle]
    late = [p for p in busy if books.now >= spared_until(books, p, head)]
    if not expelled <= {*idle, *late}:
        return None
    others = [[p for p in some if p not in expelled] for some in (idle, late)]
    ways = _best(books, *others, need) if need else [set[Process]()]
    return next((some | expelled for some in ways if some <= left), None)


def _best(
    books: Books, idle: Collection[Process], busy: Collection[Process], need: Demand
) -> list[set[Process]]:
    """List the best ways to free what is needed, equally good ones; none if there is no way."""

    def suffice(some: Iterable[Process]) -> bool:
        return not short(need, summed(p.charge for p in some))

    def price(some: Collection[Process]) -> tuple[float, ...]:
        return (
            sum(p in busy for p in some),
            round(sum(books.load_s.get(p.name, 0.0) for p in some), 6),
            sum(sum(p.charge.values()) for p in some),
            max(p.idle_since for p in some),
        )

    for pool in (idle, [*idle, *busy]):
        for count in range(1, len(pool) + 1):
            ways = [some for some in combinations(pool, count) if suffice(some)]
            if ways:
                least = min(map(price, ways))
                return [set(some) for some in ways if price(some) == least]
    return []
