"""One request from its place in the queue to its last byte, and the line that tells of it."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web

from proxy.errors import DeadlineExceeded, HotseatError, WorkerDied
from proxy.forward import CLIENT_LEFT, Errand, NotSent, break_off, forward
from proxy.routes.keys import METRICS, POOL
from proxy.routes.waiting import take_turn
from proxy.wishes import TIMEOUT

log = logging.getLogger(__name__)


async def serve(errand: Errand) -> web.StreamResponse:
    """Lease the model's worker, forward, and leave one line about it in the log.

    A worker that could not even be reached has not seen the request: it is tried once more.
    """
    began = time.monotonic()
    try:
        return await _serve_in_time(errand)
    except HotseatError as error:
        errand.sent.status = error.status
        if errand.response is None:
            raise
        log.info("refused", extra={"path": errand.request.path, "why": error.message})
        return await break_off(errand, error)
    except asyncio.CancelledError:
        errand.sent.status = CLIENT_LEFT
        raise
    except Exception:  # a second head must never follow the one that is out
        errand.sent.status = HotseatError.status
        if errand.response is None:
            raise
        log.exception("request_broke", extra={"path": errand.request.path})
        told = "an error of the proxy's own; its log has the details"
        return await break_off(errand, HotseatError(told))
    finally:
        _tell(errand, time.monotonic() - began, began)


async def _serve_in_time(errand: Errand) -> web.StreamResponse:
    limit_s = errand.wish.deadline_s
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await _attempt_twice(errand)
    except TimeoutError:
        if not limit.expired():
            raise
        told = f"{errand.model_id} has not answered within {limit_s:g} s ({TIMEOUT})"
        raise DeadlineExceeded(told) from None


async def _attempt_twice(errand: Errand) -> web.StreamResponse:
    try:
        return await _attempt(errand)
    except NotSent:
        log.warning("not_reached", extra={"model": errand.model_id})
    try:
        return await _attempt(errand)
    except NotSent as error:
        raise WorkerDied(f"{errand.model_id} cannot be reached: {error}") from error


async def _attempt(errand: Errand) -> web.StreamResponse:
    pool = errand.request.app[POOL]
    with pool.ask(errand.model_id, errand.wish) as ticket:
        lease = await take_turn(errand, ticket)
        errand.leases.append(lease)
        try:
            response = await forward(errand, lease.seat)
            ticket.is_served = errand.sent.is_well
            return response  # the pair of lines is one act
        finally:
            if errand.ran_out_of_memory:
                pool.note_out_of_memory(lease)


def _tell(errand: Errand, total_s: float, began: float) -> None:
    sent, leases = errand.sent, errand.leases
    first_byte_s = sent.first_byte_at - began if sent.first_byte_at is not None else None
    status = "cut" if sent.is_cut else str(sent.status)
    queued_s = sum(lease.queued_s for lease in leases) if leases else total_s
    metrics = errand.request.app[METRICS]
    metrics.requests.labels(errand.model_id, status).inc()
    metrics.queue_seconds.labels(errand.model_id).observe(queued_s)
    metrics.request_seconds.labels(errand.model_id).observe(total_s)
    log.info(
        "request",
        extra={
            "method": errand.request.method,
            "path": errand.request.path,
            "model": errand.model_id,
            "worker": leases[-1].seat.id if leases else "-",
            "status": status,
            "queued_s": queued_s,
            "loading_s": sum((lease.loading_s for lease in leases), 0.0),
            "first_byte_s": "-" if first_byte_s is None else first_byte_s,
            "total_s": total_s,
            "bytes": sent.size,
        },
    )
