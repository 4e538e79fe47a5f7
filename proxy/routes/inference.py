"""Requests for a model: find it, see that it can, wait for its seat, and pass the request on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from aiohttp import web

from proxy.body import Body, Peek, read_body
from proxy.config import Config, ModelConfig
from proxy.errors import (
    BadRequest,
    DeadlineExceeded,
    HotseatError,
    ModelNotFound,
    WorkerDied,
)
from proxy.forward import CLIENT_LEFT, Errand, NotSent, break_off, forward
from proxy.routes import access
from proxy.routes.keys import METRICS, POOL, config_of
from proxy.routes.waiting import take_turn
from proxy.wishes import STRIPPED, TIMEOUT, wish_of

log = logging.getLogger(__name__)


NEEDS: Mapping[str, str] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/rerank": "rerank",
    "/images/generations": "image_generation",
    "/images/edits": "image_edit",
    "/images/descriptions": "describe",
}
"""What a model must be able to do to be asked at a path; each is served with and without /v1."""


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Serve an OpenAI-shaped POST by the model that its body names."""
    config = config_of(request)
    with await read_body(request, config.max_body_bytes, config.stall_timeout) as body:
        model_id = find_model(config, body.peek.model)
        refuse_what_it_cannot(config, model_id, request.path, body.peek)
        errand = errand_for(request, model_id, target(request), body)
        if body.peek.keep_alive is not None or body.peek.priority is not None:
            errand.body = body.without(STRIPPED)
        return await serve(errand)


def errand_for(request: web.Request, model_id: str, path: str, body: Body) -> Errand:
    """Gather what is known of a request before it waits. Raises BadRequest for odd wishes."""
    config = config_of(request)
    return Errand(
        request,
        model_id,
        path,
        body,
        config,
        wish=wish_of(
            request.headers,
            body.peek,
            access.priority_of_key(request),
            config.models[model_id].priority,
        ),
        withheld=access.withheld(request),
    )


def target(request: web.Request) -> str:
    """Give path and query as they came; of an absolute target (RFC 9112 §3.2.2) that part."""
    raw = request.raw_path
    return raw if raw.startswith("/") else request.rel_url.raw_path_qs


def find_model(config: Config, name: str | None) -> str:
    """Resolve a model's id or alias. Raises BadRequest or ModelNotFound."""
    if not name:
        known = ", ".join(config.models)
        raise BadRequest(
            f"the body must name a model; there are: {known}", param="model", code="missing_model"
        )
    model_id = config.resolve(name)
    if model_id is None:
        raise no_such_model(config, name)
    return model_id


def no_such_model(config: Config, name: str) -> ModelNotFound:
    near = config.near(name[:100]) or list(config.models)
    told = f"no model is named {name[:100]!r}; there is: {', '.join(near)} (GET /v1/models)"
    return ModelNotFound(told, param="model")


def refuse_what_it_cannot(config: Config, model_id: str, path: str, peek: Peek) -> None:
    """Raise BadRequest before a swap is spent on a request that must fail."""
    model, words = config.models[model_id], config.models[model_id].words
    need = NEEDS[path.removeprefix("/v1")]
    if words is None:
        return  # a `cmd` that does not say what it can do
    if need not in words:
        raise _cannot(config, model_id, model, need, "model_cannot")
    if peek.has_pictures and "vision" not in words:
        raise _cannot(config, model_id, model, "vision", "model_cannot_see")


def _cannot(config: Config, model_id: str, model: ModelConfig, need: str, code: str) -> BadRequest:
    able = [name for name, other in config.models.items() if need in (other.words or ())]
    instead = f"ask one of: {', '.join(able)}" if able else "no model here can"
    told = f"{model_id} is for {', '.join(model.words or ())}, not for {need}; {instead}"
    return BadRequest(told, param="model", code=code)


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
