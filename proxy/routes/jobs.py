"""Jobs for people and programs: how far they are, what came of them, and how they are ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from proxy.config import JobsConfig
from proxy.forward import EVENTS
from proxy.jobs import Job, Jobs, JobState
from proxy.jobs.jobs import HEADER
from proxy.routes.access import is_ones_own
from proxy.routes.feed import FEED, Feed
from proxy.routes.inflight import INFLIGHT
from proxy.routes.keys import CONFIG, POOL
from proxy.routes.waiting import describe

KIND = "job"
JOBS = web.AppKey("jobs", Jobs)
HEARTBEAT_S = 15.0
"""After so long without news comes a comment: readers and those between give up on silence."""


def kept_in(folder: Path, feed: Feed) -> Callable[[web.Application], AsyncIterator[None]]:
    """Make what has jobs for as long as the application serves."""

    async def jobs(app: web.Application) -> AsyncIterator[None]:
        def tell(job: Job) -> None:
            if feed.is_heard:
                feed.tell(KIND, {"operation": "upsert", "job": _as_json(app, job)}, job.owner)

        def bounds() -> JobsConfig:
            return app[CONFIG]().jobs

        async with Jobs(folder, bounds, tell, lambda: feed.is_heard) as app[JOBS]:
            yield

    return jobs


def jobs_for(request: web.Request) -> list[Job]:
    """Give the jobs that are for this one, oldest first: with keys, those of his own."""
    return [job for job in request.app[JOBS] if is_ones_own(request, job.owner)]


def named(request: web.Request) -> Job:
    """Find the job that the path names, if it is for this one. Raises NotFound."""
    return request.app[JOBS].find(request.match_info["id"], partial(is_ones_own, request))


def listed(request: web.Request) -> list[Mapping[str, object]]:
    """Tell of the jobs that are for this one, oldest first."""
    return [_as_json(request.app, job) for job in jobs_for(request)]


def as_json(request: web.Request, job: Job) -> Mapping[str, object]:
    """Tell all that is known of a job, its preview too."""
    preview = job.progress.preview if job.progress is not None else None
    return {**_as_json(request.app, job), "preview": preview}


def state_of(app: web.Application, job: Job) -> JobState:
    """Tell where a job is."""
    if job.outcome is not None:
        return job.outcome
    is_waiting = job.seat is None and not job.is_remote
    if job.ticket is not None and app[POOL].standing.outlook(job.ticket) is not None:
        is_waiting = True
    return JobState.QUEUED if is_waiting else JobState.RUNNING


def _as_json(app: web.Application, job: Job) -> Mapping[str, object]:
    state, pool = state_of(app, job), app[POOL]
    outlook = pool.standing.outlook(job.ticket) if job.ticket is not None else None
    eta_s = job.progress.eta_s if job.progress is not None else None
    is_kept = job.is_over and job.answer is not None
    return {
        "id": job.id,
        "object": "job",
        "status": state,
        "model": job.model_id,
        "path": job.path,
        "created_at": round(job.created_at, 3),
        "ended_at": round(job.ended_at, 3) if job.ended_at is not None else None,
        "expires_at": round(job.expires_at, 3) if job.expires_at is not None else None,
        "position": outlook.position if outlook is not None else None,
        "waits": describe(pool, job.ticket) if outlook is not None and job.ticket else None,
        "eta_s": outlook.eta_s if outlook is not None else eta_s,
        "progress": job.progress.as_json() if job.progress is not None else None,
        "result": f"/api/jobs/{job.id}/result" if is_kept else None,
        "http_status": job.answer.status if is_kept and job.answer is not None else None,
        "error": job.why or None,
    }


def accepted(request: web.Request, job: Job) -> web.Response:
    """Answer with how far the job is, and where to ask again."""
    headers = {"Location": f"/api/jobs/{job.id}", "Retry-After": "1", HEADER: job.id}
    return web.json_response(as_json(request, job), status=202, headers=headers)


async def list_jobs(request: web.Request) -> web.Response:
    """Answer GET /api/jobs, oldest first."""
    return web.json_response({"jobs": listed(request)})


async def tell_job(request: web.Request) -> web.Response:
    """Answer GET /api/jobs/{id}, with a fresh look at how far it is."""
    job = named(request)
    await request.app[JOBS].look(job)
    return web.json_response(as_json(request, job))


async def follow_job(request: web.Request) -> web.StreamResponse:
    """Answer GET /api/jobs/{id}/events until the job is over: each change is an event."""
    job = named(request)
    feed, standing = request.app[FEED], request.app[POOL].standing
    headers = {"Content-Type": EVENTS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    with (
        feed.listening(partial(is_ones_own, request)) as listener,
        standing.watched(listener.wake),
        suppress(aiohttp.ClientError),
    ):
        await response.prepare(request)
        told: Mapping[str, object] = {}
        while not listener.is_over:
            listener.take()
            now = as_json(request, job)
            if now != told:
                frame = f"event: {now['status']}\ndata: {json.dumps(now)}\n\n"
                await response.write(frame.encode())
            if job.is_over:
                break
            told = now
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await listener.wake.wait()
            except TimeoutError:
                await response.write(b": \n\n")
    return response


async def cancel_job(request: web.Request) -> web.Response:
    """Answer POST /api/jobs/{id}/cancel; who waits for its answer is told in words."""
    cancel(request.app, named(request))
    return web.json_response({"msg": "ok"})


async def drop_job(request: web.Request) -> web.Response:
    """Answer DELETE /api/jobs/{id}: it ends, or what came of it is thrown away."""
    job = named(request)
    if job.is_over:
        request.app[JOBS].drop(job)
    else:
        cancel(request.app, job)
    return web.json_response({"msg": "ok"})


def cancel(app: web.Application, job: Job) -> None:
    """End a job, if it is not over."""
    for flight in app[INFLIGHT]:
        if flight.errand is job.errand:
            flight.cancel()
