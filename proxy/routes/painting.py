"""Requests for pictures: each is a job; some go on without their clients, or answer with links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from proxy.config import OutputConfig
from proxy.errors import BadRequest, HotseatError, NotKept, ShuttingDown
from proxy.forward import Errand, forward
from proxy.jobs import Job, Jobs, KeptAnswer, linked
from proxy.jobs.jobs import HEADER
from proxy.routes import access, paths
from proxy.routes.jobs import JOBS, accepted
from proxy.routes.middleware import render
from proxy.routes.results import hand_over
from proxy.routes.safety import output_of, see_it_may_leave
from proxy.routes.serving import Run, attempt_twice, serve
from proxy.seat import Seat

log = logging.getLogger(__name__)

ASYNC = "async"
_YES, _NO = frozenset({"", "1", "true", "yes"}), frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a client wants to be answered."""

    is_async: bool  # at once, with the name of the job
    stays: bool  # the job ends with its client
    links: str | None  # what links to the pictures begin with; None: as the worker has them


@dataclass(frozen=True, slots=True)
class _Work:
    """A job whose answer is kept."""

    errand: Errand
    job: Job
    answer: KeptAnswer
    how: Run
    manner: _Manner
    output: OutputConfig | None  # judges its pictures before anybody sees them

    def fail(self, error: HotseatError) -> None:
        """Let the error be the answer."""
        self.errand.sent.status = error.status
        face = render(error)
        raw = face.body if isinstance(face.body, bytes) else b""
        headers = {**face.headers, HEADER: self.job.id}
        self.answer.fill(face.status, face.reason, headers, raw)
        self.job.why = error.message


async def paint(
    errand: Errand, run: Run | None, first: Callable[[Run], Run], held: ExitStack
) -> web.StreamResponse:
    """Serve a request for pictures in the manner that it wishes. Raises BadRequest, QueueFull.

    `run` is how, for who has no worker of ours; `first` puts before that what has to be done;
    `held` is what the request needs to the end.
    """
    jobs, manner = errand.request.app[JOBS], _manner_of(errand)
    if not manner.stays:
        jobs.see_room()
    errand.path = paths.without(errand.path, ASYNC)
    job = _begun(jobs, errand, is_remote=run is not None)
    how = first(run or partial(attempt_twice, carry=partial(_followed, jobs, job)))
    output = output_of(errand)
    is_changed = manner.links is not None or output is not None
    if manner.stays and not is_changed:
        try:
            return await serve(errand, how)
        finally:
            jobs.end(job)
    answer = jobs.shelf.new(job.id, is_held_back=is_changed)
    job.answer = errand.outlet = answer
    job.is_shown = output is None
    work = _Work(errand, job, answer, how, manner, output)
    if not manner.stays:
        jobs.run_apart(partial(_do, work, held.pop_all()))
        if manner.is_async:
            return accepted(errand.request, job)
        return await hand_over(errand.request, answer, errand.stall_s)
    try:
        await _do(work, ExitStack())
        return await hand_over(errand.request, answer, errand.stall_s)
    finally:
        jobs.drop(job)


def _begun(jobs: Jobs, errand: Errand, *, is_remote: bool) -> Job:
    request = errand.request
    name = request.headers.get(HEADER)
    return jobs.begin(errand, access.owner_of(request), is_remote=is_remote, name=name)


async def _followed(jobs: Jobs, job: Job, errand: Errand, seat: Seat) -> web.StreamResponse:
    with jobs.followed(job, seat):
        return await forward(errand, seat)


async def _do(work: _Work, held: ExitStack) -> None:
    """Serve into the answer, whatever comes of it; cancelling is the one thing that passes."""
    errand, answer = work.errand, work.answer
    jobs = errand.request.app[JOBS]
    with held:
        try:
            await serve(errand, work.how)
            if work.output is not None:
                await see_it_may_leave(errand, answer, work.output)
            if work.manner.links is not None and not answer.is_cut:
                await _link(jobs, answer, work.manner.links)
        except HotseatError as error:
            work.fail(error)
        except asyncio.CancelledError:
            if work.manner.stays:
                errand.sent.note_client_left()
            else:
                work.fail(ShuttingDown("this job was not done when the server left"))
            raise
        except Exception:  # the top of a life of its own: tell who asks, keep the traceback
            log.exception("job_broke", extra={"path": errand.request.path})
            work.fail(HotseatError("an error of the proxy's own; see its log"))
        finally:
            answer.end()
            jobs.end(work.job)


async def _link(jobs: Jobs, answer: KeptAnswer, base: str) -> None:
    loop = asyncio.get_running_loop()

    def keep(name: str, picture: KeptAnswer) -> None:
        loop.call_soon_threadsafe(jobs.shelf.keep, name, picture)

    try:
        await asyncio.to_thread(linked, answer, jobs.shelf, base, keep)
    except OSError as error:
        told = f"the pictures could not be kept: {error.strerror or error}"
        raise NotKept(told) from error


def _manner_of(errand: Errand) -> _Manner:
    request, peek = errand.request, errand.body.peek
    asked = request.query.get(ASYNC)
    if asked is not None and asked.lower() not in _YES | _NO:
        raise BadRequest(f"{ASYNC}: it is 1 or 0", param=ASYNC, code="invalid_value")
    is_async = asked is not None and asked.lower() in _YES
    if peek.on_disconnect not in (None, "cancel", "finish"):
        told = "on_disconnect: it is cancel or finish"
        raise BadRequest(told, param="on_disconnect", code="invalid_value")
    wants_links = peek.response_format == "url" and not peek.is_stream
    return _Manner(
        is_async,
        not is_async and peek.on_disconnect != "finish",
        _base(request) if wants_links else None,
    )


def _base(request: web.Request) -> str:
    told = request.headers.get("X-Forwarded-Proto", "")
    scheme = told if told in ("http", "https") else request.scheme
    return f"{scheme}://{request.host}{paths.RESULTS}"
