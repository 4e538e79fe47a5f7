"""Measures what pictures in chats take of memory, and what the next turn saves.

The tiny vision models of the tests answer: their weights are next to nothing, so what is seen is
what pictures take before the model. The proxy's own memory is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
from collections.abc import Iterator, Sequence

import aiohttp
import yaml
from PIL import Image

from scripts.benchmarks.eyes import MODELS, Describer
from scripts.benchmarks.serving import hotseat

PROJECTORS = ("llava", "minicpmv")
MANY = 64
LARGE_PX = (8000, 6250)
QUESTION = {"type": "text", "text": "What color is it?"}
NOISE = Image.effect_noise((400, 400), 60).convert("RGB")


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=PROJECTORS, help="one of the two kinds of projectors")


def main(args: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print("| model | chat with | slices | prompt ms | before | at most | after |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for projector in [args.only] if args.only else PROJECTORS:
        asyncio.run(measure(projector))
    return 0


async def measure(projector: str) -> None:
    """Print a row for each chat, with the worker's resident memory in MiB."""
    async with hotseat(_config(projector)) as url, aiohttp.ClientSession(url) as session:
        await _ask(session, [_picture("PNG", (64, 64))])
        async with session.get("/running") as answer:
            [running] = (await answer.json())["running"]
        worker = Describer(session, running["pid"])
        for what, pictures in _chats():
            before, _ = worker.memory_mib()
            worker.forget_peak()
            told = await _ask(session, pictures)
            after, peak = worker.memory_mib()
            slices = told["usage"]["prompt_tokens_details"]["image_tokens"]
            took_ms = told["timings"].get("prompt_ms", 0)
            row = (projector, what, slices, f"{took_ms:.0f}", before, peak, after)
            print("|", " | ".join(map(str, row)), "|", flush=True)


def _chats() -> Iterator[tuple[str, Sequence[str]]]:
    """Draw the pictures of each chat; large ones only when their turn comes."""
    many = [_picture("PNG", (1024, 1000 + n)) for n in range(MANY)]
    yield f"{MANY} pictures of 1 megapixel", many
    yield "the same, the next turn", many
    yield "the same, in another order", many[::-1]
    for kind, mode in (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGBA")):
        yield f"one {kind} {mode} of 50 megapixels", [_picture(kind, LARGE_PX, mode)]


async def _ask(session: aiohttp.ClientSession, pictures: Sequence[str]) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    messages = [{"role": "user", "content": [*parts, QUESTION]}]
    body = {"model": "looks", "messages": messages, "temperature": 0, "max_tokens": 8}
    async with session.post("/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        return await answer.json()


def _config(projector: str) -> str:
    files = {
        "model": str(MODELS / "chat.gguf"),
        "mmproj": str(MODELS / f"{projector}-mmproj.gguf"),
    }
    model = {"llama": {**files, "n_ctx": 4096, "n_threads": 1}}
    return yaml.safe_dump({"logLevel": "warn", "models": {"looks": model}})


def _picture(kind: str, size: tuple[int, int], mode: str = "RGB") -> str:
    file = io.BytesIO()
    NOISE.resize(size).convert(mode).save(file, kind)
    raw = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{raw}"
