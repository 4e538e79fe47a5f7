"""Those who wait for one model, the foremost first."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.scheduler.types import Arrived, TicketId

PRIORITY_S = 10.0
"""What one point of priority is worth: it counts as so many seconds of waiting.

So a higher priority goes first, and still nobody starves: who has waited longer by that much more
goes before it.
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket without a grant."""

    asked: Arrived
    since: float
    place: tuple[float, int]  # in the queue's order; of equals, who came first

    @property
    def ticket(self) -> TicketId:
        return self.asked.ticket


class Queue:
    """The waiting tickets of one model, ordered by arrival and priority."""

    __slots__ = ("_by_ticket", "_count", "_places")

    def __init__(self) -> None:
        self._places: list[tuple[tuple[float, int], TicketId]] = []
        self._by_ticket: dict[TicketId, Waiting] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, ticket: TicketId) -> bool:
        return ticket in self._by_ticket

    def __iter__(self) -> Iterator[Waiting]:
        return (self._by_ticket[ticket] for _, ticket in self._places)

    @property
    def front(self) -> Waiting:
        return self._by_ticket[self._places[0][1]]

    def position(self, ticket: TicketId) -> int:
        """Count from 1, in the order in which they will be served. Raises KeyError."""
        return bisect_left(self._places, (self._by_ticket[ticket].place, ticket)) + 1

    def get(self, ticket: TicketId) -> Waiting | None:
        return self._by_ticket.get(ticket)

    def push(self, asked: Arrived, now: float) -> None:
        self._count += 1
        place = (now - PRIORITY_S * asked.priority, self._count)
        self._by_ticket[asked.ticket] = Waiting(asked, now, place)
        insort(self._places, (place, asked.ticket))

    def remove(self, ticket: TicketId) -> Waiting:
        """Take the ticket out. Raises KeyError."""
        waiting = self._by_ticket.pop(ticket)
        del self._places[bisect_left(self._places, (waiting.place, ticket))]
        return waiting
