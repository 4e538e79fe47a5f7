"""A request and a model's limits → the pictures to paint, or the reason why not.

Everything that would crash the engine, or make it paint something else than was asked, ends here.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from workers import pictures, wire
from workers.sd import loras, samplers
from workers.sd.bodies import Asked, Fit, ImageBody, Size
from workers.sd.families import Family
from workers.sd.job import Job
from workers.sd.options import SdOptions

MIN_SIDE_PX = 16
MAX_ASPECT = 10  # thinner pictures round to no latents at all
MAX_EDIT_AREA = 2  # times the default area: larger, models repeat themselves
MAX_REFERENCE_PIXELS = 1 << 20  # the engine's own bound
MAX_REFERENCE_SIDE_PX = 2048
SEED_BITS = 31  # what other programs can take
_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX*]\s*(\d{1,5})\s*")


@dataclass(frozen=True, slots=True)
class Model:
    """What a plan needs to know of the loaded model."""

    options: SdOptions
    family: Family
    references: bool
    weights: loras.Weights
    vae_bytes: Callable[[int], int | None] = lambda _: None
    """Tells what decoding so many pixels takes, where tiles would take less."""

    @property
    def lora_dir(self) -> Path | None:
        return Path(self.options.lora_dir) if self.options.lora_dir else None

    @property
    def default_size(self) -> Size:
        defaults = self.options.defaults
        return self.family.size(defaults.width, defaults.height)

    def rounded(self, size: Size) -> Size:
        """Round up to what the engine can paint."""
        multiple = self.family.size_multiple
        return (-(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple)


MAX_LORAS = 16
MAX_LORA_WEIGHT = 10
WEBP_SIDE_PX = 16383  # the format's bound


@dataclass(frozen=True, slots=True)
class Plan:
    """What to paint, and how to hand it over."""

    job: Job
    seeds: tuple[int, ...]
    answer_size: Size
    original: Image.Image | None = None  # RGB, answer_size; stays where `painted_anew` is black
    painted_anew: Image.Image | None = None  # L, answer_size; white where the new picture shows

    def finished(self, image: Image.Image) -> Image.Image:
        """Bring what the engine painted to the answer's size, and put back what was to stay."""
        if image.size != self.answer_size:
            image = image.resize(self.answer_size, Image.Resampling.LANCZOS)
        if self.original is not None and self.painted_anew is not None:
            image = Image.composite(image, self.original, self.painted_anew)
        return image


def make(asked: Asked, model: Model, room_bytes: int | None = None) -> Plan:
    """Decide every number; decodes the pictures, so call it from a thread. Raises ApiError.

    `room_bytes` is what decoding may take; None: nobody counts.
    """
    body = asked.body
    _check_counts(body, model.options)
    images = _decoded(asked.images, model.options)
    size = _asked_size(body, model)
    answer = size or (images[0].size if images else model.rounded(model.default_size))
    if body.output_format == "webp" and max(answer) > WEBP_SIDE_PX:
        told = f"a WebP has at most {WEBP_SIDE_PX} pixels a side; ask for png, or give a size"
        raise wire.bad_request(told, param="output_format")
    work = size or (_edit_size(answer, model) if images else answer)
    job = _tiled(_text_job(body, model, work), body, model, room_bytes)
    plan = Plan(job, _seeds(body), answer)
    # a size that was asked for may have another aspect
    fit = Image.Image.resize if size is None else asked.fit or ImageOps.fit
    return _with_pictures(plan, asked, images, model, fit)


def _check_counts(body: ImageBody, options: SdOptions) -> None:
    for param, prompt in {"prompt": body.prompt, "negative_prompt": body.negative_prompt}.items():
        if len(prompt or "") > options.max_prompt_chars:
            told = f"prompts have at most {options.max_prompt_chars} characters (max_prompt_chars)"
            raise wire.bad_request(told, param=param)
    if body.n > options.max_n:
        raise wire.bad_request(f"n is at most {options.max_n} (max_n)", param="n")
    if body.steps is not None and body.steps > options.max_steps:
        told = f"steps are at most {options.max_steps} (max_steps)"
        raise wire.bad_request(told, param="steps")


