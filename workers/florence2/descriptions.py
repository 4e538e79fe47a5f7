"""POST /v1/images/descriptions: one picture, any of five tasks, one look at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, Field

from workers import pictures, wire
from workers.florence2 import answers, tasks
from workers.florence2.engine import Engine
from workers.florence2.options import Florence2Options
from workers.florence2.turns import Turns

TEXT_TASKS = {
    "caption": tasks.CAPTION,
    "detailed_caption": tasks.MORE_DETAILED_CAPTION,
    "ocr": tasks.OCR,
}
TASK_NAMES = (*TEXT_TASKS, "objects", "tags")


def _as_names(value: object) -> object:
    """Take one name, names between commas, or a list of either (a form's repeated field)."""
    told = value if isinstance(value, list) else [value]
    parts = [part.split(",") if isinstance(part, str) else [part] for part in told]
    return [name.strip() if isinstance(name, str) else name for part in parts for name in part]


class Asked(wire.Body):
    """What is asked, by JSON or by a form. `language` is read by nobody: the model has English."""

    model: str = "florence2"
    task: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        BeforeValidator(_as_names),
        wire.or_default("caption"),
    ] = ("caption",)


class AskedByJson(Asked):
    image: str  # a data: URI or base64


class Descriptions:
    """The face for programs that want fields, not a conversation."""

    def __init__(self, turns: Turns, options: Florence2Options) -> None:
        self._turns = turns
        self._max_pixels = options.max_pixels

    def routes(self) -> list[web.RouteDef]:
        return wire.with_and_without_v1("/images/descriptions", self._describe)

    async def _describe(self, request: web.Request) -> web.Response:
        asked, image = await _read(request)
        _refuse_unknown(asked.task)
        picture = await asyncio.to_thread(self._decoded, image)
        told = await self._turns.take(lambda engine: described(engine, picture, asked.task))
        return web.json_response(told | {"model": asked.model})

    def _decoded(self, image: str | bytes) -> pictures.Picture:
        side_px, max_pixels = self._turns.engine.side_px, self._max_pixels
        if isinstance(image, str):
            return pictures.from_url(image, param="image", side_px=side_px, max_pixels=max_pixels)
        return pictures.decode(image, param="image", side_px=side_px, max_pixels=max_pixels)


async def _read(request: web.Request) -> tuple[Asked, str | bytes]:
    """Read a JSON body or a multipart form: what is asked, and the picture as it came."""
    if not request.content_type.startswith("multipart/"):
        asked = await wire.read_body(request, AskedByJson)
        return asked, asked.image
    form = await wire.read_form(request)
    image = form.get("image")
    if image is None:
        raise wire.bad_request("send the picture as the file field image", param="image")
    fields = {"task": form.getall("task", None), "model": form.get("model", "florence2")}
    # a part without a file name comes as a text or, with a content type, as bytes
    raw = image.file.read() if isinstance(image, web.FileField) else image
    raw = raw if isinstance(raw, str) else bytes(raw)
    return wire.parse_fields(fields, Asked), raw


def _refuse_unknown(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in TASK_NAMES]
    if unknown:
        told = f"unknown task {unknown[0]!r}; use any of {', '.join(TASK_NAMES)}"
        raise wire.bad_request(told, param="task", code="unknown_task")


def described(
    engine: Engine, picture: pictures.Picture, names: Sequence[str]
) -> dict[str, object]:
    """Fill the fields that are asked for; the others are None. Runs on the engine's thread."""
    begun = time.monotonic()
    sight = engine.look(picture.image)
    texts = {
        name: engine.text_of(engine.answer(sight, tasks.Question(task)))
        for name, task in TEXT_TASKS.items()
        if name in names
    }
    found = _objects(engine, sight, picture) if {"objects", "tags"} & set(names) else []
    in_english = set(names) - {"ocr"}  # of text in the picture the model does not say
    return {
        "caption": texts.get("caption"),
        "detailed_caption": texts.get("detailed_caption"),
        "tags": answers.tags(found) if "tags" in names else None,
        "objects": [_told(region) for region in found] if "objects" in names else None,
        "ocr_text": texts.get("ocr"),
        "language": "en" if in_english else None,
        "confidence_kind": "token_probability" if "objects" in names else None,
        "ms": round((time.monotonic() - begun) * 1000, 1),
        "width": picture.width,
        "height": picture.height,
    }


def _objects(engine: Engine, sight: Any, picture: pictures.Picture) -> list[answers.Region]:
    answer = engine.answer(sight, tasks.Question(tasks.OBJECTS))
    size_px = (picture.width, picture.height)
    return answers.regions(answer, tasks.OBJECTS.shape, engine.vocabulary, size_px)


def _told(region: answers.Region) -> dict[str, object]:
    return {"label": region.label, "bbox": region.points, "confidence": region.confidence}
