"""What the scheduler is told and what it says: values, and nothing that acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType, TypeAlias

ModelName = NewType("ModelName", str)
TicketId = NewType("TicketId", int)  # one per request
WorkerId = NewType("WorkerId", int)  # one per process, never reused: a late event finds nobody
Device = NewType("Device", str)  # what is scarce: a GPU's memory, the host's, or the one seat

Demand: TypeAlias = Mapping[Device, int]
"""How much of which device: bytes, or seats. A device that is not named is not touched."""


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
    NO_ROOM = "no_room"
    UNLOADED = "unloaded"
    SHUTTING_DOWN = "shutting_down"


class Cause(Enum):
    """Why a worker has to go."""

    SWAP = "swap"  # another model needs its memory
    TTL = "ttl"
    UNLOAD = "unload"
    UNWANTED = "unwanted"  # nobody waits for it any more
    OVER_BUDGET = "over_budget"  # the budget shrank, or it holds more than was thought
    RELOAD = "reload"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Model:
    """What the scheduler needs to know of a model, and no more."""

    name: ModelName
    demand: Demand = field(default_factory=dict)  # to be loaded, and to serve a plain request
    loads_alone: bool = False  # how much it needs is not known: it gets all there is room for
    feared: Demand = field(default_factory=dict)  # it may need so much: a wish, as far as there is
    concurrency: int = 1
    ttl_s: float = 0.0  # 0: never unloaded for being idle
    patience_s: float | None = None  # None: by its own load time
    queue_limit: int = 1000
    pinned: bool = False
    load_s: float | None = None  # measured in an earlier life
    service_s: float | None = None  # likewise, of a request


@dataclass(frozen=True, slots=True)
class Company:
    """Who may be seated beside whom; without rules anybody, as far as there is memory."""

    beside: Mapping[ModelName, tuple[frozenset[ModelName], ...]] = field(default_factory=dict)
    """For each model the sets of others, one of which may stay when it loads."""
    evict_costs: Mapping[ModelName, int] = field(default_factory=dict)  # else 1

    @property
    def has_choice(self) -> bool:
        return any(len(ways) > 1 for ways in self.beside.values())


# What happened.


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request wants the model.

    `priority` counts as so many times PRIORITY_S of waiting. `demand` is what the worker must hold
    to serve it, where that is more than the model's own. `keep_alive_s` replaces the model's ttl
    from this request on; infinite: stay.
    """

    ticket: TicketId
    model: ModelName
    priority: int = 0
    demand: Demand = field(default_factory=dict)
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """The request is done, or gone; before or after its grant."""

    ticket: TicketId
    was_served: bool = True  # wholly: the time it took is what such requests take


@dataclass(frozen=True, slots=True)
class Prepared:
    """The worker's process is up and its files look sound."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The worker has loaded its model and serves."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker's process is over, unasked; what it held may still be away until `Exited`."""

    worker: WorkerId
    out_of_memory: bool = False  # as far as it said why it did not get ready


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker's process is reaped, and its memory is seen free."""

    worker: WorkerId
    out_of_memory: bool = False  # as far as it said why it did not get ready


@dataclass(frozen=True, slots=True)
class Stuck:
    """The worker was told to stop, and what it held does not come back; `Exited` may yet come."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Measured:
    """The worker is known to hold this, or to have held it at its peak.

    `model_demand` is what its model is from now on known to demand, and `model_feared` what it is
    feared to need: it need not load alone.
    """

    worker: WorkerId
    charge: Demand
    model_demand: Demand
    model_feared: Demand = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """There is more to be had, or less: others use the devices too."""

    budget: Demand


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The config is another one now; workers of `changed` models are not theirs any more.

    Those, and the ones of models that are gone, finish what they serve, by the deadline. `charges`
    are of workers that count otherwise from now on.
    """

    models: tuple[Model, ...]
    budget: Demand
    changed: frozenset[ModelName]
    deadline: float
    company: Company = field(default_factory=Company)
    charges: Mapping[WorkerId, Demand] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """Somebody wants the model (None: every model) gone, running requests or not, by then.

    Who waits for one that is still coming gets nothing; else it would come again at once.
    """

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
    Arrived
    | Left
    | Prepared
    | BecameReady
    | Ended
    | Exited
    | Stuck
    | Measured
    | BudgetChanged
    | Reloaded
    | UnloadAsked
    | ShutdownAsked
    | Woke
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
    cause: Cause
    made_room_for: ModelName | None = None  # of a SWAP


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send Woke at that time; replaces the one before. None: no need."""

    when: float | None


Command: TypeAlias = Prepare | Load | Grant | Refuse | Terminate | WakeAt
