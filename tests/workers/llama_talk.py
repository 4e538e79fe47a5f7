"""Talks to a llama worker: what the tests of its endpoints share."""

from __future__ import annotations

from typing import Any

from tests.workers import launch

N_CTX = 512
OPTIONS = {"n_ctx": N_CTX, "n_threads": 1}
FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
COW, MOO = "What does the cow say?", "The cow says moo."


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def chat(worker: launch.Launched, text: str = FRANCE, **more: Any) -> Any:
    given = {"temperature": 0, "max_tokens": 40} | more
    return await worker.openai().chat.completions.create(model="tiny", messages=ask(text), **given)


async def refused(worker: launch.Launched, path: str, **body: Any) -> Any:
    """Send a body that must be refused as the client's mistake. Returns the error."""
    return (await worker.post(path, body, status=400))["error"]


async def sent(worker: launch.Launched, path: str, status: int = 200, **body: Any) -> Any:
    return await worker.post(path, body, status)
