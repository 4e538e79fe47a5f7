"""Measures what Hotseat adds to a request and what a swap costs, and prints a table."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp

from proxy import app
from proxy.config import Config, load_config
from proxy.pool import Pool

MODELS = Path(os.environ.get("HOTSEAT_MODELS", Path.home() / ".cache/hotseat/models"))
CONFIG = f"""
logLevel: warn
models:
  a: {{concurrencyLimit: 100, echo: {{reply: x}}}}
  b: {{echo: {{reply: x}}}}
  chat: {{llama: {{model: {MODELS}/chat.gguf, n_threads: 1, defaults: {{temperature: 0}}}}}}
  embed: {{llama: {{model: {MODELS}/embed.gguf, embedding: true, n_threads: 1}}}}
  painter:
    sd:
      diffusion_model: {MODELS}/image/diffusion.safetensors
      llm: {MODELS}/image/llm.gguf
      taesd: {MODELS}/image/taesd.safetensors
      n_threads: 2
      defaults: {{width: 128, height: 128, steps: 8}}
  florence-2: {{florence2: {{model: {MODELS}/florence2, n_threads: 1}}}}
"""
REQUESTS = 500
SWAPS = 6

Ask = Callable[[], Awaitable[object]]


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "swap.yaml")
        path.write_text(CONFIG)
        config = load_config(path).config
        asyncio.run(serve_and_measure(config))


async def serve_and_measure(config: Config) -> None:
    async with app.serving(config, app.listen("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession(url) as session:
            await measure(session, server.pool)


async def measure(session: aiohttp.ClientSession, pool: Pool) -> None:
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, no GPU used\n")
    print("| what | median | worst |\n|---|--:|--:|")
    await overhead(session, pool)
    for model in ("a", "chat", "embed", "painter", "florence-2"):
        away = lambda: chat(session, "b")  # noqa: E731  # named for the call below
        await row(
            f"swap: `{model}` called while another sits, first byte", call(session, model), away
        )
    for model in ("chat", "painter"):
        await row(f"`{model}` seated: one answer", call(session, model), call(session, model))


async def overhead(session: aiohttp.ClientSession, pool: Pool) -> None:
    """Compare a request through the proxy with the same one straight to the worker."""
    await chat(session, "a")
    through = [await timed(lambda: chat(session, "a")) for _ in range(REQUESTS)]
    process = pool.standing.running()[0].process
    straight = [
        await timed(lambda: chat(process.session, "a", process.url)) for _ in range(REQUESTS)
    ]
    tell("request straight to a seated worker", straight)
    tell("the same through Hotseat", through)
    began = time.perf_counter()
    await asyncio.gather(*(chat(session, "a") for _ in range(REQUESTS)))
    rate = REQUESTS / (time.perf_counter() - began)
    print(f"| requests at once, {REQUESTS} together | {rate:.0f}/s | |")


async def row(what: str, ask: Ask, before: Ask) -> None:
    times = []
    for _ in range(SWAPS):
        await before()
        times.append(await timed(ask))
    tell(what, times)


def tell(what: str, times: list[float]) -> None:
    median, worst = statistics.median(times) * 1e3, max(times) * 1e3
    print(f"| {what} | {median:.1f} ms | {worst:.1f} ms |", flush=True)


async def timed(ask: Ask) -> float:
    began = time.perf_counter()
    await ask()
    return time.perf_counter() - began


async def chat(session: aiohttp.ClientSession, model: str, root: str = "") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    await post(session, f"{root}/v1/chat/completions", body)


def call(session: aiohttp.ClientSession, model: str) -> Ask:
    match model:
        case "embed":
            return lambda: post(session, "/v1/embeddings", {"model": model, "input": "x"})
        case "painter":
            body = {"model": model, "prompt": "a red circle"}
            return lambda: post(session, "/v1/images/generations", body)
        case "florence-2":
            picture = (
                "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1Pe"
                "AAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
            )
            body = {"model": model, "image": picture, "task": "caption"}
            return lambda: post(session, "/v1/images/descriptions", body)
        case _:
            return lambda: chat(session, model)


async def post(session: aiohttp.ClientSession, path: str, body: Mapping[str, object]) -> None:
    async with session.post(path, json=body) as answer:
        answer.raise_for_status()
        await answer.read()
