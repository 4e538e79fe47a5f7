"""The logs over HTTP: what was said, and what is being said."""

from __future__ import annotations

from aiohttp import web

from proxy.errors import BadRequest
from proxy.logs import PROXY, UPSTREAM
from proxy.routes.keys import HUB, config_of


async def history(request: web.Request) -> web.Response:
    """Answer GET /logs: the kept lines of the proxy and of every worker, as text."""
    return web.Response(text="".join(f"{line}\n" for line in request.app[HUB].history()))


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer GET /logs/stream[/{proxy, upstream or model}] until the client leaves.

    The kept lines first, unless the query has `no-history`.
    """
    source = _source(request)
    hub = request.app[HUB]
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            "X-Accel-Buffering": "no",
        }
    )
    with hub.following(source) as lines:
        kept = [] if "no-history" in request.query else hub.history(source)
        await response.prepare(request)
        await response.write("".join(f"{line}\n" for line in kept).encode())
        async for line in lines:
            await response.write(f"{line}\n".encode())
    return response


def _source(request: web.Request) -> str | None:
    asked = request.match_info.get("id")
    if asked is None:
        return None
    model_id = config_of(request).resolve(asked)
    if model_id is not None:
        return model_id  # though it be named like one of ours
    if asked in (PROXY, UPSTREAM):
        return asked
    raise BadRequest(f"no such log: {asked}; there are `proxy`, `upstream` and every model's id")
