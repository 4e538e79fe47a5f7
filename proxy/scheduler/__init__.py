"""Who runs now, who waits, who is evicted: decisions only, no I/O and no clock.

Events go in, commands come out: ``handle(event, now) -> [command, …]``. After every event one
settling brings the whole state to rest, so there is no logic per event to forget, and settling
twice says nothing new.

A worker's way: PREPARING (a process, its imports, cheap checks of its files: no device memory)
→ PREPARED → LOADING → READY ⇄ DRAINING → STOPPING → gone. What it demands is charged from LOADING
until it has exited, whatever the phase: that one rule keeps the device from being promised twice.
Nobody is drained for a worker before that worker is PREPARED: a model whose files are broken
costs the seated one nothing.

The **head** is the model that has waited longest without a seat: since its first waiter came, or
since it lost its seat, so that a backlog does not take back what it was drained of. Nobody
overtakes it, except requests for a model that is READY: a seated model goes on serving until it
falls idle, or until the head has waited for `patience_s` (counted anew when a seated model becomes
ready, so that every load serves somebody). Then it drains, and its requests queue behind the head.

Demand and budget are in one unit, whichever the caller chose: seats (a budget of 1, every
unpinned model demands 1) or bytes. A model that demands 0 takes nothing from anyone and may always
load.
"""

from proxy.scheduler.core import Scheduler
from proxy.scheduler.state import Worker
from proxy.scheduler.types import (
    Arrived,
    BecameReady,
    Command,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Model,
    ModelName,
    Phase,
    Prepare,
    Prepared,
    Refusal,
    Refuse,
    ShutdownAsked,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)

__all__ = [
    "Arrived",
    "BecameReady",
    "Command",
    "Event",
    "Exited",
    "Grant",
    "Left",
    "Load",
    "Model",
    "ModelName",
    "Phase",
    "Prepare",
    "Prepared",
    "Refusal",
    "Refuse",
    "Scheduler",
    "ShutdownAsked",
    "Terminate",
    "TicketId",
    "UnloadAsked",
    "WakeAt",
    "Woke",
    "Worker",
    "WorkerId",
]
