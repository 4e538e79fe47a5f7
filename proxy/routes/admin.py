"""Looking after the workers: who runs, load, unload, health."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping

from aiohttp import web

from proxy.config import Config
from proxy.errors import BadRequest
from proxy.routes import access
from proxy.routes.inference import find_model
from proxy.routes.keys import POOL, RELOADER, config_of
from proxy.routes.masks import masked, masked_text, sounds_secret
from proxy.seat import Running

LEAST_OF_OURS = 8
"""Characters of a variable of our environment that holds a secret and not a switch."""


async def running(request: web.Request) -> web.Response:
    """Answer GET /running in llama-swap's shape, with a little more; secrets are masked."""
    secrets = secrets_of(config_of(request))
    workers = request.app[POOL].standing.running()
    return web.json_response({"running": [_told(worker, secrets) for worker in workers]})


def _told(worker: Running, secrets: Collection[str]) -> Mapping[str, object]:
    model, process = worker.settings, worker.process
    own = {value for name, value in model.env.items() if sounds_secret(name)}
    return {
        "model": worker.model,
        "state": worker.state,
        "cmd": masked(process.command, {*secrets, *own}),
        "proxy": masked_text(process.url, {*secrets, *own}),
        "ttl": int(worker.ttl_s) if worker.ttl_s.is_integer() else worker.ttl_s,
        "name": model.name,
        "description": model.description,
        "pid": process.pid,
        "progress": process.progress,
        "facts": dict(worker.facts),
        "memory": dict(worker.charge),
        "uptime_s": worker.uptime_s,
        "idle_s": worker.idle_s,
    }


def secrets_of(config: Config) -> Collection[str]:
    """Gather what a command may hold and nobody may see: keys, and secrets of our environment."""
    keys = [entry.key for entry in config.api_keys]
    keys += [peer.api_key for peer in config.peers.values() if peer.api_key is not None]
    ours = {
        value
        for name, value in os.environ.items()
        if sounds_secret(name) and len(value) >= LEAST_OF_OURS
    }
    return {*ours, *(key.get_secret_value() for key in keys)}


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
    """Answer GET /healthz: lives, what it runs, and how the last reload went."""
    if not access.is_trusted(request):
        return web.json_response({"ok": True})
    names = [worker.model for worker in request.app[POOL].standing.running()]
    return web.json_response({"ok": True, "running": names, "reload": _last_reload(request)})


async def ready(request: web.Request) -> web.Response:
    """Answer GET /ready: 200 when all pinned models are loaded and all devices well, else 503."""
    pinned = {name for name, model in config_of(request).models.items() if model.pin}
    loaded = {w.model for w in request.app[POOL].standing.running() if w.state == "ready"}
    missing = sorted(pinned - loaded)
    alarms = list(request.app[POOL].standing.alarms())
    is_ready = not missing and not alarms
    told: dict[str, object] = {"ready": is_ready}
    if access.is_trusted(request):
        told |= {"waiting_for": missing, "alarms": alarms, "reload": _last_reload(request)}
    return web.json_response(told, status=200 if is_ready else 503)


async def reload(request: web.Request) -> web.Response:
    """Answer POST /api/reload when the new config counts, or the old one is kept: 400, and why."""
    outcome = await request.app[RELOADER].reload("POST /api/reload")
    if outcome.is_well:
        return web.json_response(outcome.as_json())
    told = f"the config stays as it is: {'; '.join(outcome.problems)}"
    refused = BadRequest(told, code="config_refused")
    return web.json_response({**outcome.as_json(), **refused.body}, status=refused.status)


def _last_reload(request: web.Request) -> Mapping[str, object] | None:
    reloader = request.app.get(RELOADER)
    last = reloader.last if reloader is not None else None
    return last.as_json() if last is not None else None
