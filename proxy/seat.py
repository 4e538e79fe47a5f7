"""A worker as the pool sees it: its process, its story, and the orders that it waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.process import Process
from proxy.scheduler import ModelName, WorkerId

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Seat:
    """One worker, from the first order to the last. Times are the loop's, in seconds."""

    id: WorkerId
    model: ModelName
    process: Process
    asked_at: float
    prepared_at: float = 0.0
    load_began_at: float = 0.0
    ready_at: float | None = None
    stop_began_at: float | None = None
    may_load: asyncio.Event = field(default_factory=asyncio.Event)
    must_stop: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def order_load(self, now: float) -> None:
        self.load_began_at = now
        self.may_load.set()

    def order_stop(self, now: float) -> None:
        self.stop_began_at = now
        self.must_stop.set()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a worker for one request; no promise that its process lives."""

    seat: Seat
    queued_s: float  # from asking to the grant, loading included
    loading_s: float  # the part of it that the worker spent loading


@dataclass(frozen=True, slots=True)
class Running:
    """What /running tells of a worker."""

    model: ModelName
    state: str  # starting, ready, stopping: llama-swap's words
    process: Process
    facts: Mapping[str, Any]  # what the worker said of itself when it got ready
    uptime_s: float | None
    idle_s: float | None


@dataclass(frozen=True, slots=True)
class Departure:
    """A worker that has gone, and what its stop took."""

    model: ModelName
    at: float
    stop_s: float


def tell_swap(seat: Seat, departures: Sequence[Departure]) -> None:
    """Log who came, for whom, and what each part of it took, in seconds.

    start: process up, files checked, imports done · wait: until the memory was free, stop within
    it · load: until ready.
    """
    ready_at = seat.ready_at or seat.load_began_at
    left = [d for d in departures if d.at >= seat.asked_at]
    log.info(
        "swap",
        extra={
            "came": seat.model,
            "left": ",".join(d.model for d in left) or "nobody",
            "start_s": seat.prepared_at - seat.asked_at,
            "wait_s": seat.load_began_at - seat.prepared_at,
            "stop_s": max((d.stop_s for d in left), default=0.0),
            "load_s": ready_at - seat.load_began_at,
            "total_s": ready_at - seat.asked_at,
        },
    )
