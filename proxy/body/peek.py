"""What a request's body says about itself, read without building the megabytes beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from proxy.errors import BadRequest

PICTURE_PARTS = frozenset({"image_url", "input_image", "image", "image_file"})
MAX_SIDE = 1 << 20  # of a picture, in pixels: more is no size
FIELDS = ("model", "stream", "size", "width", "height", "response_format", "on_disconnect")
"""Read of forms; JSON tells more."""
FIELD_BYTES = 1 << 10
_SIZE = re.compile(r"\s*([0-9]{1,7})\s*[xX]\s*([0-9]{1,7})\s*")
_SIDE = re.compile(r"\s*[0-9]{1,7}\s*")


@dataclass(frozen=True, slots=True)
class Peek:
    """What routing and the turn of a request need to know of its body."""

    model: str | None = None
    has_pictures: bool = False
    is_stream: bool = False
    keep_alive: str | float | None = None  # as given
    priority: str | int | None = None  # as given
    pixels: int | None = None  # of the picture that is asked for; None: it does not say
    checkpoint: str | None = None  # AUTOMATIC1111's other way to name a model
    response_format: str | None = None
    on_disconnect: str | None = None  # as given


class _Part(BaseModel):
    type: str = ""


class _Message(BaseModel):
    content: Annotated[str | list[_Part] | None, Field(union_mode="left_to_right")] = None


class _Document(BaseModel):
    """Only these keys become Python objects; megabytes of base64 beside them do not.

    What is an `object` here may be anything: the worker is the judge of it, or we are, below.
    """

    model: str | None = None
    messages: list[_Message] | None = None
    stream: object = None
    keep_alive: object = None
    priority: object = None
    size: object = None
    width: object = None
    height: object = None
    override_settings: object = None
    response_format: object = None
    on_disconnect: object = None


def peek_json(raw: bytes) -> Peek:
    """Look into a JSON body. Raises BadRequest."""
    try:
        document = _Document.model_validate_json(raw)
    except ValidationError as error:
        raise _as_bad_request(error) from None
    parts = [
        part.type
        for message in document.messages or ()
        if isinstance(message.content, list)
        for part in message.content
    ]
    return Peek(
        document.model,
        has_pictures=not PICTURE_PARTS.isdisjoint(parts),
        is_stream=document.stream is True,
        keep_alive=_keep_alive(document.keep_alive),
        priority=_priority(document.priority),
        pixels=pixels_of(document.size, document.width, document.height),
        checkpoint=_checkpoint(document.override_settings),
        response_format=_text(document.response_format),
        on_disconnect=None if document.on_disconnect is None else str(document.on_disconnect),
    )


def peek_texts(texts: Mapping[str, str]) -> Peek:
    """Look into the `FIELDS` of a form."""
    return Peek(
        texts.get("model") or None,
        is_stream=texts.get("stream", "").strip().lower() in ("true", "1"),
        pixels=pixels_of(texts.get("size"), texts.get("width"), texts.get("height")),
        response_format=texts.get("response_format"),
        on_disconnect=texts.get("on_disconnect") or None,
    )


def pixels_of(size: object, width: object, height: object) -> int | None:
    """Count the pixels that are asked for, by width and height, else by "1024x1024"."""
    sides = _side(width), _side(height)
    if None in sides and isinstance(size, str) and (found := _SIZE.fullmatch(size)):
        sides = _side(found[1]), _side(found[2])
    wide, high = sides
    return None if wide is None or high is None else wide * high


def _side(value: object) -> int | None:
    if isinstance(value, str) and _SIDE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= MAX_SIDE else None


def _checkpoint(settings: object) -> str | None:
    return _text(settings.get("sd_model_checkpoint")) if isinstance(settings, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _keep_alive(value: object) -> str | float | None:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    told = 'keep_alive must be seconds or a text such as "5m"'
    raise BadRequest(told, param="keep_alive", code="invalid_value")


def _priority(value: object) -> str | int | None:
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    told = "priority must be a whole number or one of high, normal, low"
    raise BadRequest(told, param="priority", code="invalid_value")


def _as_bad_request(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    if not first["loc"]:
        return BadRequest("the body must be a JSON object", code="invalid_json")
    names = [str(part) for part in first["loc"] if not str(part).startswith(("list[", "str"))]
    return BadRequest(
        f"{'.'.join(names)}: {first['msg']}", param=".".join(names), code="invalid_value"
    )
