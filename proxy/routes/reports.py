"""What is going on, for people and programs: the queue, the swaps, the metrics."""

from __future__ import annotations

import asyncio

from aiohttp import web

from proxy.budget import SEAT
from proxy.routes.keys import METRICS, POOL, SWAPS


async def queue(request: web.Request) -> web.Response:
    """Answer GET /api/queue: everybody who waits, what for, and about how long."""
    now = asyncio.get_running_loop().time()
    waiting = [
        {
            "id": outlook.ticket,
            "model": outlook.model,
            "position": outlook.position,
            "priority": outlook.priority,
            "waited_s": round(now - outlook.since, 3),
            "waiting_for": outlook.waits_for.value,
            "others": list(outlook.others),
            "eta_s": None if outlook.eta_s is None else round(outlook.eta_s, 3),
        }
        for outlook in request.app[POOL].standing.queue()
    ]
    return web.json_response({"waiting": waiting})


async def swaps(request: web.Request) -> web.Response:
    """Answer GET /api/swaps: the last 200, oldest first, with what each part took."""
    return web.json_response({"swaps": [swap.as_json() for swap in request.app[SWAPS]]})


async def metrics(request: web.Request) -> web.Response:
    """Answer GET /metrics in Prometheus' text format."""
    known = request.app[METRICS]
    _measure(request)
    return web.Response(body=known.render(), headers={"Content-Type": known.content_type})


def _measure(request: web.Request) -> None:
    """Set the gauges to what is true now."""
    standing = request.app[POOL].standing
    known = request.app[METRICS]
    known.waiting.clear()
    for outlook in standing.queue():
        known.waiting.labels(outlook.model).inc()
    charged = standing.charged
    for device, amount in standing.budget.items():
        if device == SEAT:
            continue
        known.memory_bytes.labels(device, "budget").set(amount)
        known.memory_bytes.labels(device, "charged").set(charged.get(device, 0))
