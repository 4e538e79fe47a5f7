"""What is asked of pictures: the tasks, and the shapes of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from aiohttp.web_request import FileField
from multidict import MultiDictProxy
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from workers import pictures, wire

MAX_PICTURES = 64
MAX_TEXT_CHARS = 20_000  # far more than a model reads; spares its tokenizer

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright picture."""


class Task(Enum):
    """What can be asked of a picture; the value is the name on the wire."""

    CAPTION = "caption"  # a short sentence
    DETAILED_CAPTION = "detailed_caption"  # a sentence or two
    MORE_DETAILED_CAPTION = "more_detailed_caption"  # a paragraph
    OCR = "ocr"  # the text that stands in the picture
    OCR_WITH_REGIONS = "ocr_with_regions"
    OBJECTS = "objects"
    DENSE_REGIONS = "dense_regions"  # boxes with a few words on each
    REGION_PROPOSALS = "region_proposals"  # boxes without any words
    PHRASE_GROUNDING = "phrase_grounding"  # where the things in `text` are
    OPEN_VOCABULARY = "open_vocabulary"  # where what `text` names is
    REFERRING_SEGMENTATION = "referring_segmentation"  # the outline of what `text` means
    REGION_TO_CATEGORY = "region_to_category"
    REGION_TO_DESCRIPTION = "region_to_description"
    REGION_TO_OCR = "region_to_ocr"
    REGION_TO_SEGMENTATION = "region_to_segmentation"
    TAGS = "tags"  # what is in the picture, each word once

    @property
    def field(self) -> str:
        """Name the field of the answer that the task fills."""
        return "ocr_text" if self is Task.OCR else self.value

    @property
    def takes_text(self) -> bool:
        return self in (Task.PHRASE_GROUNDING, Task.OPEN_VOCABULARY, Task.REFERRING_SEGMENTATION)

    @property
    def takes_region(self) -> bool:
        return self.value.startswith("region_to_")


ALIASES: Mapping[str, Task] = {
    "object_detection": Task.OBJECTS,  # HearthNet's
    # Florence-2's own
    "od": Task.OBJECTS,
    "ocr_with_region": Task.OCR_WITH_REGIONS,
    "dense_region_caption": Task.DENSE_REGIONS,
    "region_proposal": Task.REGION_PROPOSALS,
    "caption_to_phrase_grounding": Task.PHRASE_GROUNDING,
    "open_vocabulary_detection": Task.OPEN_VOCABULARY,
    "referring_expression_segmentation": Task.REFERRING_SEGMENTATION,
}
_TASKS = {**{task.value: task for task in Task}, **ALIASES}
_TASK_FIELDS = ("task", "task[]", "tasks", "tasks[]", "mode")
_ONE_PICTURE = ("image", "image_b64")
_PICTURE_FIELDS = (*_ONE_PICTURE, "image[]", "images", "images[]")

FormValue = str | bytes | bytearray | FileField
Form = MultiDictProxy[FormValue]


def names_of(tasks: Iterable[Task]) -> str:
    return ", ".join(task.value for task in tasks)


def _tasks_of(value: object) -> tuple[Task, ...]:
    """Take one name, names between commas, or a list of either (a form's repeated field)."""
    told = value if isinstance(value, list | tuple) else [value]
    parts = [part for part in told if isinstance(part, str)]
    if not parts or len(parts) < len(told):
        raise ValueError("give the name of a task, or a list of names")
    names = [name.strip() for part in parts for name in part.split(",")]
    for name in names:
        if name.lower() not in _TASKS:
            told_so = f"unknown task {name[:80]!r}; use any of {names_of(Task)}"
            raise wire.bad_request(told_so, param="task", code="unknown_task")
    return tuple(dict.fromkeys(_TASKS[name.lower()] for name in names))


def _numbers_of(value: object) -> object:
    """Take four numbers between commas, as a form has them, in brackets or not."""
    return value.strip("[] ").split(",") if isinstance(value, str) else value


def _in_one_line(text: str | None) -> str | None:
    return " ".join((text or "").split()) or None


def _url_of(value: object) -> str:
    """Take "…", {"url": "…"} and {"image_url": either}."""
    match value:
        case str():
            return value
        case dict():
            return _url_of(value.get("image_url", value.get("url")))
        case _:
            told = "send a data: URI or base64, as a text or in image_url, or a list of these"
            raise ValueError(told)


def _urls_of(value: object) -> list[str]:
    return [_url_of(item) for item in (value if isinstance(value, list) else [value])]


def _one_or_more_of(value: object) -> str | list[str]:
    return _urls_of(value) if isinstance(value, list) else _url_of(value)


