"""All paths at a glance."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from proxy.errors import BadRequest, NotFound
from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.pool import Pool
from proxy.routes import (
    a1111,
    access,
    activity,
    admin,
    events,
    files,
    inference,
    inflight,
    jobs,
    listing,
    logs,
    middleware,
    paths,
    profiles,
    remote,
    reports,
    results,
    system,
    upstream,
)
from proxy.routes.checkpoint import CHECKPOINT, Checkpoint
from proxy.routes.describing import DESCRIPTIONS, Descriptions
from proxy.routes.feed import FEED, Feed
from proxy.routes.keys import CONFIG, HUB, METRICS, POOL, SWAPS, config_of
from proxy.routes.safety import VERDICTS
from proxy.safety import Verdicts
from proxy.swaps import SwapLog


def application(
    pool: Pool, hub: LogHub, swaps: SwapLog, metrics: Metrics, folder: Path
) -> web.Application:
    """Make the application that serves the pool's models; answers are kept in `folder`."""
    app = web.Application(
        middlewares=[
            middleware.preflight,
            middleware.errors_as_json,
            access.require_key,
            else_by_model,
        ],
        client_max_size=pool.config.max_body_bytes,
    )
    feed = Feed()
    app[CONFIG], app[POOL], app[HUB] = (lambda: pool.config), pool, hub
    app[SWAPS], app[METRICS], app[FEED] = swaps, metrics, feed
    app[inflight.INFLIGHT] = inflight.Inflight(feed)
    app[activity.ACTIVITY] = activity.Activity(feed)
    app[CHECKPOINT] = Checkpoint()
    app[DESCRIPTIONS] = Descriptions()
    app[VERDICTS] = Verdicts()
    app[profiles.ACTIVE] = profiles.ActiveProfile(feed)
    app.on_response_prepare.append(middleware.allow_any_origin)
    app.on_shutdown.append(events.let_go)
    app.cleanup_ctx.extend([remote.opened, system.looking, jobs.kept_in(folder, feed)])
    app.add_routes(
        [
            *(web.post(path, inference.dispatch) for path in paths.POSTED),
            *(web.get(path, inference.dispatch) for path in paths.ASKED),
            *LISTS,
            *WORKERS,
            *REPORTS,
            *PICTURES,
            *FILES,
            *A1111,
            *SELF,
        ]
    )
    return app


REST = "{rest:(?s:.*)}"
"""Anything, escaped line breaks too."""

LISTS = [
    web.get("/v1/models", listing.list_models),
    web.get("/models", listing.list_models),
    web.get("/v1/models/{id:.+}", listing.tell_model),
    web.get("/models/{id:.+}", listing.tell_model),
    web.get("/api/profiles", profiles.list_profiles),
    web.put("/api/profiles/active", profiles.activate),
]
WORKERS = [
    web.get("/running", admin.running),
    web.get("/unload", admin.unload_all),
    web.post("/unload", admin.unload_all),
    web.post("/api/models/unload", admin.unload_all_told),
    web.post("/api/models/unload/{id:.+}", admin.unload),
    web.post("/api/models/load/{id:.+}", admin.load),
    web.post("/api/reload", admin.reload),
    web.get("/upstream", system.lead_to_self),
    web.route("*", f"/upstream/{REST}", upstream.upstream),
    web.route("*", "/comfyui", upstream.comfyui),
    web.route("*", f"/comfyui/{REST}", upstream.comfyui),
]
REPORTS = [
    web.get("/api/queue", reports.queue),
    web.get("/api/swaps", reports.swaps),
    web.get("/api/inflight", inflight.list_inflight),
    web.post("/api/inflight/{id}/cancel", inflight.cancel),
    web.get("/api/events", events.events, allow_head=False),
    web.get("/api/metrics/activity", activity.list_activity),
    web.get("/api/metrics/stats", activity.tell_stats),
    web.get("/api/performance", system.tell_performance),
    web.get("/metrics", reports.metrics),
    web.get("/logs", logs.history),
    web.get("/logs/stream", logs.stream, allow_head=False),
    web.get("/logs/stream/{id:.+}", logs.stream, allow_head=False),
]
PICTURES = [
    web.get("/api/jobs", jobs.list_jobs),
    web.get("/api/jobs/{id}", jobs.tell_job),
    web.delete("/api/jobs/{id}", jobs.drop_job),
    web.get("/api/jobs/{id}/events", jobs.follow_job, allow_head=False),
    web.get("/api/jobs/{id}/result", results.tell_result),
    web.post("/api/jobs/{id}/cancel", jobs.cancel_job),
    web.get(paths.RESULTS + "{name}", results.tell_picture),
]
FILES = [
    route
    for stem in ("/v1/files", "/files")
    for route in (
        web.get(stem, files.list_files),
        web.post(stem, files.take_file),
        web.get(f"{stem}/{{id}}", files.tell_file),
        web.delete(f"{stem}/{{id}}", files.drop_file),
        web.get(f"{stem}/{{id}}/content", files.give_file),
    )
]
A1111 = [
    web.get("/sdapi/v1/options", a1111.tell_options),
    web.post("/sdapi/v1/options", a1111.set_options),
    web.get("/sdapi/v1/sd-models", a1111.list_checkpoints),
    web.get("/sdapi/v1/samplers", a1111.list_samplers),
    web.get("/sdapi/v1/schedulers", a1111.list_schedulers),
    web.get("/sdapi/v1/upscalers", a1111.list_upscalers),
    web.get("/sdapi/v1/latent-upscale-modes", a1111.list_nothing),
    web.get("/sdapi/v1/sd-vae", a1111.list_nothing),
    web.get("/sdapi/v1/loras", a1111.list_loras),
    web.get("/sdapi/v1/progress", a1111.tell_progress),
    web.post("/sdapi/v1/interrupt", a1111.interrupt),
    web.post("/sdapi/v1/png-info", a1111.tell_png_info),
]
SELF = [
    web.get("/", system.tell_self),
    web.get("/ui", system.lead_to_self),
    web.get("/ui/{rest:.*}", system.lead_to_self),
    web.get("/favicon.ico", system.no_icon),
    web.get("/health", admin.health),
    web.get("/wol-health", admin.health),
    web.get("/healthz", admin.healthz),
    web.get("/ready", admin.ready),
    web.get("/api/version", system.tell_version),
    web.get("/api/hardware", system.tell_hardware),
]


UNNAMED = frozenset({"missing_model", "invalid_json", "invalid_multipart"})
"""Codes of requests in which no model could be found."""


@web.middleware
async def else_by_model(request: web.Request, handler: middleware.Handler) -> web.StreamResponse:
    """Send a POST that no path of the table takes to the model that it names, if it may be one."""
    is_unknown = isinstance(request.match_info.http_exception, web.HTTPNotFound)
    prefixes = config_of(request).routes if is_unknown else ()
    if not is_unknown or not paths.is_for_a_model(request.method, request.path, prefixes):
        return await handler(request)
    try:
        return await inference.dispatch(request)
    except BadRequest as error:
        if error.told_code not in UNNAMED:
            raise
        told = f"no such path: {request.method} {request.path}; nor does it name a model"
        raise NotFound(f"{told}: {error.message}") from None
