"""A request's place in the queue."""

from __future__ import annotations

import asyncio

from proxy.demand import RequestClass
from proxy.scheduler import Demand, ModelName, TicketId
from proxy.seat import Lease, Seat


class Ticket:
    """Waits for a seat, and knows what became of it."""

    def __init__(self, id_: TicketId, model: str, request_class: RequestClass, cause: str) -> None:
        loop = asyncio.get_running_loop()
        self.id = id_
        self.model = ModelName(model)
        self.request_class = request_class
        self.cause = cause  # of a swap for it
        self.asked_at = loop.time()
        self.seat: asyncio.Future[Seat] = loop.create_future()
        self.charge: Demand = {}  # of the worker, at the grant
        self.granted_at = 0.0
        self.is_served = False  # wholly and well: what it took is what such requests take

    async def lease(self) -> Lease:
        """Wait for the turn. Raises an error of `errors` when there is none to be had."""
        seat = await asyncio.shield(self.seat)
        queued_s = asyncio.get_running_loop().time() - self.asked_at
        loading_s = (seat.ready_at or 0.0) - max(self.asked_at, seat.load_began_at)
        return Lease(seat, queued_s, max(0.0, loading_s), self.charge, self.request_class)

    def grant(self, seat: Seat, charge: Demand) -> None:
        self.charge, self.granted_at = charge, asyncio.get_running_loop().time()
        self.seat.set_result(seat)

    def refuse(self, error: Exception) -> None:
        self.seat.set_exception(error)
        self.seat.exception()  # seen: it is no mistake when nobody asks for it

    def granted(self) -> Seat | None:
        """Give the seat that it has, or had; None: it never came to that."""
        if not self.seat.done():
            self.seat.cancel()
        if self.seat.cancelled() or self.seat.exception() is not None:
            return None
        return self.seat.result()
