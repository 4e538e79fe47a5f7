"""All paths at a glance."""

from __future__ import annotations

from aiohttp import web

from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.pool import Pool
from proxy.routes import access, admin, inference, listing, logs, middleware, reports, upstream
from proxy.routes.keys import CONFIG, HUB, METRICS, POOL, SWAPS
from proxy.swaps import SwapLog


def application(pool: Pool, hub: LogHub, swaps: SwapLog, metrics: Metrics) -> web.Application:
    """Make the application that serves the pool's models."""
    app = web.Application(
        middlewares=[middleware.preflight, middleware.errors_as_json, access.require_key],
        client_max_size=pool.config.max_body_bytes,
    )
    app[CONFIG], app[POOL], app[HUB] = (lambda: pool.config), pool, hub
    app[SWAPS], app[METRICS] = swaps, metrics
    app.on_response_prepare.append(middleware.allow_any_origin)
    for path in inference.NEEDS:
        app.router.add_post(f"/v1{path}", inference.dispatch)
        app.router.add_post(path, inference.dispatch)
    app.add_routes(
        [
            web.get("/v1/models", listing.list_models),
            web.get("/models", listing.list_models),
            web.get("/v1/models/{id:.+}", listing.tell_model),
            web.get("/models/{id:.+}", listing.tell_model),
            web.get("/running", admin.running),
            web.get("/unload", admin.unload_all),
            web.post("/unload", admin.unload_all),
            web.post("/api/models/unload", admin.unload_all_told),
            web.post("/api/models/unload/{id:.+}", admin.unload),
            web.post("/api/models/load/{id:.+}", admin.load),
            web.route("*", "/upstream/{rest:.*}", upstream.upstream),
            web.get("/health", admin.health),
            web.get("/healthz", admin.healthz),
            web.get("/ready", admin.ready),
            web.get("/api/queue", reports.queue),
            web.get("/api/swaps", reports.swaps),
            web.get("/metrics", reports.metrics),
            web.get("/logs", logs.history),
            web.get("/logs/stream", logs.stream),
            web.get("/logs/stream/{id:.+}", logs.stream),
        ]
    )
    return app