Number = Annotated[float, Field(allow_inf_nan=False)]
Region = Annotated[tuple[Number, Number, Number, Number], BeforeValidator(_numbers_of)]
Language = Annotated[Annotated[str, Field(max_length=100)] | None, AfterValidator(_in_one_line)]
Tasks = Annotated[tuple[Any, ...], BeforeValidator(_tasks_of)]


class Asked(wire.Body):
    """What is asked of every picture of a request."""

    model: str | None = None
    tasks: Tasks = Field((Task.CAPTION,), validation_alias=AliasChoices(*_TASK_FIELDS))
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    region: Region | None = None
    language: Language = None
    """Of the answer; a model that has only one says which one it was."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # of each task's answer
    stream: wire.Flag = False

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, told: object) -> object:
        """Drop what is null, so that it does not hide what has another of its names."""
        if not isinstance(told, dict):
            return told
        return {name: value for name, value in told.items() if value is not None}

    def region_in(self, width_px: int, height_px: int) -> Box:
        """Give the part of the region that lies in the upright picture. Raises ApiError 400."""
        left, top, right, bottom = self.region or (0.0, 0.0, 0.0, 0.0)
        box = max(left, 0.0), max(top, 0.0), min(right, width_px), min(bottom, height_px)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise wire.bad_request(
                f"region: nothing of {list(self.region or ())} is inside the picture, which is"
                f" {width_px}x{height_px} when upright; give left, top, right, bottom in pixels",
                param="region",
                code="invalid_region",
            )
        return box


class _ByJson(Asked):
    image: Annotated[str | list[str], BeforeValidator(_one_or_more_of)] | None = Field(
        None, validation_alias=AliasChoices("image", "image_b64")
    )
    images: Annotated[list[str], BeforeValidator(_urls_of)] | None = Field(
        None, validation_alias=AliasChoices("images", "images[]", "image[]")
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture as it came: nothing of it is decoded yet."""

    param: str  # what the request calls it
    read: Callable[[], bytes]
    """Gives its bytes; for a thread, as they may be megabytes. Raises ApiError 400."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request with all its pictures."""

    asked: Asked
    sent: Sequence[Sent]
    is_batch: bool  # as the answer to a list is a list, of one too


async def read(request: web.Request) -> Request:
    """Read a JSON body or a multipart form. Raises ApiError 400."""
    if request.content_type.startswith("multipart/"):
        found = _of_form(await wire.read_form(request))
    else:
        found = _of_json(await request.read())
    if not found.sent:
        told = "send a picture: image as a data: URI or base64, or as a file of a form"
        raise wire.bad_request(told, param="image", code="missing_field")
    if len(found.sent) > MAX_PICTURES:
        told = f"{len(found.sent)} pictures are too many; send at most {MAX_PICTURES} at a time"
        raise wire.bad_request(told, param="images", code="too_many_images")
    _refuse_half_a_question(found.asked)
    return found


def _of_json(raw: bytes) -> Request:
    body = wire.parse_body(raw, _ByJson)
    one = isinstance(body.image, str) and body.images is None
    urls = [body.image] if isinstance(body.image, str) else body.image or []
    reads = [partial(pictures.bytes_of, url) for url in (*urls, *(body.images or ()))]
    return _request(body, reads, is_batch=not one)


def _of_form(form: Form) -> Request:
    """Read the fields of a form; a picture is a file, or text as in JSON."""
    fields = {name: form.getall(name) if name in _TASK_FIELDS else form[name] for name in form}
    files = [(name, file) for name, file in form.items() if name in _PICTURE_FIELDS]
    asked = wire.parse_fields(
        {name: value for name, value in fields.items() if name not in _PICTURE_FIELDS}, Asked
    )
    is_batch = len(files) != 1 or files[0][0] not in _ONE_PICTURE
    return _request(asked, [partial(_form_bytes, file) for _, file in files], is_batch=is_batch)


def _form_bytes(file: FormValue, *, param: str) -> bytes:
    # a part without a file name comes as a text or, with a content type, as bytes
    if isinstance(file, FileField):
        return file.file.read()
    return pictures.bytes_of(file, param=param) if isinstance(file, str) else bytes(file)


def _request(asked: Asked, reads: Sequence[Callable[..., bytes]], *, is_batch: bool) -> Request:
    names = [f"images.{index}" if is_batch else "image" for index in range(len(reads))]
    sent = [Sent(name, partial(read, param=name)) for name, read in zip(names, reads, strict=True)]
    return Request(asked, sent, is_batch)


def _refuse_half_a_question(asked: Asked) -> None:
    for task in asked.tasks:
        if task.takes_text and not (asked.text or "").strip():
            told = f"{task.value} needs words: send them as text"
            raise wire.bad_request(told, param="text", code="missing_field")
        if task.takes_region and asked.region is None:
            told = f"{task.value} needs region: left, top, right, bottom in pixels"
            raise wire.bad_request(told, param="region", code="missing_field")
