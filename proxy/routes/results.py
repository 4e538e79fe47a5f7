"""What jobs have left: their answers, and pictures that answers lead to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from proxy.errors import NotFound, NotKept
from proxy.forward import ToClient
from proxy.jobs import KeptAnswer
from proxy.routes.jobs import JOBS, accepted, named
from proxy.routes.keys import config_of

log = logging.getLogger(__name__)


async def tell_result(request: web.Request) -> web.StreamResponse:
    """Answer GET /api/jobs/{id}/result as the request itself would have been, or 202: not yet."""
    job = named(request)
    if job.answer is None or not job.is_over:
        return accepted(request, job)
    return await hand_over(request, job.answer, config_of(request).stall_timeout)


async def tell_picture(request: web.Request) -> web.StreamResponse:
    """Answer GET /v1/images/results/{name}."""
    name, shelf = request.match_info["name"], request.app[JOBS].shelf
    picture = shelf.find(name) if "." in name else None  # what has no dot is a job's, not for all
    if picture is None:
        told = f"no such picture: they are kept for {shelf.keep_s:g} s, the newest ones"
        raise NotFound(told, code="picture_not_found")
    return await hand_over(request, picture, config_of(request).stall_timeout)


async def hand_over(
    request: web.Request, answer: KeptAnswer, stall_s: float
) -> web.StreamResponse:
    """Give a client a kept answer, as it grows if it is not whole yet. Raises NotKept."""
    await answer.opened()
    if answer.is_over and answer.why:
        raise NotKept(answer.why)
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=answer.headers
    )
    if answer.is_over and not answer.is_cut:
        response.content_length = answer.size_bytes
    try:
        await response.prepare(request)
        async for chunk in _chunks(request, answer):
            async with asyncio.timeout(stall_s):
                await response.write(chunk)
        if not answer.is_cut:
            await response.write_eof()
            return response
    except aiohttp.ClientConnectionResetError:
        return response  # nobody is there to be answered
    except OSError as error:  # the client took nothing in time, or the file is gone
        why = str(error) or f"the client took nothing for {stall_s:g} s"
        log.warning("answer_cut", extra={"path": request.path, "why": why})
    ToClient().cut(request)
    return response


async def _chunks(request: web.Request, answer: KeptAnswer) -> AsyncIterator[bytes]:
    if request.method != "HEAD":
        async for chunk in answer.chunks():
            yield chunk
