"""Who runs now, who waits, who is evicted: decisions only, no I/O and no clock.

Events go in, commands come out: ``handle(event, now) -> [command, …]``. After every event one
settling brings the whole state to rest, so there is no logic per event to forget, and settling
twice says nothing new.

**Workers.** A worker's way: PREPARING (a process, its imports, cheap checks of its files: no
device memory) → PREPARED → LOADING → READY ⇄ DRAINING → STOPPING → gone. What it demands is
charged from LOADING until it has exited and its memory is seen free, whatever the phase: that one
rule keeps a device from being promised twice. Nobody is drained for a worker before that worker
is PREPARED: a model whose files are broken costs the seated one nothing.

**Memory.** A demand is so much of each device it touches: bytes of a GPU or of the host, or the
one seat. A model demands its own to load, and a request may demand more than that (a larger
picture): then the worker's charge grows before the grant. A charge is corrected when the worker
is measured. A model that demands nothing takes nothing from anyone and may always load. Who could
not have his memory though everyone left who can (pinned ones stay, and what stuck workers hold
stays lost) is refused at once, whenever that becomes so.

**The line.** Who waits for memory stands in a line: since its first waiter came, or since it lost
its seat, so that a backlog does not take back what it was drained of. A point of priority counts
as PRIORITY_S of waiting, which orders the line and each model's own queue. Nobody overtakes who
stands before him: who comes later may only have what those before him leave over, and nothing of
a device on which one of them lacks something. Requests for a model that is READY need no memory,
and go on: a seated model serves until it falls idle, or until who needs its memory has waited for
its patience (counted anew when a seated model becomes ready, so that every load serves somebody).
Then it drains, and its requests queue.

**Company.** There may be rules who sits beside whom, of groups or of sets that may be there at
once. They count when a model loads, whoever comes after it, and never for a pinned one, which
expels nobody and is expelled by nobody. Who may not be there leaves as if its memory were needed,
all at once, and the load waits for that; only then victims are chosen for the memory that is still
missing. Of several sets the one is chosen that costs those who are there least, and who leaves
anyway costs nothing. Nobody loads whom somebody before him in the line would expel, or who expels
somebody there who stands in it. A request for a model that is READY expels nobody, whatever came
to sit beside it since. Who is stuck is no company any more: it serves nobody, and as far as its
memory is counted it stays charged.

**Victims.** Idle before busy, as few as make enough room, those that are the quickest to bring
back, then the least memory, then the least recently used; never a pinned one; never one with a
lease: it drains. When more is promised than there is (the budget shrank, a worker holds more than
was thought), idle ones go.

**Failures.** A load that runs out of memory beside others is tried once more alone, in its old
place of the line. Any other failed start refuses who waits, and cools down: 1 s, doubling to 60
s. A worker that ends unasked serves nobody any more, but stays charged until its memory is seen
free. What a model is feared to need, as less was not enough, it gets as far as there is room; it
is never refused for it.
"""

from proxy.scheduler.amounts import larger, missing, total
from proxy.scheduler.company import Group, by_groups, by_sets
from proxy.scheduler.core import Scheduler
from proxy.scheduler.forecast import Outlook, WaitsFor, outlook_of, outlooks
from proxy.scheduler.queue import PRIORITY_S
from proxy.scheduler.state import State, Worker
from proxy.scheduler.types import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Cause,
    Command,
    Company,
    Demand,
    Device,
    Ended,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Measured,
    Model,
    ModelName,
    Phase,
    Prepare,
    Prepared,
    Refusal,
    Refuse,
    Reloaded,
    ShutdownAsked,
    Stuck,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)

__all__ = [
    "PRIORITY_S",
    "Arrived",
    "BecameReady",
    "BudgetChanged",
    "Cause",
    "Command",
    "Company",
    "Demand",
    "Device",
    "Ended",
    "Event",
    "Exited",
    "Grant",
    "Group",
    "Left",
    "Load",
    "Measured",
    "Model",
    "ModelName",
    "Outlook",
    "Phase",
    "Prepare",
    "Prepared",
    "Refusal",
    "Refuse",
    "Reloaded",
    "Scheduler",
    "ShutdownAsked",
    "State",
    "Stuck",
    "Terminate",
    "TicketId",
    "UnloadAsked",
    "WaitsFor",
    "WakeAt",
    "Woke",
    "Worker",
    "WorkerId",
    "by_groups",
    "by_sets",
    "larger",
    "missing",
    "outlook_of",
    "outlooks",
    "total",
]
