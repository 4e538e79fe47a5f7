"""What this server is, what it runs on, and how that does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from proxy.errors import Unavailable
from proxy.machine import GpuLook, HostLook, Performance, hardware
from proxy.routes.asked import moment
from proxy.routes.gauges import gauges
from proxy.routes.keys import METRICS, POOL

log = logging.getLogger(__name__)

PERFORMANCE: web.AppKey[Performance | None] = web.AppKey("performance")
MIB = 1 << 20


def own_version() -> str:
    try:
        return version("hotseat")
    except PackageNotFoundError:  # run from a tree that was not installed
        return "0"


async def tell_version(_request: web.Request) -> web.Response:
    """Answer GET /api/version."""
    told = {"version": own_version(), "commit": "unknown", "build_date": "unknown"}
    return web.json_response(told)


async def tell_self(_request: web.Request) -> web.Response:
    """Answer GET /: what to ask next."""
    paths = ["/v1/models", "/running", "/api/queue", "/api/events", "/logs", "/metrics", "/health"]
    return web.json_response({"name": "hotseat", "version": own_version(), "see": paths})


async def lead_to_self(_request: web.Request) -> web.Response:
    """Answer the paths where a page may be looked for."""
    raise web.HTTPFound("/")


async def no_icon(_request: web.Request) -> web.Response:
    """Answer GET /favicon.ico: browsers ask unasked."""
    return web.Response(status=204)


async def tell_hardware(request: web.Request) -> web.Response:
    """Answer GET /api/hardware."""
    gpus = request.app[POOL].standing.watch.gpus
    try:
        told = await asyncio.to_thread(hardware, gpus, own_version())
    except OSError as error:
        raise Unavailable(f"the hardware cannot be looked at: {error}") from error
    return web.json_response(told)


async def looking(app: web.Application) -> AsyncIterator[None]:
    """Look at the machine for as long as the application serves, unless the config forbids it."""
    settings = app[POOL].config.performance
    app[PERFORMANCE] = performance = (
        None
        if settings.disabled
        else Performance(app[POOL].standing.watch.gpus, float(settings.every))
    )
    if performance is None:
        yield
        return
    app[METRICS].add(lambda: gauges(performance.last))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(performance.run())
        yield
        task.cancel()


async def tell_performance(request: web.Request) -> web.Response:
    """Answer GET /api/performance: the last hour, or what came after `after`."""
    performance = request.app[PERFORMANCE]
    if performance is None:
        return web.json_response({"enabled": False}, status=503)
    after = moment(request.query, "after")
    looks = [one for one in performance if after is None or one.host.at > after]
    return web.json_response(
        {
            "enabled": True,
            "sys_stats": [_host(one.host) for one in looks],
            "gpu_stats": [_gpu(gpu) for one in looks for gpu in one.gpus],
        }
    )


def _host(host: HostLook) -> Mapping[str, object]:
    nets = [
        {"name": net.name, "bytes_recv": net.received_bytes, "bytes_sent": net.sent_bytes}
        for net in host.nets
    ]
    return {
        "timestamp": host.at.isoformat(),
        "cpu_util_per_core": list(host.cpu_pct),
        "mem_total_mb": host.memory_total_bytes // MIB,
        "mem_used_mb": host.memory_used_bytes // MIB,
        "mem_free_mb": host.memory_free_bytes // MIB,
        "swap_total_mb": host.swap_total_bytes // MIB,
        "swap_used_mb": host.swap_used_bytes // MIB,
        **{f"load_avg_{m}": load for m, load in zip((1, 5, 15), host.load, strict=True)},
        "net_io": nets,
    }


def _gpu(gpu: GpuLook) -> Mapping[str, object]:
    sensors = gpu.sensors
    return {
        "timestamp": gpu.at.isoformat(),
        "id": gpu.index,
        "name": gpu.label,
        "uuid": gpu.uuid,
        "temp_c": sensors.temp_c or 0,
        "vram_temp_c": 0,
        "gpu_util_pct": sensors.gpu_util_pct or 0,
        "mem_util_pct": 100 * gpu.memory_used_bytes / gpu.memory_total_bytes,
        "mem_used_mb": gpu.memory_used_bytes // MIB,
        "mem_total_mb": gpu.memory_total_bytes // MIB,
        "fan_speed_pct": sensors.fan_pct or 0,
        "power_draw_w": sensors.power_w or 0,
    }
