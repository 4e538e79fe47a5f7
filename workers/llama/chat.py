"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from workers import wire
from workers.llama import answers, conversation, tools
from workers.llama.album import Item
from workers.llama.bodies import ChatBody
from workers.llama.eyes import Eyes
from workers.llama.generator import Generator
from workers.llama.loading import Loaded
from workers.llama.sampling import Sampled, Sampler
from workers.llama.template import ChatTemplate
from workers.llama.vocabulary import Vocabulary


@dataclass
class Reply:
    """One choice of the answer, as it comes together."""

    scanner: tools.Scanner
    content: list[str] = field(default_factory=list)
    calls: list[dict[str, str]] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)
    finish: str | None = None

    def take(self, deltas: Iterable[tools.Delta]) -> list[dict[str, object]]:
        """Add what came. Returns it as OpenAI's deltas."""
        return [self._take(delta) for delta in deltas]

    def end(self, finish: str) -> list[dict[str, object]]:
        deltas = self.take(self.scanner.finish())
        self.finish = "tool_calls" if self.calls and finish == "stop" else finish
        return deltas

    def _take(self, delta: tools.Delta) -> dict[str, object]:
        match delta:
            case tools.Say(text):
                self.content.append(text)
                return {"content": text}
            case tools.Begin(number, name):
                call = {"id": f"call_{secrets.token_hex(12)}", "name": name, "arguments": ""}
                self.calls.append(call)
                function = {"name": name, "arguments": ""}
                begun = {"index": number, "id": call["id"], "type": "function"}
                return {"tool_calls": [{**begun, "function": function}]}
            case tools.Arguments(number, fragment):
                self.calls[number]["arguments"] += fragment
                return {"tool_calls": [{"index": number, "function": {"arguments": fragment}}]}

    @property
    def message(self) -> dict[str, object]:
        content = "".join(self.content)
        message: dict[str, object] = {"role": "assistant", "content": content}
        if self.calls:
            message["content"] = content or None
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in self.calls
            ]
        return message


