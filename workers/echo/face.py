"""The HTTP face of an echo."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from pydantic import JsonValue

from workers import wire
from workers.echo.bodies import EmbeddingsBody, Misbehave, PictureBody, TextBody
from workers.echo.conduct import paced
from workers.echo.held import Held, NoMemory
from workers.echo.loading import say
from workers.echo.mirror import Mirror
from workers.echo.options import EchoOptions

PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
FINGERPRINT = f"pid-{os.getpid()}"
"""Is the answers' `system_fingerprint`, so that a client can tell one load from the next."""


class Face:
    """Answers; requests are counted, and misbehave as they are told."""

    def __init__(self, options: EchoOptions, held: Held) -> None:
        self._reply = options.reply
        self._mirror = Mirror(options.reply)
        self._only_tells = options.tells
        self._held = held
        self._turns = asyncio.Semaphore(options.at_once)
        self._progress: dict[str | None, dict[str, JsonValue]] = {}  # by job
        self._counts = {"started": 0, "finished": 0, "cancelled": 0}

    def routes(self) -> Sequence[web.RouteDef]:
        if self._only_tells:
            return self._mirror.routes()
        return [
            *wire.with_and_without_v1("/chat/completions", self._chat),
            *wire.with_and_without_v1("/completions", self._complete),
            *wire.with_and_without_v1("/embeddings", self._embed),
            *wire.with_and_without_v1("/images/generations", self._paint),
            *wire.with_and_without_v1("/images/edits", self._paint),
            web.get("/progress", self._tell_progress),
            web.get("/counts", self._tell_counts),
            *self._mirror.routes(),
        ]

    @asynccontextmanager
    async def _serving(self, echo: Misbehave) -> AsyncIterator[None]:
        """Count the request, and hold what it is told to hold, for the length of the block."""
        self._counts["started"] += 1
        if echo.says is not None:
            say(echo.says)
        try:
            async with self._turns, self._held.more(echo.allocate_bytes):
                if echo.out_of_memory:
                    raise wire.OutOfMemory("told to have no memory")
                if echo.status != 200:  # noqa: PLR2004
                    raise wire.ApiError(echo.status, "told to answer so", code="told")
                yield
        except asyncio.CancelledError:
            self._counts["cancelled"] += 1
            raise
        except NoMemory as error:
            raise wire.OutOfMemory(str(error)) from error
        self._counts["finished"] += 1

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._say(request, "chat.completion")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._say(request, "text_completion")

    async def _say(self, request: web.Request, kind: str) -> web.StreamResponse:
        body = await wire.read_body(request, TextBody)
        async with self._serving(body.echo):
            tokens = paced(self._words(body), body.echo)
            if not body.stream:
                text = "".join([token async for token in tokens])
                return web.json_response(_completion(kind, body.model, text, "stop"))
            chunk = "chat.completion.chunk" if kind == "chat.completion" else kind
            async with wire.EventStream(request) as events:
                async for token in tokens:
                    await events.send(_completion(chunk, body.model, token, None))
                await events.send(_completion(chunk, body.model, "", "stop"))
            return events.response

    def _words(self, body: TextBody) -> Sequence[str]:
        if body.echo.tokens is not None:
            return ["x"] * body.echo.tokens
        return (self._reply or f"echo: {body.heard()}").split(" ")

    async def _embed(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request, EmbeddingsBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        async with self._serving(body.echo):
            await _work(body.echo)
            usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
            data = [
                {"object": "embedding", "index": index, "embedding": _vector(text)}
                for index, text in enumerate(texts)
            ]
            told = {"object": "list", "data": data, "model": body.model, "usage": usage}
            return web.json_response(told | {"system_fingerprint": FINGERPRINT})

    async def _paint(self, request: web.Request) -> web.Response:
        """Answer with a pixel; only a JSON body is read for switches."""
        raw = await request.read()
        is_json = request.content_type == "application/json"
        body = wire.parse_body(raw, PictureBody) if is_json else PictureBody()
        async with self._serving(body.echo):
            with self._progressing(request.headers.get("X-Hotseat-Job"), body.echo):
                await _work(body.echo)
            is_url = body.response_format in ("url", "data_url")
            data = {"url": f"data:image/png;base64,{PIXEL_PNG}"}
            told = {"created": 0, "data": [data if is_url else {"b64_json": PIXEL_PNG}]}
            return web.json_response(
                told | {"received_bytes": len(raw), "system_fingerprint": FINGERPRINT}
            )

    @contextmanager
    def _progressing(self, job: str | None, echo: Misbehave) -> Iterator[None]:
        if job is not None and echo.progress is not None:
            self._progress[job] = {**echo.progress, "id": job}
        try:
            yield
        finally:
            self._progress.pop(job, None)

    async def _tell_progress(self, _request: web.Request) -> web.Response:
        return web.json_response({"jobs": list(self._progress.values())})

    async def _tell_counts(self, _request: web.Request) -> web.Response:
        return web.json_response(self._counts)


async def _work(echo: Misbehave) -> None:
    """Take the time that the tokens would, for an answer that has none."""
    async for _ in paced(["x"] * (echo.tokens or 0), echo):
        pass


def _vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8]]


def _completion(kind: str, model: str, text: str, finish: str | None) -> dict[str, object]:
    said: dict[str, object] = {"index": 0, "finish_reason": finish}
    match kind:
        case "chat.completion":
            said["message"] = {"role": "assistant", "content": text}
        case "chat.completion.chunk":
            said["delta"] = {"content": text}
        case _:
            said["text"] = text
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "echo",
        "object": kind,
        "created": 0,
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": [said],
        **({} if kind.endswith("chunk") else {"usage": usage}),
    }
