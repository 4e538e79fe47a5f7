"""Requests for pictures: each is a job; some go on without their clients, or answer with links."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from proxy.errors import BadRequest, HotseatError, ShuttingDown
from proxy.forward import Errand, forward
from proxy.jobs import Job, Jobs, KeptAnswer, linked
from proxy.jobs.jobs import HEADER
from proxy.routes import paths
from proxy.routes.jobs import JOBS, accepted
from proxy.routes.middleware import render
from proxy.routes.results import hand_over
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
    links: str | None  # as of its manner

    def fail(self, error: HotseatError) -> None:
        """Let the error be the answer."""
        face = render(error)
        raw = face.body if isinstance(face.body, bytes) else b""
        headers = {**face.headers, HEADER: self.job.id}
        self.answer.fill(face.status, face.reason, headers, raw)
        self.job.why = error.message


async def paint(errand: Errand, run: Run | None, held: ExitStack) -> web.StreamResponse:
    """Serve a request for pictures in the manner that it wishes. Raises BadRequest, QueueFull.

    `run` is how, for who has no worker of ours; `held` is what the request needs to the end.
    """
    jobs, manner = errand.request.app[JOBS], _manner_of(errand)
    if not manner.stays:
        jobs.see_room()
    errand.path = paths.without(errand.path, ASYNC)
    job = jobs.begin(errand, is_remote=run is not None, name=errand.request.headers.get(HEADER))
    how = run or partial(attempt_twice, carry=partial(_followed, jobs, job))
    if manner.stays and manner.links is None:
        try:
            return await serve(errand, how)
        finally:
            jobs.end(job)
    answer = jobs.shelf.new(job.id, is_held_back=manner.links is not None)
    job.answer = errand.outlet = answer
    work = _Work(errand, job, answer, how, manner.links)
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
            if work.links is not None and not answer.is_cut:
                await _link(jobs, answer, work.links)
        except HotseatError as error:
            work.fail(error)
        except asyncio.CancelledError:
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
        raise HotseatError(told, code="not_kept") from error


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
