"""One request for pictures, from its place in the queue to the end of its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType

from proxy.config import Owner
from proxy.errors import Cancelled
from proxy.forward import CLIENT_LEFT, ERROR_STATUS, Errand
from proxy.jobs.answer import KeptAnswer
from proxy.jobs.progress import Progress
from proxy.scheduler import TicketId
from proxy.seat import Seat

JobId = NewType("JobId", str)


class JobState(StrEnum):
    """Where a job is; the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Job:
    """What is known of it; its owner is `Jobs`."""

    id: JobId
    model_id: str
    path: str
    is_remote: bool  # a peer answers it: nothing is known of its turn
    errand: Errand | None  # None: it is over
    owner: Owner | None = None  # whose key made it; None: there were no keys
    answer: KeptAnswer | None = None  # None: it goes to the client who waits for it
    progress: Progress | None = None
    is_shown: bool = True  # before it is done: else its previews are for nobody
    created_at: float = field(default_factory=time.time)  # by the wall clock, as the next one
    ended_at: float | None = None
    expires_at: float | None = None  # its answer is kept until then
    outcome: JobState | None = None
    why: str = ""  # it failed

    @property
    def is_over(self) -> bool:
        return self.outcome is not None

    @property
    def ticket(self) -> TicketId | None:
        """Name its place in the queue; it may be past that."""
        return self.errand.ticket if self.errand is not None else None

    @property
    def seat(self) -> Seat | None:
        """Tell which worker has it now, as far as one has."""
        if self.errand is None or not self.errand.leases:
            return None
        return self.errand.leases[-1].seat

    def end(self) -> None:
        """See what came of it, and let go of the request."""
        if self.errand is not None and self.outcome is None:
            sent, self.errand = self.errand.sent, None
            is_cut = sent.is_cut or (self.answer is not None and self.answer.is_cut)
            if self.answer is not None:
                self.why = self.why or self.answer.why
            if self.progress is not None:
                self.progress = replace(self.progress, preview=None)  # it is large
            self.ended_at = time.time()
            self.outcome = _outcome(sent.status, is_cut=is_cut)


def _outcome(status: int, *, is_cut: bool) -> JobState:
    if status in (CLIENT_LEFT, Cancelled.status):
        return JobState.CANCELLED
    return JobState.FAILED if is_cut or status >= ERROR_STATUS or not status else JobState.DONE
