"""POST /v1/chat/completions: one picture, and a task's token or plain words."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from workers import pictures, wire
from workers.florence2 import answers, tasks
from workers.florence2.eyes import Eyes, Seen
from workers.florence2.turns import Turns
from workers.messages import Content, ImagePart, StreamOptions, TextPart


class Message(wire.Body):
    role: str
    content: Content | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def image_urls(self) -> list[str]:
        if not isinstance(self.content, list):
            return []
        return [part.url for part in self.content if isinstance(part, ImagePart)]


class ChatBody(wire.Body):
    """What is read of a request. Answers are greedy, so sampling settings change nothing."""

    model: str = "florence2"
    messages: list[Message] = Field(min_length=1)
    stream: wire.Flag = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[Literal[1], wire.or_default(1)] = 1

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def image_url(self) -> str:
        """Give the one picture of the conversation. Raises ApiError 400 for none or several."""
        urls = [url for message in self.messages for url in message.image_urls]
        if len(urls) != 1:
            told = f"send exactly one picture as an image_url part; there are {len(urls)}"
            raise wire.bad_request(told, param="messages", code="one_image_needed")
        return urls[0]

    def question(self) -> tasks.Question:
        """Read the question from the last user message. Raises ApiError 400."""
        users = [message.text for message in self.messages if message.role == "user"]
        return tasks.question_of(users[-1] if users else "")


@dataclass(frozen=True, slots=True)
class Reply:
    """The whole of what is said back, and what it took."""

    text: str
    finish_reason: Literal["stop", "length"]
    usage: dict[str, int]


class Chat:
    """The face that every OpenAI client knows."""

    def __init__(self, turns: Turns, eyes: Eyes) -> None:
        self._turns = turns
        self._eyes = eyes

    def routes(self) -> list[web.RouteDef]:
        return wire.with_and_without_v1("/chat/completions", self._chat)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await wire.read_body(request, ChatBody)
        url, question = body.image_url(), body.question()
        read = partial(pictures.bytes_of, url, param="messages")
        seen = await self._eyes.see(read, param="messages")
        if body.stream:
            return await self._stream(request, body, question, seen)
        [answer] = await self._turns.answers(seen.pixels, [question], body.max_new_tokens)
        reply = self._reply(question, seen, answer)
        message = {"role": "assistant", "content": reply.text}
        choice = {"message": message, "finish_reason": reply.finish_reason}
        return web.json_response(
            _head(body, "chat.completion")
            | {"choices": [{"index": 0} | choice], "usage": reply.usage}
        )

    async def _stream(
        self, request: web.Request, body: ChatBody, question: tasks.Question, seen: Seen
    ) -> web.StreamResponse:
        head = _head(body, "chat.completion.chunk")
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        opening: dict[str, object] = {"role": "assistant"}  # once, with the first delta
        async with (
            wire.EventStream(request) as events,
            aclosing(self._said(body, question, seen)) as pieces,
        ):
            async for said in pieces:
                delta, finish = opening, None
                if isinstance(said, str):
                    delta = delta | {"content": said}
                else:
                    finish = said.finish_reason
                opening = {}
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                await events.send(head | {"choices": [choice]})
                if isinstance(said, Reply) and with_usage:
                    await events.send(head | {"choices": [], "usage": said.usage})
        return events.response

    async def _said(
        self, body: ChatBody, question: tasks.Question, seen: Seen
    ) -> AsyncGenerator[str | Reply, None]:
        """Yield the text in pieces as they come, then the whole reply.

        What is no text comes in one piece: half of a JSON text would be of no use.
        """
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[str | None] = asyncio.Queue()

        def on_text(text: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, text)

        said, is_text = 0, question.task.shape.is_text
        with self._turns.asked(
            seen.pixels,
            [question],
            max_tokens=body.max_new_tokens,
            on_text=on_text if is_text else None,
        ) as [answer]:
            answer.add_done_callback(lambda _: texts.put_nowait(None))
            while (text := await texts.get()) is not None:
                if len(text) > said:
                    yield text[said:]
                    said = len(text)
            whole = self._reply(question, seen, await answer)
        if len(whole.text) > said:
            yield whole.text[said:]
        yield whole

    def _reply(self, question: tasks.Question, seen: Seen, answer: answers.Answer) -> Reply:
        engine, shape = self._turns.engine, question.task.shape
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": len(answer.ids),
            "total_tokens": answer.prompt_tokens + len(answer.ids),
        }
        if shape.is_text:
            text = engine.text_of(answer)
        else:
            size_px = (seen.width, seen.height)
            text = rendered(answers.regions(answer, shape, engine.vocabulary, size_px), shape)
        return Reply(text, "stop" if answer.ended else "length", usage)


def rendered(found: Sequence[answers.Region], shape: tasks.Shape) -> str:
    """Write regions in the names of transformers' post-processing, with our confidences."""
    if shape is tasks.Shape.TAGS:
        return ", ".join(answers.tags(found))
    boxes = [region for region in found if not region.polygon]
    polygons = [region for region in found if region.polygon]
    told = {
        "quad_boxes" if shape is tasks.Shape.QUADS else "bboxes": [r.points for r in boxes],
        "labels": [r.label for r in boxes],
        "confidences": [r.confidence for r in boxes],
    }
    if polygons or shape is tasks.Shape.POLYGONS:
        told |= {
            "polygons": [[r.points] for r in polygons],
            "polygons_labels": [r.label for r in polygons],
        }
    return json.dumps(told, ensure_ascii=False)


def _head(body: ChatBody, kind: str) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }
