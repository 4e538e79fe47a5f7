"""Pictures in words, for models that cannot see: asked of one that describes, and remembered.

What stands in a picture is a stranger's word: it must not pass for a turn of the chat, nor for
the end of one. So it is one short line, without the signs that chat templates are made of.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import web
from pydantic import BaseModel, ValidationError

from proxy.config import Config
from proxy.errors import AsideFailed
from proxy.pictures import sniff
from proxy.routes import aside
from proxy.routes.keys import config_of

PATH: Final = "/v1/images/descriptions"
TASKS: Final = ("detailed_caption", "objects", "ocr")
CHATS_TASKS: Final = ("detailed_caption", "tags", "ocr")
"""What a chat model is asked: it cannot say where things are, only that they are there."""
MOST_KEPT: Final = 2000
LONGEST_CAPTION, LONGEST_TEXT, LONGEST_NAME = 1500, 1000, 60
"""In characters, as the other bounds of what is told."""
MOST_THINGS: Final = 20
_TAMED: Final = str.maketrans("<>[]{}|`", "‹›()()¦'")  # noqa: RUF001  # look alike, mean nothing


class _Thing(BaseModel):
    label: str = ""


class _Told(BaseModel):
    """What is read of a description; a field that was not asked for is null."""

    caption: str | None = None
    detailed_caption: str | None = None
    objects: list[_Thing] | None = None
    tags: list[str] | None = None
    ocr_text: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Whose words on what: another model under the same name has words of its own."""

    digest: str  # of the picture's bytes
    describer: str
    version: str


class Descriptions:
    """The words on the pictures that were seen last."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._words: OrderedDict[Key, str] = OrderedDict()
        self._asking: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, key: Key) -> bool:
        return key in self._words

    async def of(self, key: Key, ask: Callable[[], Awaitable[str]]) -> str:
        """Give the words; `ask` is called if they are not known, for all who wait for them.

        When it fails, or its client leaves, the next one asks for himself.
        """
        async with self._asking.setdefault(key, asyncio.Lock()):
            if key not in self._words:
                self._words[key] = await ask()
                if len(self._words) > self._most:
                    self._words.popitem(last=False)
            self._words.move_to_end(key)
            return self._words[key]


DESCRIPTIONS = web.AppKey("descriptions", Descriptions)


def key_of(config: Config, describer: str, digest: str) -> Key:
    model = config.models[describer]
    runs = (TASKS, CHATS_TASKS, model.kind, model.cmd, sorted(model.options.items()))
    return Key(digest, describer, repr(runs))


async def described(request: web.Request, describer: str, raw: bytes) -> str:
    """Ask a model for its words on a picture. Raises what `aside.ask` raises."""
    kind = config_of(request).models[describer].kind
    tasks = CHATS_TASKS if kind == "llama" else TASKS
    answer = await aside.ask(
        request, describer, PATH, await asyncio.to_thread(_question, raw, tasks)
    )
    try:
        return _in_words(_Told.model_validate_json(answer))
    except ValidationError:
        raise AsideFailed(f"{describer} answered {PATH} with no description") from None


def _question(raw: bytes, tasks: Sequence[str]) -> bytes:
    media_type = sniff(raw) or "application/octet-stream"
    head = f'{{"task":{json.dumps(tasks)},"image":"data:{media_type};base64,'
    return b"".join((head.encode(), base64.b64encode(raw), b'"}'))


def _in_words(told: _Told) -> str:
    """Put a description into one line."""
    caption = _tamed(told.detailed_caption or told.caption or "", LONGEST_CAPTION)
    objects = _counted([thing.label for thing in told.objects or ()])
    tags = _counted(told.tags or [])
    text = _tamed(told.ocr_text or "", LONGEST_TEXT)
    parts = [
        f"{caption.rstrip('.')}." if caption else "",
        f"Objects: {objects}." if objects else "",
        f"Tags: {tags}." if tags else "",
        f"Text in it: {json.dumps(text, ensure_ascii=False)}." if text else "",
    ]
    return " ".join(part for part in parts if part) or "nothing is known of it."


def _counted(things: Sequence[str]) -> str:
    """Name each once, the most frequent first, and how often it is there."""
    counts = Counter(name for thing in things if (name := _tamed(thing, LONGEST_NAME)))
    return ", ".join(
        name if count == 1 else f"{name} ({count})"
        for name, count in counts.most_common(MOST_THINGS)
    )


def _tamed(text: str, most: int) -> str:
    """Make a short line of it that is nothing but words."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.translate(_TAMED)
    return line if len(line) <= most else f"{line[: most - 1]}…"
