"""What the scheduler is told and what it says: values, and nothing that acts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType, TypeAlias

ModelName = NewType("ModelName", str)
TicketId = NewType("TicketId", int)  # one per request
WorkerId = NewType("WorkerId", int)  # one per process, never reused: a late event finds nobody


class Phase(Enum):
    """Where a worker is on its way; an absent one is no object at all."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


class Refusal(Enum):
    """Why a ticket gets no lease."""

    UNKNOWN_MODEL = "unknown_model"
    QUEUE_FULL = "queue_full"
    START_FAILED = "start_failed"
    COOLING_DOWN = "cooling_down"
    NEVER_FITS = "never_fits"
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True)
class Model:
    """What the scheduler needs to know of a model, and no more."""

    name: ModelName
    demand: int = 1
    concurrency: int = 1
    ttl_s: float = 0.0  # 0: never unloaded for being idle
    patience_s: float = 5.0
    queue_limit: int = 1000
    pinned: bool = False


# What happened.


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request wants the model."""

    ticket: TicketId
    model: ModelName


@dataclass(frozen=True, slots=True)
class Left:
    """The request is done, or gone; before or after its grant."""

    ticket: TicketId


@dataclass(frozen=True, slots=True)
class Prepared:
    """The worker's process is up and its files look sound."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The worker has loaded its model and serves."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker's process is reaped, and its memory is seen free."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """Somebody wants the model (None: every model) gone, running requests or not, by then."""

    model: ModelName | None
    deadline: float


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """No more requests; running ones may go on until the deadline."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Woke:
    """The time of the last WakeAt has come."""


Event: TypeAlias = (
    Arrived | Left | Prepared | BecameReady | Exited | UnloadAsked | ShutdownAsked | Woke
)


# What to do about it.


@dataclass(frozen=True, slots=True)
class Prepare:
    """Start a process for the model; it must not touch the device yet."""

    worker: WorkerId
    model: ModelName


@dataclass(frozen=True, slots=True)
class Load:
    """Let the prepared worker load: its memory is free, and charged from now on."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket may use the worker, until it has Left."""

    ticket: TicketId
    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Refuse:
    """The ticket gets nothing; asking again makes sense after `retry_after_s`, if at all."""

    ticket: TicketId
    why: Refusal
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the worker's process."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send Woke at that time; replaces the one before. None: no need."""

    when: float | None


Command: TypeAlias = Prepare | Load | Grant | Refuse | Terminate | WakeAt
