"""Pictures and what they were made with → bytes and the JSON of an answer."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from workers.sd.bodies import ImageBody
from workers.sd.job import Job
from workers.sd.plan import Plan

DEFAULT_QUALITY = 90
BLACK = (
    "a picture is all black: the numbers ran over; try keep_clip_on_cpu, diffusion_flash_attn or"
    " another vae in swap.yaml"
)
_UNTOLD = ("prompt", "init", "mask", "references", "loras", "vae_bytes", "room_bytes")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One finished picture."""

    seed: int
    raw: bytes
    size: tuple[int, int]
    is_black: bool


def encode(image: Image.Image, body: ImageBody, made: Plan, seed: int) -> Encoded:
    """Encode as the request wants; a PNG also tells how it was made."""
    to = io.BytesIO()
    if body.output_format == "png":
        info = PngInfo()
        info.add_text("parameters", parameters_text(made.job, seed, image.size))
        image.save(to, "PNG", pnginfo=info)
    else:
        quality = DEFAULT_QUALITY if body.output_compression is None else body.output_compression
        image.save(to, kind(body).upper(), quality=max(1, quality))
    is_black = image.convert("L").getextrema() == (0, 0)
    return Encoded(seed, to.getvalue(), image.size, is_black)


def kind(body: ImageBody) -> str:
    """Name the format as a MIME subtype: png, jpeg or webp."""
    return "jpeg" if body.output_format == "jpg" else body.output_format


def answer(body: ImageBody, plan: Plan, encoded: Sequence[Encoded]) -> dict[str, Any]:
    """Make the body of an answer; never a `url` beside `b64_json`, which clients would prefer."""
    width, height = plan.answer_size
    return {
        "created": int(time.time()),
        "data": [{**_payload(body, one), "seed": one.seed} for one in encoded],
        "output_format": kind(body),
        "size": f"{width}x{height}",
        "seed": plan.seeds[0],
        "parameters": parameters(plan.job),
        **warnings_of(encoded),
    }


def warnings_of(encoded: Sequence[Encoded]) -> dict[str, list[str]]:
    """Make the field that tells of pictures which are surely not what was asked for."""
    return {"warnings": [BLACK]} if any(one.is_black for one in encoded) else {}


def base64_of(picture: Encoded) -> str:
    """Write a picture as bare base64."""
    return base64.b64encode(picture.raw).decode()


def _payload(body: ImageBody, picture: Encoded) -> dict[str, str]:
    text = base64_of(picture)
    if body.response_format != "b64_json":
        return {"url": f"data:image/{kind(body)};base64,{text}"}
    return {"b64_json": text}


def parameters(job: Job) -> dict[str, Any]:
    """Tell what was really used, sizes before any resizing; only what has a meaning here."""
    told = {
        field.name: value
        for field in fields(job)
        if field.name not in _UNTOLD and (value := getattr(job, field.name)) not in (None, "")
    }
    if job.init is None:
        del told["strength"]
    if job.loras:
        told["loras"] = [{"name": lora.name, "weight": lora.weight} for lora in job.loras]
    return told


def parameters_text(job: Job, seed: int, size: tuple[int, int]) -> str:
    """Write the text chunk that image programs read (AUTOMATIC1111's `parameters`)."""
    lines = [job.prompt]
    if job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    settings = {
        "Steps": job.steps,
        "Sampler": job.sample_method,
        "Schedule type": job.scheduler,
        "CFG scale": job.cfg_scale,
        "Distilled CFG Scale": job.guidance,
        "Seed": seed,
        "Size": f"{size[0]}x{size[1]}",
        "Denoising strength": None if job.init is None else job.strength,
        "Lora": " ".join(f"<lora:{lora.name}:{lora.weight:g}>" for lora in job.loras) or None,
    }
    told = (f"{name}: {value}" for name, value in settings.items() if value is not None)
    return "\n".join([*lines, ", ".join(told)])
