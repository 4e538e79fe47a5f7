"""What a client may ask of a picture, and how its words become one of the model's tasks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from workers import wire

MAX_TEXT_CHARS = 20_000  # far more than the model's positions hold; spares the tokenizer


class Shape(Enum):
    """What the tokens of an answer mean."""

    CAPTION = auto()  # prose
    TEXT = auto()  # text that stands in the picture
    BOXES = auto()
    QUADS = auto()  # boxes with four free corners
    POLYGONS = auto()
    TAGS = auto()  # boxes, of which only the labels are told

    @property
    def is_text(self) -> bool:
        return self in (Shape.CAPTION, Shape.TEXT)


class Takes(Enum):
    """What follows a task's token."""

    NOTHING = auto()
    WORDS = auto()
    REGION = auto()


@dataclass(frozen=True, slots=True)
class Task:
    """One thing the model was trained to do; `token` names it in the model's own words."""

    token: str
    shape: Shape
    takes: Takes = Takes.NOTHING


@dataclass(frozen=True, slots=True)
class Question:
    """A task with what it takes: words without any markup, four location tokens, or nothing."""

    task: Task
    text: str = ""
    field: str = "messages"  # of the request, that the text came from


CAPTION = Task("<CAPTION>", Shape.CAPTION)
DETAILED_CAPTION = Task("<DETAILED_CAPTION>", Shape.CAPTION)
MORE_DETAILED_CAPTION = Task("<MORE_DETAILED_CAPTION>", Shape.CAPTION)
OCR = Task("<OCR>", Shape.TEXT)
OBJECTS = Task("<OD>", Shape.BOXES)
TAGS = Task("<OD>", Shape.TAGS)  # the published checkpoints have no task for tags

TASKS = {
    task.token: task
    for task in (
        CAPTION,
        DETAILED_CAPTION,
        MORE_DETAILED_CAPTION,
        OCR,
        Task("<OCR_WITH_REGION>", Shape.QUADS),
        OBJECTS,
        Task("<DENSE_REGION_CAPTION>", Shape.BOXES),
        Task("<REGION_PROPOSAL>", Shape.BOXES),
        Task("<CAPTION_TO_PHRASE_GROUNDING>", Shape.BOXES, Takes.WORDS),
        Task("<OPEN_VOCABULARY_DETECTION>", Shape.BOXES, Takes.WORDS),
        Task("<REFERRING_EXPRESSION_SEGMENTATION>", Shape.POLYGONS, Takes.WORDS),
        Task("<REGION_TO_SEGMENTATION>", Shape.POLYGONS, Takes.REGION),
        Task("<REGION_TO_CATEGORY>", Shape.CAPTION, Takes.REGION),
        Task("<REGION_TO_DESCRIPTION>", Shape.CAPTION, Takes.REGION),
        Task("<REGION_TO_OCR>", Shape.TEXT, Takes.REGION),
    )
}

# the first that matches wins; words that match none get a caption
_WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), task)
    for pattern, task in (
        (r"\b(tags?|keywords?)\b", TAGS),
        (
            r"\b(paragraph|more[ _]detailed|very detailed|as much detail|describe.*detail)",
            MORE_DETAILED_CAPTION,
        ),
        (r"\b(describe|detailed?|description)", DETAILED_CAPTION),
        (r"\bcaption", CAPTION),
        (r"\b(ocr|read|transcribe|text|written|says?)\b", OCR),
        (r"\b(objects?|detect|find|locate|bounding)\b", OBJECTS),
    )
)
_TOKEN = re.compile(r"<([A-Z][A-Z_]*)>(.*)", re.DOTALL)
_MARKUP = re.compile(r"<[^>]*>")  # the tokenizer takes </s> and <loc_5> in words for its own
_REGION = re.compile(r"(?:<loc_\d{1,3}>){4}")


def question_of(text: str) -> Question:
    """Read a user's text: a task's token and what it takes, or plain words.

    Raises ApiError 400: an unknown token, something the task does not take, or a text too long.
    """
    if len(text) > MAX_TEXT_CHARS:
        told = f"{len(text)} characters, at most {MAX_TEXT_CHARS}"
        raise prompt_too_long(told, param="messages")
    text = text.replace("<image>", " ").strip()  # LLaVA's clients mark the picture's place
    found = _TOKEN.match(text)
    if found is None:
        return Question(next((task for words, task in _WORDS if words.search(text)), CAPTION))
    token, rest = f"<{found[1]}>", found[2].strip()
    if token not in TASKS:
        raise wire.bad_request(
            f"unknown task {token}; use one of {' '.join(TASKS)}, or plain words such as"
            " 'describe this image', 'read the text', 'find the objects', 'tags'",
            param="messages",
            code="unknown_task",
        )
    return Question(TASKS[token], _taken(TASKS[token], rest))


def _taken(task: Task, rest: str) -> str:
    match task.takes:
        case Takes.NOTHING if not rest:
            return ""
        case Takes.WORDS if words := _MARKUP.sub(" ", rest).strip():
            return words
        case Takes.REGION if _REGION.fullmatch(rest):
            return rest
    needs = {
        Takes.NOTHING: "takes no text: send the token alone",
        Takes.WORDS: f"needs words after it: {task.token}a red car",
        Takes.REGION: f"needs one region after it, each number a thousandth of the picture's side"
        f" (left, top, right, bottom): {task.token}<loc_100><loc_50><loc_900><loc_450>",
    }
    raise wire.bad_request(f"{task.token} {needs[task.takes]}", param="messages")


def words_of(text: str) -> str:
    """Take the words out of a description's `text`. Raises ApiError 400 if it is all markup."""
    words = _MARKUP.sub(" ", text).strip()
    if not words:
        raise wire.bad_request("text: there are no words in it, only markup", param="text")
    return words


def prompt_too_long(told: str, *, param: str) -> wire.ApiError:
    return wire.bad_request(
        f"the prompt is too long: {told}; shorten it", param=param, code="prompt_too_long"
    )