def _asked_size(body: ImageBody, model: Model) -> Size | None:
    """Read `width`, `height` and `size`, rounded up; None when none is asked for."""
    asked = _parsed_size(body.size)
    if asked is None and body.width is None and body.height is None:
        return None
    width, height = asked or model.default_size
    width = width if body.width is None else body.width
    height = height if body.height is None else body.height
    size = model.rounded((width, height))
    sides = {"width": body.width, "height": body.height}
    param = next((name for name, side in sides.items() if side is not None), "size")
    if min(width, height) < MIN_SIDE_PX:
        raise wire.bad_request(f"a side is at least {MIN_SIDE_PX} px", param=param)
    if size[0] * size[1] > model.options.max_pixels:
        raise wire.bad_request(
            f"{size[0]}x{size[1]} is over the {model.options.max_pixels} pixels that this model"
            " may paint (max_pixels)",
            param=param,
        )
    _check_aspect(size, param)
    return size


def _parsed_size(text: str | None) -> Size | None:
    if text is None or text.strip().lower() in ("", "auto"):
        return None
    found = _SIZE.fullmatch(text)
    if not found:
        raise wire.bad_request(
            'size is WIDTHxHEIGHT, such as "1024x1024", or "auto"', param="size"
        )
    return int(found[1]), int(found[2])


def _check_aspect(size: Size, param: str) -> None:
    if max(size) > MAX_ASPECT * min(size):
        raise wire.bad_request(
            f"{size[0]}x{size[1]} is too thin; one side is at most {MAX_ASPECT} times the other",
            param=param,
        )


def _edit_size(asked: Size, model: Model) -> Size:
    """Fit the size of a picture to be edited into what the model paints well."""
    default = model.default_size
    most = min(MAX_EDIT_AREA * default[0] * default[1], model.options.max_pixels)
    return _fitted(asked, most, model.family.size_multiple)


def _fitted(size: Size, most_pixels: int, multiple: int) -> Size:
    """Scale down to at most about `most_pixels`, keeping the aspect, in multiples."""
    scale = min(1.0, math.sqrt(most_pixels / (size[0] * size[1])))
    width, height = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return width, height


def _seeds(body: ImageBody) -> tuple[int, ...]:
    first = secrets.randbits(SEED_BITS) if body.seed < 0 else body.seed
    return tuple(range(first, first + body.n))


def _text_job(body: ImageBody, model: Model, size: Size) -> Job:
    defaults, family = model.options.defaults, model.family
    sample_method, scheduler = samplers.split(body.sample_method)
    prompt, tagged = loras.take_tags(body.prompt)
    wanted = [*((entry.name, entry.weight) for entry in body.loras), *tagged]
    if len(wanted) > MAX_LORAS or any(abs(weight) > MAX_LORA_WEIGHT for _, weight in wanted):
        told = f"at most {MAX_LORAS} LoRAs, each with a weight of at most {MAX_LORA_WEIGHT}"
        raise wire.bad_request(told, param="loras")
    guidance, cfg_scale = body.guidance_scale, body.cfg_scale
    if cfg_scale is None and family.distilled_guidance is None:
        cfg_scale = guidance  # where there is no other guidance, it is what is meant
    if guidance is None:
        guidance = defaults.guidance_scale
    return Job(
        prompt=prompt,
        width=size[0],
        height=size[1],
        steps=body.steps or defaults.steps or family.steps,
        cfg_scale=_first(cfg_scale, defaults.cfg_scale, family.cfg_scale),
        guidance=None
        if family.distilled_guidance is None
        else _first(guidance, family.distilled_guidance),
        negative_prompt=body.negative_prompt or defaults.negative_prompt,
        sample_method=_known(
            samplers.sample_method, sample_method or defaults.sample_method, "sample_method"
        ),
        scheduler=_known(
            samplers.scheduler, body.scheduler or scheduler or defaults.scheduler, "scheduler"
        ),
        clip_skip=body.clip_skip or defaults.clip_skip,
        flow_shift=defaults.flow_shift if body.flow_shift is None else body.flow_shift,
        loras=tuple(loras.find(model.lora_dir, n, w, model.weights) for n, w in wanted),
    )


