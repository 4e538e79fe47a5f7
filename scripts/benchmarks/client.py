"""Asks models through a proxy, and notes how long each answer took and who gave it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from scripts.benchmarks.models import Kind, Model

GIVE_UP_S = 120.0  # of one request; a trace must end though somebody starves
FINGERPRINT = re.compile(rb'"system_fingerprint": ?"(pid-\d+)"')
PATHS = {
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "picture": "/v1/images/generations",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer costs the engine; seconds are those of the real one."""

    serve_s: float  # before the first token
    tokens: int = 1
    token_s: float = 0.0  # between two


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    model: str
    asked_at_s: float  # since the trace began
    first_byte_s: float | None  # since it was asked; None: there was no answer
    total_s: float
    worker: str | None  # another one after each load
    error: str | None


@dataclass(slots=True)
class Taken:
    """What has come of an answer.

    A proxy may keep a waiting client company with bytes of its own; what counts as the first
    byte is the worker's.
    """

    body: bytes = b""
    first_at: float | None = None
    worker: str | None = None

    def add(self, chunk: bytes) -> None:
        self.body += chunk
        if self.worker is None and (found := FINGERPRINT.search(self.body)):
            self.worker, self.first_at = found[1].decode(), time.monotonic()

    def is_whole(self, kind: Kind) -> bool:
        """Tell whether a worker's answer is complete: an error can come after a status of 200."""
        return self.worker is not None and (kind != "chat" or b"data: [DONE]" in self.body)


@dataclass(slots=True)
class Client:
    """All clients of one trace, `speed` times as fast as real ones."""

    session: aiohttp.ClientSession
    speed: float
    began: float = field(default_factory=time.monotonic)
    outcomes: list[Outcome] = field(default_factory=list)

    async def think(self, seconds: float) -> None:
        """Do nothing for a while, as a user or agent between two calls."""
        await asyncio.sleep(seconds / self.speed)  # the pause is what is played

    async def ask(self, model: Model, work: Work) -> Outcome:
        """Send one request and take the answer to its end, whatever it is."""
        asked, taken, error = time.monotonic(), Taken(), None
        try:
            async with (
                asyncio.timeout(GIVE_UP_S),
                self.session.post(PATHS[model.kind], json=self._body(model, work)) as answer,
            ):
                async for chunk in answer.content.iter_any():
                    taken.add(chunk)
                if answer.status != 200 or not taken.is_whole(model.kind):
                    error = f"{answer.status} {taken.body[-300:]!r}"
        except (aiohttp.ClientError, TimeoutError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        outcome = Outcome(
            model.name,
            asked - self.began,
            taken.first_at - asked if taken.first_at is not None and error is None else None,
            time.monotonic() - asked,
            taken.worker,
            error,
        )
        self.outcomes.append(outcome)
        return outcome

    def _body(self, model: Model, work: Work) -> dict[str, object]:
        echo = {
            "serve_s": work.serve_s / self.speed,
            "tokens": work.tokens,
            "token_s": work.token_s / self.speed,
        }
        asked: dict[str, object] = {"model": model.name, "echo": echo}
        match model.kind:
            case "chat":
                messages = [{"role": "user", "content": "Hello"}]
                return asked | {"messages": messages, "stream": True}
            case "embeddings":
                return asked | {"input": "Hello"}
            case "picture":
                return asked | {"prompt": "Hello"}


@asynccontextmanager
async def connected(base_url: str, speed: float) -> AsyncIterator[Client]:
    """Be ready to ask; every request has a connection of its own if need be."""
    async with aiohttp.ClientSession(
        base_url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Client(session, speed)


async def swaps_told(session: aiohttp.ClientSession, since: float) -> int | None:
    """Ask how many swaps there were since then (Unix time); None: the proxy does not tell."""
    async with session.get("/api/swaps") as answer:
        if answer.status != 200 or answer.content_type != "application/json":
            return None
        told = await answer.json()
        count: int = sum(swap["at"] >= since for swap in told["swaps"])
        return count
