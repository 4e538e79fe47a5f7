"""The shapes of the requests: JSON and multipart, with the names that OpenAI and others use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import from_json

from workers import pictures, wire
from workers.sd import extras

MAX_PROMPT_CHARS = 8000
"""std::regex in the engine recurses by the character; 32 000 are the end of an 8 MB stack."""

MAX_PICTURES = 16  # OpenAI's bound
MAX_PARTIALS = 3  # likewise

Size = tuple[int, int]
Fit = Callable[[Image.Image, Size], Image.Image]


VARIATION_STRENGTH = 0.6  # of another picture of the same
STRENGTH_NAMES = ("strength", "denoising_strength")
GUIDANCE_NAMES = ("guidance_scale", "guidance", "distilled_cfg_scale")
SAMPLER_NAMES = ("sample_method", "sampler_name", "sampler", "sampler_index")


def _picture_texts(value: Any) -> Any:
    """Take "…", ["…"] and [{"image_url": "…"}] for a list of data: URIs."""
    items = value if isinstance(value, list) else [value]
    return [item.get("image_url", item) if isinstance(item, dict) else item for item in items]


def _lora_entries(value: Any) -> Any:
    """Take a name, a list of names, and either as JSON in a form field, for a list of objects."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = from_json(value)  # its ValueError is pydantic's to tell
    items = value if isinstance(value, list) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in items]


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), AfterValidator(_no_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Pictures = Annotated[list[str], BeforeValidator(_picture_texts), Field(max_length=MAX_PICTURES)]


class LoraBody(wire.Body):
    """One LoRA of a request."""

    name: str = Field(validation_alias=AliasChoices("name", "path"), min_length=1, max_length=300)
    weight: Number = Field(
        1.0, validation_alias=AliasChoices("weight", "multiplier", "scale"), ge=-10, le=10
    )


class ImageBody(wire.Body):
    """What is read of a request; nulls and empty form fields count as not given."""

    prompt: Text
    n: int = Field(1, validation_alias=AliasChoices("n", "batch_size"), ge=1)
    size: str | None = None
    width: int | None = None
    height: int | None = None
    response_format: Literal["b64_json", "url", "data_url"] = "b64_json"
    output_format: Literal["png", "jpeg", "jpg", "webp"] = "png"
    output_compression: int | None = Field(None, ge=0, le=100)
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=MAX_PARTIALS)

    negative_prompt: Text | None = None
    seed: int = Field(-1, ge=-1, lt=1 << 62)
    steps: int | None = Field(
        None, validation_alias=AliasChoices("steps", "num_inference_steps"), ge=1
    )
    cfg_scale: Number | None = Field(None, ge=0, le=100)
    guidance_scale: Number | None = Field(
        None, validation_alias=AliasChoices(*GUIDANCE_NAMES), ge=0, le=100
    )
    sample_method: str | None = Field(None, validation_alias=AliasChoices(*SAMPLER_NAMES))
    scheduler: str | None = None
    strength: Number | None = Field(
        None, validation_alias=AliasChoices(*STRENGTH_NAMES), ge=0, le=1
    )
    clip_skip: int | None = Field(None, ge=-1, le=12)
    flow_shift: Number | None = Field(None, ge=0, le=100)
    vae_tiling: bool | None = None
    loras: Annotated[list[LoraBody], BeforeValidator(_lora_entries)] = Field(
        default_factory=list, validation_alias=AliasChoices("loras", "lora"), max_length=16
    )
    image: Pictures = Field(
        default_factory=list, validation_alias=AliasChoices("image", "images", "image[]")
    )
    mask: Pictures = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_not_given(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        prompt = given.get("prompt")
        if not isinstance(prompt, str):
            return given
        given["prompt"], block = extras.take(prompt)
        said = {ours for ours in block if given.keys() & _names_of(cls, ours)}
        return {**{ours: value for ours, value in block.items() if ours not in said}, **given}


class VariationBody(ImageBody):
    """A request for variations of a picture, which needs no words."""

    prompt: Text = ""
    strength: Number | None = Field(
        VARIATION_STRENGTH, validation_alias=AliasChoices(*STRENGTH_NAMES), ge=0, le=1
    )


def _names_of(shape: type[ImageBody], field: str) -> set[str]:
    """List the names that a field goes by."""
    alias = shape.model_fields[field].validation_alias if field in shape.model_fields else None
    return (
        {field, *(str(c) for c in alias.choices)} if isinstance(alias, AliasChoices) else {field}
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: its fields, and its pictures still encoded."""

    body: ImageBody
    images: tuple[bytes, ...]
    mask: bytes | None
    to_mask: pictures.Convert = pictures.to_mask
    fit: Fit | None = None  # into a size that was asked for; None: crop, and do not distort


async def read(request: web.Request) -> Asked:
    """Read a request of either kind. Raises ApiError 400."""
    asked = await _read(request, ImageBody)
    if not asked.body.prompt.strip():
        raise wire.bad_request("the prompt is empty", param="prompt")
    return asked


async def read_edit(request: web.Request) -> Asked:
    """Read a request that needs a picture. Raises ApiError 400."""
    return _with_picture(await read(request))


async def read_variation(request: web.Request) -> Asked:
    """Read a request for variations. Raises ApiError 400."""
    return _with_picture(await _read(request, VariationBody))


def _with_picture(asked: Asked) -> Asked:
    if asked.images:
        return asked
    raise wire.bad_request(
        "this needs a picture: send `image`", param="image", code="missing_field"
    )


async def _read(request: web.Request, shape: type[ImageBody]) -> Asked:
    if request.content_type.startswith("multipart/"):
        return await _read_form(request, shape)
    return _asked(await wire.read_body(request, shape), (), ())


async def _read_form(request: web.Request, shape: type[ImageBody]) -> Asked:
    form = await wire.read_form(request)
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {"image": [], "mask": []}
    for name, value in form.items():
        plain = name.removesuffix("[]")
        raw = _raw(value)
        if plain in files and raw is not None:
            files[plain].append(raw)
        elif plain in files:
            fields.setdefault(plain, []).append(value)
        elif raw is None:
            fields[plain] = value
    body = wire.parse_fields(fields, shape)
    return _asked(body, files["image"], files["mask"])


def _raw(value: object) -> bytes | None:
    """Give the bytes of a file, or None for a text."""
    if isinstance(value, FileField):
        with value.file as file:
            return file.read()
    return bytes(value) if isinstance(value, (bytes, bytearray)) else None


def _asked(body: ImageBody, images: Any, masks: Any) -> Asked:
    texts = [pictures.bytes_of(text, param="image") for text in body.image]
    more_masks = [pictures.bytes_of(text, param="mask") for text in body.mask]
    images, masks = (*images, *texts), (*masks, *more_masks)
    if len(images) > MAX_PICTURES:
        raise wire.bad_request(f"at most {MAX_PICTURES} pictures", param="image")
    if len(masks) > 1:
        raise wire.bad_request("at most one mask", param="mask")
    return Asked(body, images, masks[0] if masks else None)