def _tiled(job: Job, body: ImageBody, model: Model, room_bytes: int | None) -> Job:
    """Decide about tiles, or leave it to the engine's thread, which sees what is free."""
    wanted = model.options.vae_tiling if body.vae_tiling is None else body.vae_tiling
    if wanted != "auto":
        return replace(job, vae_tiling=wanted)
    whole_bytes = model.vae_bytes(job.width * job.height)
    return replace(job, vae_bytes=whole_bytes, room_bytes=room_bytes)


def _first(*values: float | None) -> float:
    """Give the first that is given; the last one is."""
    return next(value for value in values if value is not None)


def _known(find: Callable[[str | None], str | None], name: str | None, param: str) -> str | None:
    try:
        return find(name)
    except samplers.Unknown as error:
        raise wire.bad_request(str(error), param=param) from None


def _decoded(raws: Sequence[bytes], options: SdOptions) -> list[Image.Image]:
    """Decode the pictures of a request; only the first is kept at its full size."""
    if len(raws) > options.max_images:
        told = f"at most {options.max_images} pictures (max_images)"
        raise wire.bad_request(told, param="image")
    images: list[Image.Image] = []
    for raw in raws:
        image = pictures.decode(raw, param="image", max_pixels=options.max_image_pixels).image
        _check_aspect(image.size, "image")
        if images:
            image.thumbnail((MAX_REFERENCE_SIDE_PX, MAX_REFERENCE_SIDE_PX))
        images.append(image)
    return images


def _with_pictures(
    plan: Plan, asked: Asked, images: list[Image.Image], model: Model, fit: Fit
) -> Plan:
    """Give the pictures their roles: references, or the one to paint over, or both."""
    if not images:
        if asked.mask is not None:
            raise wire.bad_request("a mask needs an image", param="image", code="missing_field")
        return plan
    if len(images) > 1 and not model.references:
        raise wire.bad_request(
            f"{model.family.name} edits one picture; it takes no references", param="image"
        )
    over = not model.references or asked.mask is not None or asked.body.strength is not None
    looked_at = images if model.references else []
    if over and asked.mask is None:
        looked_at = looked_at[1:]
    pixels = min(plan.job.width * plan.job.height, MAX_REFERENCE_PIXELS)
    references = tuple(_reference(image, pixels, model) for image in looked_at)
    plan = replace(plan, job=replace(plan.job, references=references))
    return _painted_over(plan, asked, images[0], model, fit) if over else plan


def _painted_over(plan: Plan, asked: Asked, image: Image.Image, model: Model, fit: Fit) -> Plan:
    work = (plan.job.width, plan.job.height)
    whole = 1.0 if asked.mask is not None else model.options.defaults.strength
    job = replace(plan.job, init=fit(image, work), strength=_first(asked.body.strength, whole))
    if asked.mask is None:
        return replace(plan, job=job)
    most = model.options.max_image_pixels
    mask = pictures.decode(
        asked.mask, param="mask", convert=asked.to_mask, max_pixels=most
    ).image.resize(image.size)
    return replace(
        plan,
        job=replace(job, mask=fit(mask, work)),
        original=fit(image, plan.answer_size),
        painted_anew=fit(mask, plan.answer_size),
    )


def _reference(image: Image.Image, pixels: int, model: Model) -> Image.Image:
    return image.resize(_fitted(image.size, pixels, max(16, model.family.size_multiple)))
