"""A worker as the pool sees it: its process, its story, and the orders that it waits for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.config import ModelConfig
from proxy.demand import RequestClass
from proxy.memory import Held
from proxy.process import Process
from proxy.scheduler import Demand, Device, ModelName, Terminate, WorkerId
from proxy.setup import Setup
from proxy.swaps import Swap


@dataclass(slots=True, eq=False)
class Seat:
    """One worker, from the first order to the last. Times are the loop's, in seconds."""

    id: WorkerId
    model: ModelName
    setup: Setup  # the newest that knows its model as it runs here
    process: Process
    asked_at: float
    swap: Swap
    tell_swap: Callable[[Swap], None]
    forerunners: Sequence[Seat] = ()  # leaving, and in its way as long as they are there
    prepared_at: float = 0.0
    load_began_at: float = 0.0
    ready_at: float | None = None
    stop_began_at: float | None = None
    may_load: asyncio.Event = field(default_factory=asyncio.Event)
    must_stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # its process
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # and what that held
    order: Terminate | None = None
    drain_s: float = 0.0
    is_stuck: bool = False  # its process or its memory does not go away
    facts: Mapping[str, Any] = field(default_factory=dict)
    pids: frozenset[int] = frozenset()
    pids_at: float = -math.inf
    held: tuple[Held, ...] = ()  # of the GPUs, at the last look
    peaks: dict[Device, int] = field(default_factory=dict)  # of the GPUs
    classes: set[RequestClass] = field(default_factory=set)  # of requests that it has served
    served_count: int = 0  # requests that it serves now

    @property
    def settings(self) -> ModelConfig:
        return self.setup.config.models[self.model]

    @property
    def start_s(self) -> float:
        """How long it may take to get ready."""
        return self.setup.config.start_timeout_s(self.settings)

    @property
    def grace_s(self) -> float:
        """How long it may take to end, from SIGTERM to SIGKILL."""
        return self.setup.config.grace_s(self.settings)

    @property
    def is_moving(self) -> bool:
        """Is taking memory, or giving it back: what it holds cannot be told."""
        if self.stop_began_at is not None:
            return not self.is_stuck
        return self.may_load.is_set() and self.ready_at is None

    def order_load(self, now: float) -> None:
        self.load_began_at = now
        self.may_load.set()

    def order_stop(self, order: Terminate, now: float, drain_s: float) -> None:
        self.order, self.stop_began_at, self.drain_s = order, now, drain_s
        self.must_stop.set()

    def note_first_byte(self, now: float) -> None:
        """Note that an answer has begun; the first one ends the story of the swap."""
        if not self.swap.is_told and self.ready_at is not None:
            self.swap.first_byte_s = now - self.ready_at
            self.tell_swap(self.swap)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a worker for one request; no promise that its process lives."""

    seat: Seat
    queued_s: float  # from asking to the grant, loading included
    loading_s: float  # the part of it that the worker spent loading
    charge: Demand  # what the worker was thought to need
    request_class: RequestClass

    @property
    def was_swapped_in(self) -> bool:
        """Tell whether the model came to its seat while this one waited."""
        return self.loading_s > 0


@dataclass(frozen=True, slots=True)
class Running:
    """What /running tells of a worker."""

    model: ModelName
    state: str  # starting, ready, stopping: llama-swap's words
    process: Process
    facts: Mapping[str, Any]  # what the worker said of itself when it got ready
    uptime_s: float | None
    idle_s: float | None
    charge: Demand
    settings: ModelConfig  # as it runs: the config may have lost the model meanwhile
    ttl_s: float
