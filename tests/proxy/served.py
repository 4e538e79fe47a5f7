"""A whole Hotseat for a test: real workers, real sockets; in this process or in its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil

from proxy import app
from proxy.config import load_config
from proxy.pool import Pool


class Gate:
    """A FIFO at which an echo worker waits; see `workers.echo`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd: int | None = None

    async def reached(self) -> None:
        """Wait until a worker stands at the gate."""
        self._fd = await asyncio.to_thread(os.open, self.path, os.O_WRONLY)

    def open(self) -> None:
        """Let the worker that stands there pass."""
        assert self._fd is not None
        os.close(self._fd)
        self._fd = None

    async def pass_one(self) -> None:
        await self.reached()
        self.open()

    def dismantle(self) -> None:
        """Leave nobody waiting: neither a worker nor a thread of ours."""
        fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        if self._fd is not None:
            self.open()
        os.close(fd)


@dataclass
class Hotseat:
    """A proxy that serves, and a client of it."""

    url: str
    session: aiohttp.ClientSession
    pool: Pool | None = None
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    def openai(self) -> openai.AsyncOpenAI:
        """Make an openai client that never retries."""
        client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        self.clients.append(client)
        return client

    async def chat(self, model: str, text: str = "hi", **echo: Any) -> Answer:
        """Ask for a chat completion; `echo` are the switches of the echo worker."""
        body = chat_body(model, text, **echo)
        async with self.session.post("/v1/chat/completions", json=body) as response:
            return Answer(response.status, await response.json(), dict(response.headers))

    @contextlib.asynccontextmanager
    async def stream(self, model: str, **echo: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Begin a streamed chat; leaving the block closes the connection."""
        body = chat_body(model, "hi", **echo) | {"stream": True}
        async with self.session.post("/v1/chat/completions", json=body) as response:
            yield response
            response.close()

    async def get(self, path: str) -> Answer:
        async with self.session.get(path) as response:
            text = await response.text()
            data = json.loads(text) if "json" in response.content_type else text
            return Answer(response.status, data, dict(response.headers))

    async def post(self, path: str, **more: Any) -> Answer:
        async with self.session.post(path, **more) as response:
            text = await response.text()
            data = json.loads(text) if "json" in response.content_type else text
            return Answer(response.status, data, dict(response.headers))

    async def running(self) -> dict[str, dict[str, Any]]:
        """Give what /running tells, by model."""
        answer = await self.get("/running")
        return {entry["model"]: entry for entry in answer.body["running"]}

    async def log_line(self, pattern: str) -> str:
        """Wait for a line of the proxy's log that matches, kept ones included."""
        async with self.session.get("/logs/stream") as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if re.search(pattern, line.decode()):
                        return line.decode()
        raise AssertionError(f"the log ended without {pattern}")


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def error(self) -> dict[str, Any]:
        assert self.body["error"].keys() - {"alternatives"} == {"message", "type", "param", "code"}
        return self.body["error"]

    @property
    def text(self) -> str:
        return self.body["choices"][0]["message"]["content"]


async def first_event(stream: aiohttp.ClientResponse) -> bytes:
    """Read until the worker itself speaks: comments are the proxy's own."""
    while not (line := await stream.content.readline()).startswith(b"data:"):
        assert line, "it ended before its first event"
    return line


def chat_body(model: str, text: str, **echo: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "echo": echo}


@contextlib.asynccontextmanager
async def served(config: str, folder: Path) -> AsyncIterator[Hotseat]:
    """Serve a swap.yaml in this process for the length of the block."""
    path = folder / "swap.yaml"
    path.write_text(config)
    loaded = load_config(path).config
    async with app.serving(loaded, app.listen("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession(url) as session:
            hotseat = Hotseat(url, session, server.pool)
            try:
                yield hotseat
            finally:
                for client in hotseat.clients:
                    await client.close()


@contextlib.asynccontextmanager
async def spawned(
    config: str, folder: Path
) -> AsyncIterator[tuple[Hotseat, asyncio.subprocess.Process]]:
    """Run `hotseat serve` as a process of its own for the length of the block."""
    path = folder / "swap.yaml"
    path.write_text(config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve"),
        *("--config", str(path), "--listen", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        port = None
        async for line in process.stderr:
            if found := re.search(rb"http://127.0.0.1:(\d+)/v1", line):
                port = int(found[1])
                break
        assert port is not None, "it ended before it served"
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url) as session:
            yield Hotseat(url, session), process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


def workers_of(pid: int) -> list[psutil.Process]:
    """Find all live descendants of a process in the process table."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if is_alive(child)]


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it runs: a zombie waits only for who has adopted it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def all_gone(processes: Iterable[psutil.Process], within_s: float) -> bool:
    """Wait for processes that are no children of ours; False when one outlives the time."""

    def wait(deadline: float) -> bool:
        while any(map(is_alive, waited)) and time.monotonic() < deadline:
            pause.wait(0.005)
        return not any(map(is_alive, waited))

    waited, pause = list(processes), threading.Event()
    return await asyncio.to_thread(wait, time.monotonic() + within_s)
