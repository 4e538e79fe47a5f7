"""Looking after the workers: who runs, load, unload, health."""

from __future__ import annotations

import time

from aiohttp import web

from proxy.routes.inference import find_model
from proxy.routes.keys import POOL, config_of


async def running(request: web.Request) -> web.Response:
    """Answer GET /running in llama-swap's shape, with a little more."""
    config = config_of(request)
    entries = []
    for worker in request.app[POOL].standing.running():
        model = config.models[worker.model]
        entries.append(
            {
                "model": worker.model,
                "state": worker.state,
                "cmd": worker.process.command,
                "proxy": worker.process.url,
                "ttl": config.ttl_s(model),
                "name": model.name,
                "description": model.description,
                "pid": worker.process.pid,
                "progress": worker.process.progress,
                "facts": dict(worker.facts),
                "memory": dict(worker.charge),
                "uptime_s": worker.uptime_s,
                "idle_s": worker.idle_s,
            }
        )
    return web.json_response({"running": entries})


async def unload_all(request: web.Request) -> web.Response:
    """Answer /unload: every model goes; running requests have their grace."""
    await request.app[POOL].unload(None)
    return web.Response(text="OK")


async def unload_all_told(request: web.Request) -> web.Response:
    """Answer POST /api/models/unload."""
    await request.app[POOL].unload(None)
    return web.json_response({"msg": "ok"})


async def unload(request: web.Request) -> web.Response:
    """Answer POST /api/models/unload/{id}; a model that is not loaded is no error."""
    await request.app[POOL].unload(find_model(config_of(request), request.match_info["id"]))
    return web.Response(text="OK")


async def load(request: web.Request) -> web.Response:
    """Answer POST /api/models/load/{id} when the model is ready."""
    model_id = find_model(config_of(request), request.match_info["id"])
    began = time.monotonic()
    async with request.app[POOL].lease(model_id, cause="load"):
        took_s = time.monotonic() - began
    return web.json_response({"msg": "ok", "model": model_id, "took_s": round(took_s, 3)})


async def health(_request: web.Request) -> web.Response:
    """Answer GET /health: the proxy lives; it says nothing of models."""
    return web.Response(text="OK")


async def healthz(request: web.Request) -> web.Response:
    """Answer GET /healthz: lives, and what it runs."""
    names = [worker.model for worker in request.app[POOL].standing.running()]
    return web.json_response({"ok": True, "running": names})


async def ready(request: web.Request) -> web.Response:
    """Answer GET /ready: 200 when all pinned models are loaded and all devices well, else 503."""
    pinned = {name for name, model in config_of(request).models.items() if model.pin}
    loaded = {w.model for w in request.app[POOL].standing.running() if w.state == "ready"}
    missing = sorted(pinned - loaded)
    alarms = list(request.app[POOL].standing.alarms())
    is_ready = not missing and not alarms
    return web.json_response(
        {"ready": is_ready, "waiting_for": missing, "alarms": alarms},
        status=200 if is_ready else 503,
    )
