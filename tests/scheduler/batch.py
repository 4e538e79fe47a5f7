"""An answer of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.scheduler import (
    Command,
    Grant,
    Load,
    ModelName,
    Prepare,
    Refuse,
    Terminate,
    TicketId,
    WorkerId,
)


@dataclass(slots=True)
class Batch:
    """The commands that answer one event, by kind."""

    prepares: dict[WorkerId, ModelName] = field(default_factory=dict)
    loads: list[WorkerId] = field(default_factory=list)
    grants: dict[TicketId, WorkerId] = field(default_factory=dict)
    refusals: dict[TicketId, Refuse] = field(default_factory=dict)
    stops: dict[WorkerId, Terminate] = field(default_factory=dict)

    @classmethod
    def of(cls, commands: list[Command]) -> Batch:
        batch = cls()
        for command in commands:
            match command:
                case Prepare(worker, name):
                    batch.prepares[worker] = name
                case Load(worker):
                    batch.loads.append(worker)
                case Grant(ticket, worker):
                    assert ticket not in batch.grants
                    batch.grants[ticket] = worker
                case Refuse(ticket):
                    assert ticket not in batch.refusals
                    batch.refusals[ticket] = command
                case Terminate(worker):
                    assert worker not in batch.stops
                    batch.stops[worker] = command
        assert not batch.grants.keys() & batch.refusals.keys()
        return batch
