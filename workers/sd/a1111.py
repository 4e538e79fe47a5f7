"""The bodies and answers of AUTOMATIC1111's API, as far as an engine of ours can follow them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import Image, ImageFilter, ImageOps
from pydantic import AliasChoices, Field

from workers import pictures, wire
from workers.sd import answers
from workers.sd.bodies import (
    MAX_PICTURES,
    STRENGTH_NAMES,
    Asked,
    Fit,
    ImageBody,
    Number,
    Pictures,
    Text,
)
from workers.sd.plan import Plan

MASK_BLUR_PX = 4  # its own default
STRENGTH = 0.75  # likewise
OPAQUE = 128
WITH_ALPHA = ("RGBA", "LA", "PA")


class Txt2Img(ImageBody):
    """What is read of a request for pictures from text; its other fields pass."""

    prompt: Text = ""
    n_iter: int = Field(1, ge=1)
    extra_images: Pictures = Field(default_factory=list)
    override_settings: dict[str, Any] = Field(default_factory=dict)


class Img2Img(Txt2Img):
    """What is read of a request for pictures over a picture."""

    init_images: Pictures = Field(default_factory=list)
    strength: Number | None = Field(
        STRENGTH, validation_alias=AliasChoices(*STRENGTH_NAMES), ge=0, le=1
    )
    inpainting_mask_invert: bool = False
    mask_blur: Number = Field(MASK_BLUR_PX, ge=0, le=256)
    resize_mode: int = Field(0, ge=0, le=3)


def txt2img(raw: bytes) -> Asked:
    """Read a request. Raises ApiError 400."""
    body = wire.parse_body(raw, Txt2Img)
    return Asked(_plain(body), _decoded(body.extra_images, "extra_images"), None)


def img2img(raw: bytes) -> Asked:
    """Read a request. Raises ApiError 400."""
    body = wire.parse_body(raw, Img2Img)
    images = _decoded([*body.init_images, *body.extra_images], "init_images")
    if not body.init_images:
        told = "send a picture in `init_images`"
        raise wire.bad_request(told, param="init_images", code="missing_field")
    masks = _decoded(body.mask, "mask")
    if len(masks) > 1:
        raise wire.bad_request("at most one mask", param="mask")
    return Asked(
        _plain(body),
        images,
        masks[0] if masks else None,
        to_mask=_mask_reader(invert=body.inpainting_mask_invert, blur_px=body.mask_blur),
        fit=FITS.get(body.resize_mode, Image.Image.resize),
    )


def _plain(body: Txt2Img) -> ImageBody:
    """Say in our own words what stands in theirs; the answer is always a PNG as bare base64."""
    skip = body.override_settings.get("CLIP_stop_at_last_layers")
    changed: dict[str, object] = {
        "n": body.n * body.n_iter,
        "output_format": "png",
        "stream": False,
    }
    if body.clip_skip is None and isinstance(skip, int):
        changed["clip_skip"] = min(max(skip, 1), 12)
    return body.model_copy(update=changed)


def _decoded(texts: Sequence[str], param: str) -> tuple[bytes, ...]:
    if len(texts) > MAX_PICTURES:
        raise wire.bad_request(f"at most {MAX_PICTURES} pictures", param=param)
    return tuple(pictures.bytes_of(text, param=param) for text in texts)


def _mask_reader(*, invert: bool, blur_px: float) -> pictures.Convert:
    """Make what reads a mask: white, or what is opaque where something is not, is painted anew."""

    def read(image: Image.Image) -> Image.Image:
        mask = _brightness(image)
        if invert:
            mask = ImageOps.invert(mask)
        return mask.filter(ImageFilter.GaussianBlur(blur_px)) if blur_px else mask

    return read


def _brightness(image: Image.Image) -> Image.Image:
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point(lambda value: 255 if value > OPAQUE else 0)
    return pictures.to_rgb(image).convert("L")


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Fit the whole picture in, and spread its edges over the rest."""
    inner = ImageOps.contain(image, size)
    whole = image.resize(size).filter(ImageFilter.GaussianBlur(max(size) // 16))
    whole.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return whole


FITS: Mapping[int, Fit] = {1: ImageOps.fit, 2: _padded}
"""By `resize_mode`; the others stretch."""


def answer(made: Plan, encoded: Sequence[answers.Encoded]) -> dict[str, object]:
    """Make the body of an answer; `info` is JSON inside a string, as its clients expect."""
    info = _info(made, encoded)
    shown = ("prompt", "negative_prompt", "seed", "width", "height", "sampler_name", "scheduler")
    counts = ("cfg_scale", "steps", "batch_size", "denoising_strength", "clip_skip")
    return {
        "images": [answers.base64_of(one) for one in encoded],
        "parameters": {name: info[name] for name in (*shown, *counts)},
        "info": json.dumps(info),
        **answers.warnings_of(encoded),
    }


def _info(made: Plan, encoded: Sequence[answers.Encoded]) -> dict[str, object]:
    job = made.job
    width, height = made.answer_size
    seeds = [one.seed for one in encoded]
    return {
        "prompt": job.prompt,
        "all_prompts": [job.prompt] * len(seeds),
        "negative_prompt": job.negative_prompt,
        "all_negative_prompts": [job.negative_prompt] * len(seeds),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(seeds),
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": job.sample_method or "default",
        "scheduler": job.scheduler or "Automatic",
        "cfg_scale": job.cfg_scale,
        "steps": job.steps,
        "batch_size": len(seeds),
        "denoising_strength": None if job.init is None else job.strength,
        "clip_skip": job.clip_skip or 1,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [answers.parameters_text(job, one.seed, one.size) for one in encoded],
        "styles": [],
        "job_timestamp": datetime.now(UTC).strftime("%Y%m%d%H%M%S"),
        "is_using_inpainting_conditioning": False,
    }


def lora_listing(listing: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Tell the LoRAs that fit the model, in the shape that its clients read."""
    return [
        {"name": one["name"], "alias": one["name"], "path": one["path"], "metadata": {}}
        for one in listing
        if one["fits"]
    ]