class Chat:
    """The chat endpoint of a loaded model."""

    def __init__(
        self, loaded: Loaded, generator: Generator, template: ChatTemplate, eyes: Eyes | None
    ) -> None:
        self._loaded = loaded
        self._vocabulary = loaded.vocabulary
        self._generator = generator
        self._template = template
        self._eyes = eyes
        tokens = (loaded.vocabulary.single_token(text) for text in tools.CONTROL_TEXTS)
        self._call_tokens = frozenset(token for token in tokens if token is not None)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await wire.read_body(request, ChatBody)
        asked, samplers = await asyncio.to_thread(self._prepare, body)
        prompt = await self._prompt(asked)
        asked_for = (
            body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        )
        order = answers.Order(
            [prompt],
            samplers,
            answers.max_tokens(asked_for, self._loaded.options.defaults),
            body.stops,
            self._piece_of(asked),
        )
        replies = [Reply(asked.scanner()) for _ in samplers]
        async with answers.Answer(self._generator, order) as answer:
            if body.stream:
                return await self._stream(request, body, answer, replies)
            return await self._whole(body, answer, replies)

    def _prepare(self, body: ChatBody) -> tuple[conversation.Conversation, list[Sampler]]:
        """Do what takes a while, away from the event loop. Raises ApiError 400."""
        options = self._loaded.options
        asked = conversation.read(
            body,
            self._template,
            self._eyes.vision.mark if self._eyes else None,
            allow_grammar=options.allow_grammar,
            max_images=options.max_images,
        )
        answers.refuse_unreadable(asked.prompt, self._loaded.n_ctx, "messages")
        top = (body.top_logprobs or 0) if body.logprobs else None
        wanted = answers.sampling(body, options.defaults, grammar=asked.grammar, top_logprobs=top)
        return asked, answers.samplers(self._vocabulary, wanted, body.n)

    async def _prompt(self, asked: conversation.Conversation) -> list[Item]:
        """Tokenise, away from the event loop, and look at the pictures. Raises ApiError 400."""
        if asked.shown and self._eyes is not None:
            return await self._eyes.prompt(asked.prompt, asked.shown)
        found = await asyncio.to_thread(self._vocabulary.prompt, asked.prompt)
        tokens: list[Item] = [*found]
        answers.refuse_too_long(len(tokens), self._loaded.n_ctx, "messages")
        return tokens or [self._vocabulary.warm_up_token()]

    def _piece_of(self, asked: conversation.Conversation) -> Callable[[int], bytes]:
        shown = self._call_tokens if asked.free_tools and not asked.must_call else frozenset()
        return lambda token: self._vocabulary.piece(token, special=token in shown)

    async def _whole(
        self, body: ChatBody, answer: answers.Answer, replies: list[Reply]
    ) -> web.Response:
        async for event in answer.events():
            self._take(event, replies[event.choice], logprobs=body.logprobs)
        choices = [
            {
                "index": number,
                "message": reply.message,
                "logprobs": {"content": reply.logprobs} if body.logprobs else None,
                "finish_reason": reply.finish,
            }
            for number, reply in enumerate(replies)
        ]
        head, usage = self._head(body, "chat.completion"), answer.usage().body
        return web.json_response({**head, "choices": choices, "usage": usage, **answer.timings})

    async def _stream(
        self, request: web.Request, body: ChatBody, answer: answers.Answer, replies: list[Reply]
    ) -> web.StreamResponse:
        head = self._head(body, "chat.completion.chunk")
        greeted: set[int] = set()
        async with wire.EventStream(request) as events:
            async for event in answer.events():
                number, reply = event.choice, replies[event.choice]
                if number not in greeted:
                    greeted.add(number)
                    await events.send(_chunk(head, number, {"role": "assistant", "content": ""}))
                seen = len(reply.logprobs)
                deltas = self._take(event, reply, logprobs=body.logprobs)
                if len(reply.logprobs) > seen and not deltas:
                    deltas = [{"content": ""}]
                for delta in deltas:
                    news, seen = reply.logprobs[seen:], len(reply.logprobs)
                    await events.send(_chunk(head, number, delta, logprobs=news))
                if reply.finish is not None:
                    end = _chunk(head, number, {}, finish=reply.finish)
                    await events.send({**end, **answer.timings})
            if body.wants_usage:
                await events.send({**head, "choices": [], "usage": answer.usage().body})
        return events.response

    def _take(
        self, event: answers.Piece | answers.End, reply: Reply, *, logprobs: bool
    ) -> list[dict[str, object]]:
        """Add an event to its choice. Returns the deltas that it makes."""
        if isinstance(event, answers.End):
            return reply.end(event.finish)
        if logprobs:
            reply.logprobs += [token_logprob(self._vocabulary, token) for token in event.tokens]
        return reply.take(reply.scanner.feed(event.text))

    def _head(self, body: ChatBody, kind: str) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": body.model or self._loaded.name,
        }


def token_logprob(vocabulary: Vocabulary, sampled: Sampled) -> dict[str, object]:
    """Write a sampled token as OpenAI does."""

    def entry(token: int, logprob: float | None) -> dict[str, object]:
        raw = vocabulary.piece(token, special=True)
        text = raw.decode(errors="replace")
        return {"token": text, "logprob": logprob, "bytes": list(raw)}

    top = [entry(token, logprob) for token, logprob in sampled.top]
    return {**entry(sampled.token, sampled.logprob), "top_logprobs": top}


def _chunk(
    head: Mapping[str, object],
    choice: int,
    delta: Mapping[str, object],
    *,
    logprobs: list[object] | None = None,
    finish: str | None = None,
) -> dict[str, object]:
    told = {"index": choice, "delta": delta, "finish_reason": finish}
    if logprobs:
        told["logprobs"] = {"content": logprobs}
    return {**head, "choices": [told]}
