"""The face of AUTOMATIC1111's web UI at the root: what its clients ask beside txt2img and img2img.

They name a model once, as an option, and then no more: see `checkpoint`. Nothing here waits for a
worker that loads, and nothing loads one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from proxy.body import read_blindly
from proxy.errors import BadRequest, NotFound
from proxy.jobs import Job, JobState
from proxy.routes import inference
from proxy.routes.checkpoint import CHECKPOINT, painters
from proxy.routes.jobs import JOBS, cancel, jobs_for, state_of
from proxy.routes.keys import POOL, config_of
from proxy.routes.loras import loras_of
from proxy.routes.pngtext import NotPng, texts_of

SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "Euler": ("euler", "k_euler"),
    "Euler a": ("euler_a", "k_euler_a"),
    "Heun": ("heun", "k_heun"),
    "DPM2": ("dpm2", "k_dpm_2"),
    "DPM++ 2S a": ("dpm++2s_a",),
    "DPM++ 2M": ("dpm++2m",),
    "DPM++ 2M v2": ("dpm++2mv2",),
    "LCM": ("lcm", "k_lcm"),
    "DDIM": ("ddim", "ddim_trailing"),
    "TCD": ("tcd",),
    "IPNDM": ("ipndm",),
    "IPNDM v": ("ipndm_v",),
    "Res multistep": ("res_multistep",),
    "Res 2s": ("res_2s",),
    "ER SDE": ("er_sde",),
}
"""Under the names that clients know them by, with others for the same."""
SCHEDULERS: Mapping[str, str] = {
    "automatic": "Automatic",
    "uniform": "Uniform",
    "discrete": "Discrete",
    "karras": "Karras",
    "exponential": "Exponential",
    "ays": "AYS",
    "gits": "GITS",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "smoothstep": "Smoothstep",
    "kl_optimal": "KL Optimal",
    "lcm": "LCM",
    "bong_tangent": "Bong tangent",
}
"""By name, with what people are shown."""
OPTION = "sd_model_checkpoint"
OPTIONS_BYTES = 1 << 20
PICTURE_BYTES = 64 << 20


async def tell_options(request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/options."""
    name = request.app[CHECKPOINT].name(config_of(request))
    return web.json_response({OPTION: name, "sd_vae": "Automatic", "samples_format": "png"})


async def set_options(request: web.Request) -> web.Response:
    """Answer POST /sdapi/v1/options: of all options, the checkpoint is the one that counts."""
    name = (await _asked(request, OPTIONS_BYTES)).get(OPTION)
    if isinstance(name, str) and name:
        request.app[CHECKPOINT].choose(config_of(request), name)
    elif name is not None:
        raise BadRequest(f"{OPTION}: it is the name of a model", param=OPTION)
    return web.json_response(None)


async def list_checkpoints(request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/sd-models: the models that paint."""
    config = config_of(request)
    names = list(painters(config))
    current = request.app[CHECKPOINT].name(config)
    if current is not None and current not in names:
        names.append(current)  # clients look for what the options say
    nothing = {"hash": None, "sha256": None, "config": None}
    told = [{"title": name, "model_name": name, "filename": name, **nothing} for name in names]
    return web.json_response(told)


async def list_samplers(_request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/samplers."""
    told = [{"name": n, "aliases": [*others], "options": {}} for n, others in SAMPLERS.items()]
    return web.json_response(told)


async def list_schedulers(_request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/schedulers."""
    told = [{"name": name, "label": label, "aliases": None} for name, label in SCHEDULERS.items()]
    return web.json_response(told)


async def list_nothing(_request: web.Request) -> web.Response:
    """Answer where a client asks for what there is none of, and lives without."""
    return web.json_response([])


async def list_upscalers(_request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/upscalers: clients want at least this one."""
    nothing = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return web.json_response([{"name": "None", **nothing}])


async def list_loras(request: web.Request) -> web.StreamResponse:
    """Answer GET /sdapi/v1/loras: those of the model that is named, else of the checkpoint."""
    config = config_of(request)
    name = request.query.get("model")
    current = name or request.app[CHECKPOINT].name(config)
    model_id = config.resolve(current) if current is not None else None
    if model_id is None or config.models[model_id].kind != "sd":
        return web.json_response([]) if name is None else await inference.dispatch(request)
    loras = await loras_of(config, request.app[POOL], model_id)
    return web.json_response([{**_named_thrice(one.name), "fits": one.fits} for one in loras])


def _named_thrice(name: str) -> Mapping[str, object]:
    return {"name": name, "alias": name, "path": name, "metadata": {}}


async def tell_progress(request: web.Request) -> web.Response:
    """Answer GET /sdapi/v1/progress: of the picture that is painted now, if one may see it."""
    jobs = [job for job in jobs_for(request) if not job.is_over]
    running = next((job for job in jobs if _is_running(request, job)), None)
    if running is not None:
        await request.app[JOBS].look(running)
    seen = running.progress if running is not None else None
    hides = request.query.get("skip_current_image", "").lower() in ("1", "true")
    return web.json_response(
        {
            "progress": seen.part if seen is not None else 0.0,
            "eta_relative": (seen.eta_s if seen is not None else None) or 0.0,
            "state": {
                "skipped": False,
                "interrupted": False,
                "stopping_generation": False,
                "job": running.id if running is not None else "",
                "job_count": len(jobs),
                "job_timestamp": _stamp(running.created_at) if running is not None else "0",
                "job_no": max(0, (seen.image or 1) - 1) if seen is not None else 0,
                "sampling_step": (seen.step or 0) if seen is not None else 0,
                "sampling_steps": (seen.steps or 0) if seen is not None else 0,
            },
            "current_image": seen.preview if seen is not None and not hides else None,
            "textinfo": None,
        }
    )


async def interrupt(request: web.Request) -> web.StreamResponse:
    """Answer POST /sdapi/v1/interrupt: what runs for AUTOMATIC1111's clients ends.

    With keys, what runs for this one. Who names a model with a worker that is none of ours means
    that worker.
    """
    if request.can_read_body:
        with suppress(NotFound, BadRequest):  # it names no model, or one of ours
            return await inference.dispatch(request)
    for job in jobs_for(request):
        if job.path.startswith("/sdapi/") and _is_running(request, job):
            cancel(request.app, job)
    return web.json_response({})


async def tell_png_info(request: web.Request) -> web.Response:
    """Answer POST /sdapi/v1/png-info: the texts that a PNG holds, and the one that tells how."""
    most_bytes = min(PICTURE_BYTES, config_of(request).max_body_bytes)
    image = (await _asked(request, most_bytes)).get("image")
    if not isinstance(image, str):
        raise BadRequest("image: send a PNG as base64", param="image")
    try:
        items = await asyncio.to_thread(_texts_of, image)
    except (binascii.Error, NotPng) as error:
        raise BadRequest(f"image: this is no PNG in base64: {error}", param="image") from None
    told = {"info": items.get("parameters", ""), "items": items, "parameters": {}}
    return web.json_response(told)


def _texts_of(image: str) -> Mapping[str, str]:
    return texts_of(base64.b64decode(image.rpartition(",")[2], validate=True))


def _is_running(request: web.Request, job: Job) -> bool:
    return state_of(request.app, job) is JobState.RUNNING


def _stamp(at: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(at))


async def _asked(request: web.Request, max_bytes: int) -> Mapping[str, object]:
    config = config_of(request)
    with await read_blindly(request, max_bytes, config.stall_timeout) as body:
        raw = b"".join([bytes(chunk) async for chunk in body.chunks()])
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return told
