"""All jobs, the tasks of those that go on without their clients, and looks at how far they are.

Whose client stays is known while it runs. Whose client may leave is known, with its answer, for as
long as its shelf keeps things.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.config import JobsConfig, Owner
from proxy.errors import BadRequest, NotFound, QueueFull
from proxy.forward import Errand
from proxy.jobs.job import Job, JobId
from proxy.jobs.progress import ask
from proxy.jobs.shelf import Shelf
from proxy.seat import Seat

log = logging.getLogger(__name__)

HEADER = "X-Hotseat-Job"
"""Names a job: to its worker, to its client, and by a client who wants to name it himself."""
LOOK_EACH_S = 0.5
"""A worker tells how far it is only when it is asked; a step takes about that long."""
MOST_OVER = 1000
TOKEN_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Jobs:
    """Use as an async context; leaving it cancels what still runs."""

    def __init__(
        self,
        folder: Path,
        bounds: Callable[[], JobsConfig],
        tell: Callable[[Job], None],
        is_heard: Callable[[], bool],
    ) -> None:
        """`tell` is called when a job has changed; `is_heard` says whether anybody would know.

        Answers lie in `folder`; `bounds` are asked for anew each time, as they may change.
        """
        self.shelf = Shelf(folder, bounds)
        self._bounds = bounds
        self._tell = tell
        self._is_heard = is_heard
        self._jobs: dict[JobId, Job] = {}
        self._apart: set[asyncio.Task[None]] = set()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._apart:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)
        self.shelf.clear()

    def __iter__(self) -> Iterator[Job]:
        """Give them, oldest first; they may end meanwhile."""
        self._forget()
        return iter([*self._jobs.values()])

    def begin(
        self, errand: Errand, owner: Owner | None, *, is_remote: bool, name: str | None = None
    ) -> Job:
        """Take note of a request, which is told its name; `end` must follow. Raises BadRequest."""
        job_id = JobId(secrets.token_urlsafe(TOKEN_BYTES) if name is None else name)
        if not _NAME.fullmatch(job_id):
            told = f"{HEADER}: a name has 1 to 64 letters, digits, hyphens and underscores"
            raise BadRequest(told, param=HEADER, code="invalid_value")
        if job_id in self._jobs:
            told = f"there is a job {job_id} already: name this one otherwise, or not at all"
            raise BadRequest(told, param=HEADER, code="job_exists")
        job = Job(job_id, errand.model_id, errand.request.path, is_remote, errand, owner)
        errand.marks = {**errand.marks, HEADER: job_id}
        self._jobs[job_id] = job
        self._tell(job)
        return job

    def end(self, job: Job) -> None:
        """Let go of a request; its answer, if it is kept, is there for a while."""
        job.end()
        if job.answer is None:
            self._jobs.pop(job.id, None)
        else:
            job.expires_at = time.time() + self.shelf.keep_s
            self.shelf.keep(job.id, job.answer)
        self._forget()
        self._tell(job)

    def find(self, name: str, sees: Callable[[Owner | None], bool]) -> Job:
        """Find one by its name, if `sees` lets its owner through. Raises NotFound."""
        self._forget()
        job = self._jobs.get(JobId(name))
        if job is None or not sees(job.owner):
            kept_s = f"{self.shelf.keep_s:g}"
            told = f"no such job: there never was one, or it has been over for {kept_s} s"
            raise NotFound(told, code="job_not_found")
        return job

    def drop(self, job: Job) -> None:
        """Forget a job that is over, and its answer; another may have its name by now."""
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]
            self.shelf.drop(job.id)

    def see_room(self) -> None:
        """Raise QueueFull when no more jobs may go on without their clients."""
        if len(self._apart) >= (most := self._bounds().max_pending):
            told = f"{most} jobs are under way already; wait for one of them (jobs.maxPending)"
            raise QueueFull(told, retry_after_s=LOOK_EACH_S)

    def run_apart(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, whoever leaves."""
        task = self._tasks.create_task(_by_itself(work))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    @contextmanager
    def followed(self, job: Job, seat: Seat) -> Iterator[None]:
        """Look how far the job is, again and again, for the length of the block."""
        self._tell(job)
        task = self._tasks.create_task(_by_itself(partial(self._follow, job, seat)))
        try:
            yield
        finally:
            task.cancel()

    async def look(self, job: Job) -> None:
        """Ask now how far the job is, and tell of it if that has changed."""
        seat = job.seat
        if seat is None or seat.settings.kind == "cmd":
            return
        progress = (await ask(seat)).get(job.id, job.progress)
        if progress is not None and not job.is_shown:
            progress = replace(progress, preview=None)
        if progress != job.progress:
            job.progress = progress
            self._tell(job)

    async def _follow(self, job: Job, seat: Seat) -> None:
        while seat.settings.kind != "cmd":
            await asyncio.sleep(LOOK_EACH_S)  # nothing tells of a step unasked
            if self._is_heard():
                await self.look(job)

    def _forget(self) -> None:
        """Forget what is over and not on the shelf any more, and the oldest of too many."""
        over = [job for job in self._jobs.values() if job.is_over]
        for job in over[: max(0, len(over) - MOST_OVER)]:
            self.drop(job)
        for job in over:
            if self.shelf.find(job.id) is None:
                self._jobs.pop(job.id, None)


async def _by_itself(work: Callable[[], Awaitable[None]]) -> None:
    """Let what breaks here break nothing else: all tasks of a group end with one that fails."""
    try:
        await work()
    except Exception:  # the top of a life of its own
        log.exception("job_broke")
