"""What the image worker adds to its engine, and what stays behind after hundreds of pictures.

The tiny FLUX.2-klein set, 64x64, on the CPU. One Hotseat serves one painter; its worker's memory
is its resident set. An engine that a client left is free when the next picture does not wait for
it: that wait is what the picture takes longer than the median of those before which nobody left;
what these take longer themselves is the noise of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from scripts.benchmarks.report import percentile

MODELS = Path(os.environ.get("HOTSEAT_MODELS", Path.home() / ".cache/hotseat/models")) / "image"
OPTIONS = {
    "diffusion_model": str(MODELS / "diffusion.safetensors"),
    "llm": str(MODELS / "llm.gguf"),
    "taesd": str(MODELS / "taesd.safetensors"),
    "n_threads": 1,
    "max_steps": 1000,
}
PATH = "/v1/images/generations"
SIDE_PX, STEPS, SEED = 64, 2, 7
PICTURE = {"prompt": "a red circle", "size": f"{SIDE_PX}x{SIDE_PX}", "seed": SEED, "steps": STEPS}
LONG = {**PICTURE, "model": "painter", "steps": 1000, "stream": True}
ROUNDS = 20  # of the same picture, by each way
EARLY_PICTURES, EARLY_LEAVES = 50, 20  # after which the memory is looked at first
MOST_STEPS_SEEN = 4  # of a picture before its client leaves
MIB = 1 << 20


@dataclass
class Painter:
    """A seated painter: the proxy, and its worker behind it."""

    proxy: aiohttp.ClientSession
    worker: aiohttp.ClientSession
    url: str  # of the worker
    process: psutil.Process
    first: str = ""  # the picture that all others must be
    different: int = 0  # of them, those that were not
    step_s: list[float] = field(default_factory=list)

    async def paint(self) -> float:
        """Have the picture painted through the proxy; gives the seconds."""
        return await self._ask(self.proxy, PATH)

    async def paint_straight(self) -> float:
        return await self._ask(self.worker, self.url + PATH)

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> float:
        began = time.perf_counter()
        async with session.post(url, json={**PICTURE, "model": "painter"}) as answer:
            answer.raise_for_status()
            told = await answer.json()
        seconds = time.perf_counter() - began
        picture = told["data"][0]["b64_json"]
        self.first = self.first or picture
        self.different += picture != self.first
        return seconds

    async def leave(self, after_steps: int) -> None:
        """Ask for a long picture, see some steps of it and hang up."""
        seen: list[float] = []
        async with self.proxy.post(PATH, json=LONG) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(b"data:") and json.loads(line[5:])["step"] > 0:
                    seen.append(time.perf_counter())
                if len(seen) > after_steps:
                    break
            answer.close()  # and read no more: this is what a client does that goes away
        self.step_s += [later - earlier for earlier, later in pairwise(seen)]

    @property
    def memory_bytes(self) -> int:
        held: int = self.process.memory_info().rss
        return held


def add_to(parser: argparse.ArgumentParser) -> None:
    """Tell the command line what there is to choose."""
    for name, default in (("pictures", 500), ("leaves", 200)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"how many ({default})")


def main(args: argparse.Namespace) -> int:
    """Print the table; 1 if a picture was not as the first one."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, no GPU used\n")
    print("| what | figure |\n|---|--:|")
    return asyncio.run(measure(args.pictures, args.leaves))


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


class Alone:
    """The engine in this process, with nothing around it."""

    def __init__(self) -> None:
        from workers.sd.engine import Engine  # noqa: PLC0415  # only here is it needed
        from workers.sd.job import Job  # noqa: PLC0415
        from workers.sd.options import SdOptions  # noqa: PLC0415

        self._job = Job(str(PICTURE["prompt"]), SIDE_PX, SIDE_PX, STEPS, cfg_scale=1.0)
        self._engine = Engine(lambda _: None)
        options = SdOptions.model_validate(OPTIONS)
        with quiet():
            self._engine.load(options, flash_attn=False, progress=lambda _: None)

    def paint(self) -> float:
        """Paint the picture in this thread; gives the seconds."""
        began = time.perf_counter()
        with quiet():
            self._engine.paint(self._job, SEED, threading.Event(), lambda _: None)
        return time.perf_counter() - began


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the engine's log out of the table."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


