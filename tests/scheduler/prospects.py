"""What those who wait are told about it."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.scheduler import ModelName, Outlook, WaitsFor
from tests.scheduler.books import Books
from tests.scheduler.standing import Standing


def check_outlooks(books: Books, line: Iterable[Standing], told: Iterable[Outlook]) -> None:
    """Check that everybody who waits is told the truth, and nobody else anything."""
    standings = {standing.name: standing for standing in line}
    by_ticket = {outlook.ticket: outlook for outlook in told}
    assert len(by_ticket) == sum(map(len, books.waiting.values()))
    for name, queue in books.waiting.items():
        standing = standings.get(name)
        waits_for = _for_a_seat(standing) if standing is not None else _for_its_turn(books, name)
        for position, waiter in enumerate(queue, 1):
            outlook = by_ticket[waiter.asked.ticket]
            assert outlook.position == position
            assert outlook.waits_for is waits_for
            assert name not in outlook.others
            assert outlook.eta_s is None or outlook.eta_s >= 0


def _for_a_seat(standing: Standing) -> WaitsFor:
    if not standing.is_turn:
        return WaitsFor.LINE
    return WaitsFor.ROOM if standing.may_take else WaitsFor.START


def _for_its_turn(books: Books, name: ModelName) -> WaitsFor:
    seat = books.seat(name)
    if seat is not None and seat.drains:
        return WaitsFor.LINE  # behind the one that it drains for
    loads = seat is not None and seat.is_loading
    return WaitsFor.LOAD if loads else WaitsFor.REQUESTS
