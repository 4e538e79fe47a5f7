"""One request from its place in the queue to its last byte, and the line that tells of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from proxy.errors import Cancelled, DeadlineExceeded, HotseatError, WorkerDied
from proxy.forward import Errand, NotSent, break_off, forward
from proxy.routes.activity import ACTIVITY, Act
from proxy.routes.inflight import INFLIGHT, Flight
from proxy.routes.keys import METRICS, POOL
from proxy.routes.pulse import pulse
from proxy.routes.waiting import take_turn
from proxy.seat import Seat
from proxy.tokens import tokens_in
from proxy.wishes import TIMEOUT

log = logging.getLogger(__name__)

Run = Callable[[Errand], Awaitable[web.StreamResponse]]
Carry = Callable[[Errand, Seat], Awaitable[web.StreamResponse]]


async def serve(errand: Errand, run: Run | None = None) -> web.StreamResponse:
    """Lease the model's worker, forward, and leave one line about it in the log.

    A worker that could not even be reached has not seen the request: it is tried once more. `run`
    does all that in another way, for who has no worker of ours.
    """
    began, inflight = time.monotonic(), errand.request.app[INFLIGHT]
    limit = asyncio.timeout(errand.wish.deadline_s)
    flight = inflight.begin(errand, limit, began, _metadata(errand))
    why = ""
    try:
        with pulse(errand):
            return await _in_time(errand, flight, run or attempt_twice)
    except HotseatError as error:
        errand.sent.status, why = error.status, error.message
        if errand.response is None:
            raise
        log.info("refused", extra={"path": errand.request.path, "why": error.message})
        return await break_off(errand, error)
    except asyncio.CancelledError:
        why = "the client left" if errand.sent.note_client_left() else ""
        raise
    except Exception:  # a second head must never follow the one that is out
        errand.sent.status, why = HotseatError.status, "an error of the proxy's own"
        if errand.response is None:
            raise
        log.exception("request_broke", extra={"path": errand.request.path})
        return await break_off(errand, HotseatError(f"{why}; its log has the details"))
    finally:
        inflight.end(flight)
        _tell(errand, time.monotonic() - began, began)
        _note(flight, time.monotonic() - began, why)


async def _in_time(errand: Errand, flight: Flight, run: Run) -> web.StreamResponse:
    limit_s = errand.wish.deadline_s
    try:
        async with flight.limit:
            return await run(errand)
    except TimeoutError:
        if not flight.limit.expired():
            raise
        if flight.is_cancelled:
            raise Cancelled(f"the request to {errand.model_id} was cancelled") from None
        told = f"{errand.model_id} has not answered within {limit_s:g} s ({TIMEOUT})"
        raise DeadlineExceeded(told) from None


async def attempt_twice(errand: Errand, carry: Carry = forward) -> web.StreamResponse:
    """Take a turn at the model's worker and let it be asked, once more where it was not reached.

    `carry` is how it is asked. Raises an error of `errors`.
    """
    try:
        return await _attempt(errand, carry)
    except NotSent:
        log.warning("not_reached", extra={"model": errand.model_id})
    try:
        return await _attempt(errand, carry)
    except NotSent as error:
        raise WorkerDied(f"{errand.model_id} cannot be reached: {error}") from error


async def _attempt(errand: Errand, carry: Carry) -> web.StreamResponse:
    pool = errand.request.app[POOL]
    with pool.ask(errand.model_id, errand.wish) as ticket:
        errand.ticket = ticket.id
        lease = await take_turn(errand, ticket)
        errand.leases.append(lease)
        try:
            response = await carry(errand, lease.seat)
            ticket.is_served = errand.sent.is_well
            return response  # the pair of lines is one act
        finally:
            if errand.ran_out_of_memory:
                pool.note_out_of_memory(lease)


def _tell(errand: Errand, total_s: float, began: float) -> None:
    sent, leases = errand.sent, errand.leases
    first_byte_s = sent.first_byte_at - began if sent.first_byte_at is not None else None
    status = "cut" if sent.is_cut else str(sent.status)
    is_answered = bool(leases) or sent.first_byte_at is not None  # else it waited all the time
    queued_s = sum(lease.queued_s for lease in leases) if is_answered else total_s
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


def _note(flight: Flight, total_s: float, why: str) -> None:
    """Keep what came of a POST; pages and pictures that a worker serves are not worth a place."""
    errand = flight.errand
    request, response, sent = errand.request, errand.response, errand.sent
    if request.method != "POST":
        return
    act = Act(
        flight.id,
        flight.began_at,
        errand.model_id,
        request.path,
        response.content_type if response is not None else "application/json",
        sent.status,
        tokens_in(sent.ends.last, sent.ends.first),
        round(1000 * total_s),
        why or ("the answer was cut; the log says why" if sent.is_cut else ""),
        flight.metadata,
    )
    request.app[ACTIVITY].add(act, errand.config.metrics_max_in_memory)


def _metadata(errand: Errand) -> Mapping[str, str]:
    """Tell what is known of a request beside its model: by which selector, how urgent, whose."""
    told = {"priority": str(errand.wish.priority)} if errand.wish.priority else {}
    asked = errand.body.peek.model
    if asked is not None and asked in errand.config.selectors:
        told["selector"] = asked
    for name in errand.config.ui.activity.session_id:
        if session := errand.request.headers.get(name):
            return {"session_id": session, **told}
    return told