@contextlib.asynccontextmanager
async def seated() -> AsyncIterator[Painter]:
    """Serve one painter, and have it painted once."""
    from proxy import app  # noqa: PLC0415  # as for `figures`: it serves in this process
    from proxy.config import load_config  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="hotseat-bench-") as folder:
        path = Path(folder, "swap.yaml")
        config: dict[str, Any] = {"logLevel": "warn", "models": {"painter": {"sd": OPTIONS}}}
        path.write_text(json.dumps(config))  # noqa: ASYNC240  # nothing else runs yet
        async with app.serving(load_config(path).config, app.listen("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.port}"
            async with aiohttp.ClientSession(url) as session:
                async with session.post(PATH, json={**PICTURE, "model": "painter"}) as answer:
                    answer.raise_for_status()
                process = server.pool.standing.running()[0].process
                pid = psutil.Process(process.pid)
                yield Painter(session, process.session, process.url, pid)


async def measure(pictures: int, leaves: int) -> int:
    async with seated() as painter:
        await added(painter)
        took_s = await many_pictures(painter, pictures)
        await many_leaves(painter, leaves, took_s)
        row("pictures that were not the first one, byte by byte", str(painter.different))
    return 1 if painter.different else 0


async def added(painter: Painter) -> None:
    """Paint by each way in turn, for the machine's mood changes."""
    alone = Alone()
    rounds = [
        (alone.paint(), await painter.paint_straight(), await painter.paint())
        for _ in range(ROUNDS)
    ]
    alone_s, straight_s, proxied_s = (statistics.median(way) for way in zip(*rounds, strict=True))
    row("the engine alone, one picture", f"{alone_s * 1e3:.0f} ms")
    for what, took_s in (("worker", straight_s), ("Hotseat", proxied_s)):
        told = f"{took_s * 1e3:.0f} ms ({(took_s - alone_s) * 1e3:+.0f} ms)"
        row(f"the same of a seated {what}, as a PNG", told)


async def many_pictures(painter: Painter, pictures: int) -> list[float]:
    """Paint them one after the other; gives the seconds of each."""
    early = min(EARLY_PICTURES, pictures)
    took_s = [await painter.paint() for _ in range(early)]
    early_bytes = painter.memory_bytes
    took_s += [await painter.paint() for _ in range(pictures - early)]
    row("one after the other", f"{pictures / sum(took_s):.1f} pictures/s")
    row(f"the worker's memory after {early} pictures", in_mib(early_bytes))
    row(f"after {pictures}", in_mib(painter.memory_bytes, early_bytes))
    return took_s


async def many_leaves(painter: Painter, leaves: int, took_s: Sequence[float]) -> None:
    """Leave pictures under way; `took_s` is what pictures take when nobody left one before."""
    alone_s, early = statistics.median(took_s), min(EARLY_LEAVES, leaves)
    waits_s = []
    early_bytes = painter.memory_bytes
    for number in range(1, leaves + 1):
        await painter.leave(random.randint(1, MOST_STEPS_SEEN))  # noqa: S311  # no secret
        waits_s.append(await painter.paint() - alone_s)
        if number == early:
            early_bytes = painter.memory_bytes
    row("one step", f"{statistics.median(painter.step_s) * 1e3:.0f} ms")
    noise_s = [one - alone_s for one in took_s]
    for what, part in (("median", 0.5), ("95 %", 0.95), ("worst", 1.0)):
        free, noise = (max(percentile(each, part), 0) * 1e3 for each in (waits_s, noise_s))
        figure = f"{free:.0f} ms (noise: {noise:.0f} ms)"
        row(f"{leaves} pictures left under way: until the engine is free, {what}", figure)
    row(f"the worker's memory after {early} of them", in_mib(early_bytes))
    row(f"after {leaves}", in_mib(painter.memory_bytes, early_bytes))


def in_mib(held_bytes: int, before_bytes: int | None = None) -> str:
    told = f"{held_bytes / MIB:.1f} MiB"
    return told if before_bytes is None else f"{told} ({(held_bytes - before_bytes) / MIB:+.1f})"
