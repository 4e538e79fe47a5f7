"""POST /v1/images/descriptions by a vision chat model: our prompts, one for each task.

How the answer shall be is said by the system message, what is asked by the user's, as people ask.
Boxes are not among the tasks: a chat model that was not trained for them makes them up.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from workers import wire
from workers.descriptions import Answer, Asked, Description, Sent, Task
from workers.llama import answers, grammar
from workers.llama.album import Item
from workers.llama.bodies import SamplingBody
from workers.llama.eyes import Eyes, Shown
from workers.llama.generator import Generator
from workers.llama.loading import Loaded
from workers.llama.sampling import Sampler
from workers.llama.template import ChatTemplate, TemplateFailed

NO_TEXT = "NONE"  # what the model shall write where there is no text to read
MOST_TAGS = 16
TAGS_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 40},
    "minItems": 1,
    "maxItems": MOST_TAGS,
}
PLAIN = SamplingBody(temperature=0, seed=0)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Way:
    """How a task is put to the model."""

    how: str
    question: str
    max_tokens: int


_DESCRIBE = "Describe the picture."
WAYS: Mapping[Task, Way] = MappingProxyType(
    {
        Task.CAPTION: Way("Answer with one short sentence.", _DESCRIBE, 100),
        Task.DETAILED_CAPTION: Way("Answer with one or two sentences.", _DESCRIBE, 200),
        Task.MORE_DETAILED_CAPTION: Way(
            "Answer with a paragraph of plain text: what is there, where, and what it looks like.",
            _DESCRIBE,
            500,
        ),
        Task.OCR: Way(
            "Answer with the text that stands in the picture, line by line, as it stands there,"
            f" and with nothing else. If there is no text, answer {NO_TEXT}.",
            "Read the text in the picture.",
            1000,
        ),
        Task.TAGS: Way(
            f"Answer with a JSON list of at most {MOST_TAGS} words or short names.",
            "What is in the picture?",
            300,
        ),
    }
)


class Describer:
    """What `descriptions.Face` asks of an engine."""

    def __init__(
        self, loaded: Loaded, generator: Generator, template: ChatTemplate, eyes: Eyes
    ) -> None:
        self._loaded = loaded
        self._generator = generator
        self._template = template
        self._eyes = eyes

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def tasks(self) -> Collection[Task]:
        return WAYS

    @property
    def at_once(self) -> int:
        return self._loaded.n_sequences

    async def describe(self, sent: Sent, asked: Asked) -> Description:
        """Answer each task in turn; the picture is decoded and encoded once. Raises ApiError."""
        shown = await asyncio.to_thread(lambda: Shown.of(sent.read(), sent.param))
        look = await self._eyes.look(shown, self._loaded.options.max_request_pixels)
        looks = {shown.id: look}
        answered: dict[Task, Answer] = {}
        cut, took_ms = [], 0.0
        for task in asked.tasks:
            words, sampler = await asyncio.to_thread(self._prepared, task, asked)
            prompt = await self._eyes.prompt(words, [shown], looks, param=shown.param)
            text, finish, ms = await self._said(task, asked, prompt, sampler)
            answered[task] = _answer(task, text)
            took_ms += ms
            if finish == "length":
                cut.append(task)
        in_language = any(task is not Task.OCR for task in asked.tasks)
        return Description(
            look.width_px,
            look.height_px,
            answered,
            took_ms,
            language=asked.language if in_language else None,
            cut=cut,
        )

    def _prepared(self, task: Task, asked: Asked) -> tuple[str, Sampler]:
        """Write the prompt, with the picture's mark, and build the sampler. Raises ApiError."""
        messages = [
            {"role": "system", "content": _how(task, asked.language)},
            {"role": "user", "content": self._eyes.vision.mark(0) + WAYS[task].question},
        ]
        # models that think before they answer take long for it, and would be cut
        try:
            text = self._template.render(messages, more={"enable_thinking": False})
        except TemplateFailed as error:
            raise wire.ApiError(501, str(error), code="not_implemented") from None
        wanted = answers.sampling(
            PLAIN,
            self._loaded.options.defaults,
            grammar=grammar.of_schema(TAGS_SCHEMA) if task is Task.TAGS else None,
            top_logprobs=None,
        )
        return text, answers.samplers(self._loaded.vocabulary, wanted, 1)[0]

    async def _said(
        self, task: Task, asked: Asked, prompt: list[Item], sampler: Sampler
    ) -> tuple[str, str, float]:
        """Let the model answer. Returns its words, why it ended, and the engine's ms for it."""
        order = answers.Order(
            [prompt],
            [sampler],
            asked.max_tokens or WAYS[task].max_tokens,
            (),
            self._loaded.vocabulary.piece,
        )
        texts, finish = [], ""
        async with answers.Answer(self._generator, order) as answer:
            async for event in answer.events():
                match event:
                    case answers.Piece(text=text):
                        texts.append(text)
                    case answers.End(finish=finish):
                        pass
        return "".join(texts).strip(), finish, answer.took_ms


def _how(task: Task, language: str | None) -> str:
    how = WAYS[task].how
    if language is None or task is Task.OCR:  # text is read as it stands there
        return how
    return f"{how} Write in this language: {language}."


def _answer(task: Task, text: str) -> Answer:
    match task:
        case Task.TAGS:
            return _tags(text)
        case Task.OCR:
            return "" if text.strip(" .\"'") == NO_TEXT else text
        case _:
            return text


def _tags(text: str) -> list[str]:
    """Read a JSON list of strings, of which the end may be missing; each once."""
    found = [str(json.loads(f'"{inner}"', strict=False)) for inner in _STRING.findall(text)]
    return list(dict.fromkeys(tag.strip().lower() for tag in found if tag.strip()))
