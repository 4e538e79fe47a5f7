"""A whole worker with no engine: it says back what it heard, and misbehaves when told to.

For tests, demos and load tests, and the one to copy for a new worker. With ``--port N`` (and
``--options JSON``) it is a plain HTTP server instead, like any `cmd:` of a user's.

Gates make tests free of sleeps: a gate is the path of a FIFO. Who opens it for writing knows that
the worker stands there, and lets it pass by closing it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from aiohttp import web
from pydantic import Field, JsonValue

from workers import serve, wire

PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
FOREVER = "import threading; threading.Event().wait()"


class EchoOptions(serve.Options):
    """The switches of a whole process."""

    reply: str | None = None  # instead of an echo
    file: str | None = None  # must exist, as a model's file must
    load_gate: str | None = None
    load_steps: int = 3  # progress lines
    fail: serve.Reason | None = None  # say so at load
    detail: str = "told to fail"
    exit_at_load: int | None = None  # leave without a word, with this status
    hang_at_load: bool = False
    ignore_sigterm: bool = False
    grandchild: bool = False  # leave a second process in our group
    noise_lines: int = 0  # of 1 kB on stdout, at load


class Misbehave(wire.Body):
    """The switches of one request, in the body's field `echo`."""

    tokens: int | None = None  # how many to say, instead of the words of the echo
    gate: str | None = None  # wait here before the first byte
    gate_after: int = 0  # wait there after that many tokens instead
    die_after: int | None = None  # exit after that many tokens; 0 = before the first byte
    hang_after: int | None = None
    status: int = 200


class TextBody(wire.Body):
    """What is read of a chat or completion request."""

    model: str = "echo"
    messages: list[dict[str, JsonValue]] = Field(default_factory=list)
    prompt: str = ""
    stream: wire.Flag = False
    echo: Misbehave = Misbehave()

    def heard(self) -> str:
        return str(self.messages[-1].get("content")) if self.messages else self.prompt


class EmbeddingsBody(wire.Body):
    """What is read of an embeddings request."""

    input: str | list[str]


class Echo:
    """The worker of `python -m workers.echo`."""

    options_type = EchoOptions

    def __init__(self) -> None:
        self._options = EchoOptions()
        self._counts = {"started": 0, "finished": 0, "cancelled": 0}

    def check(self, options: EchoOptions) -> Sequence[serve.Problem]:
        if options.file is not None and not Path(options.file).is_file():
            return [serve.Problem("file", f"no such file: {options.file}")]
        return []

    def prepare(self) -> None:
        """Import nothing: an echo has no engine."""

    def load(self, options: EchoOptions, progress: serve.Progress) -> Mapping[str, object]:
        self._options = options
        if options.grandchild:
            subprocess.Popen([sys.executable, "-c", FOREVER], stdin=subprocess.DEVNULL)  # noqa: S603
        for number in range(options.noise_lines):
            sys.stdout.write(f"{number} {'x' * 1000}\n")
        sys.stdout.flush()
        if options.load_gate is not None:
            pass_gate(options.load_gate)
        for step in range(options.load_steps):
            progress((step + 1) / options.load_steps)
        if options.exit_at_load is not None:
            sys.stderr.write(f"error: {options.detail}\n")
            sys.stderr.flush()
            os._exit(options.exit_at_load)
        if options.hang_at_load:
            threading.Event().wait()
        if options.fail is not None:
            raise serve.LoadFailed(options.fail, options.detail)
        return {"pid": os.getpid()}

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            *wire.with_and_without_v1("/chat/completions", self._chat),
            *wire.with_and_without_v1("/completions", self._complete),
            *wire.with_and_without_v1("/embeddings", self._embed),
            *wire.with_and_without_v1("/images/generations", self._paint),
            *wire.with_and_without_v1("/images/edits", self._paint),
            web.get("/counts", self._tell_counts),
            web.route("*", "/{path:.*}", self._tell_request),
        ]

    def close(self) -> None:
        if self._options.ignore_sigterm:
            threading.Event().wait()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await wire.read_body(request, TextBody)
        return await self._say(request, body, "chat.completion")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await wire.read_body(request, TextBody)
        return await self._say(request, body, "text_completion")

    async def _say(self, request: web.Request, body: TextBody, kind: str) -> web.StreamResponse:
        self._counts["started"] += 1
        try:
            answer = await self._answer(request, body, kind)
        except asyncio.CancelledError:
            self._counts["cancelled"] += 1
            raise
        self._counts["finished"] += 1
        return answer

    async def _answer(self, request: web.Request, body: TextBody, kind: str) -> web.StreamResponse:
        if body.echo.status != 200:  # noqa: PLR2004
            raise wire.ApiError(body.echo.status, "told to answer so", code="told")
        if not body.stream:
            text = "".join([token async for token in self._tokens(body)])
            return web.json_response(_completion(kind, body.model, text, "stop"))
        chunk = "chat.completion.chunk" if kind == "chat.completion" else kind
        async with wire.EventStream(request) as events:
            async for token in self._tokens(body):
                await events.send(_completion(chunk, body.model, token, None))
            await events.send(_completion(chunk, body.model, "", "stop"))
        return events.response

    async def _tokens(self, body: TextBody) -> AsyncIterator[str]:
        """Yield the answer token by token, and misbehave between them as told."""
        echo, reply = body.echo, self._options.reply or f"echo: {body.heard()}"
        tokens = reply.split(" ") if echo.tokens is None else ["x"] * echo.tokens
        for count in range(len(tokens) + 1):
            if echo.gate is not None and count == echo.gate_after:
                await asyncio.to_thread(pass_gate, echo.gate)
            if count == echo.die_after:
                os._exit(9)
            if count == echo.hang_after:
                await asyncio.Event().wait()
            if count < len(tokens):
                yield tokens[count] if count == 0 else f" {tokens[count]}"

    async def _embed(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request, EmbeddingsBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors = [[b / 255 for b in hashlib.sha256(t.encode()).digest()[:8]] for t in texts]
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return web.json_response({"object": "list", "data": data, "model": "echo", "usage": usage})

    async def _paint(self, request: web.Request) -> web.Response:
        size = len(await request.read())
        return web.json_response(
            {"created": 0, "data": [{"b64_json": PIXEL_PNG}], "received_bytes": size}
        )

    async def _tell_counts(self, _request: web.Request) -> web.Response:
        return web.json_response(self._counts)

    async def _tell_request(self, request: web.Request) -> web.Response:
        """Tell what arrived, for tests of what a proxy passes on."""
        raw = await request.read()
        return web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": [[k, v] for k, v in request.headers.items()],
                "body": base64.b64encode(raw).decode(),
                "pid": os.getpid(),
            }
        )


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
        "choices": [said],
        **({} if kind.endswith("chunk") else {"usage": usage}),
    }


def pass_gate(path: str) -> None:
    """Block until somebody has opened the FIFO at `path` for writing, and closed it."""
    Path(path).read_bytes()


async def _serve_port(options: EchoOptions, port: int) -> None:
    """Be a foreign worker: /health is 503 until the load is done, then 200."""
    if options.ignore_sigterm:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    echo, app = Echo(), wire.application()
    loading = asyncio.get_running_loop().run_in_executor(None, echo.load, options, lambda _: None)

    async def health(_request: web.Request) -> web.Response:
        return web.Response(status=200 if loading.done() else 503)

    app.router.add_get("/health", health)
    app.add_routes(echo.routes())
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await loading
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--port", type=int, help="serve plain HTTP on 127.0.0.1 at this port")
    parser.add_argument("--options", default="{}", help="the switches, as JSON")
    args, _ = parser.parse_known_args()
    if args.port is None:
        serve.run(Echo())
    asyncio.run(_serve_port(EchoOptions.model_validate_json(args.options), args.port))


if __name__ == "__main__":
    main()
