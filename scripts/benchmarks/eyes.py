"""Measures how fast pictures are described on a CPU, and what memory that takes.

Florence-2 with the published base model's true dimensions has random weights here: it takes the
time of the real one and makes no sense, so each answer is as long as it may get. `--tiny` takes
the fitted one of the tests, which shows what everything around the model costs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import yaml
from PIL import Image

from scripts.benchmarks.serving import hotseat

ROOT = Path(__file__).parents[2]
MODELS = Path(os.environ.get("HOTSEAT_MODELS", Path.home() / ".cache/hotseat/models"))
MAKE = """
import pathlib, sys
from tiny.florence_shape import BASE, make_unfitted
make_unfitted(pathlib.Path(sys.argv[1]), BASE)
"""
CLIENTS = (1, 2, 4)
BATCHES = (1, 4)  # the option: without and with
PICTURES: Mapping[str, int] = {"tiny": 80, "base": 4}
TOKENS = 32  # of each answer
MIB = 1 << 20
ASKS: Mapping[str, Mapping[str, object]] = {
    "caption": {"task": "caption"},
    "caption, objects, text": {"task": ["detailed_caption", "objects", "ocr"]},
}
LARGE: Mapping[str, tuple[str, tuple[int, int]]] = {
    "JPEG of 100 megapixels": ("JPEG", (12_500, 8_000)),
    "PNG of 50 megapixels": ("PNG", (10_000, 5_000)),
}


@dataclass(frozen=True, slots=True)
class Describer:
    """A Hotseat whose one model describes pictures."""

    session: aiohttp.ClientSession
    pid: int  # of the worker

    async def describe(self, picture: str, **asked: object) -> None:
        body = {"model": "eyes", "image": picture, "max_tokens": TOKENS, **asked}
        async with self.session.post("/v1/images/descriptions", json=body) as answer:
            await answer.read()
            answer.raise_for_status()

    def cpu_s(self) -> float:
        """Tell what time its threads have spent on the CPUs."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def memory_mib(self) -> tuple[int, int]:
        """Tell what the worker holds, and the most it has held since the last `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = [re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "VmHWM")]
        now, peak = (int(match[1]) >> 10 for match in found if match)
        return now, peak

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tiny", action="store_true", help="only the tests' model: seconds")
    parser.add_argument("--pictures", type=int, help="for a figure, at least (4; tiny: 80)")


def main(args: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} CPU cores, load {load:.1f}, no GPU used, answers of {TOKENS} tokens\n"
    )
    print("Pictures a second, and the CPU time of each: with `batch: 1`, and with the default")
    print("| model | asked of each picture | clients | one by one | together |")
    print("|---|---|--:|--:|--:|")
    with models(tiny=args.tiny) as found:
        for name, directory in found.items():
            asyncio.run(measure(name, directory, args.pictures or PICTURES[name]))
    return 0


@contextmanager
def models(*, tiny: bool) -> Iterator[Mapping[str, Path]]:
    """Give the directories of the models, the large one for the length of the block."""
    found = {"tiny": MODELS / "florence2"}
    with tempfile.TemporaryDirectory(prefix="hotseat-bench-") as folder:
        if not tiny:
            path = Path(folder, "base")
            subprocess.run([sys.executable, "-c", MAKE, path], cwd=ROOT / "scripts", check=True)
            found["base"] = path
        yield found


async def measure(name: str, directory: Path, pictures: int) -> None:
    """Print a row for each question and number of clients, then what pictures take of memory."""
    paces: dict[tuple[str, int], list[str]] = {}
    memory = ""
    for batch in BATCHES:
        async with hotseat(_config(directory, batch)) as url:
            describer = await _ready(url)
            try:
                for ask in ASKS:
                    for clients in CLIENTS:
                        pace = await pace_of(describer, ask, clients, pictures)
                        paces.setdefault((ask, clients), []).append(pace)
                if batch == BATCHES[-1]:
                    memory = await memory_told(describer)
            finally:
                await describer.session.close()
    for (ask, clients), (alone, together) in paces.items():
        print(f"| {name} | {ask} | {clients} | {alone} | {together} |", flush=True)
    print(f"\n{name}, together: {memory}\n", flush=True)


async def pace_of(describer: Describer, ask: str, clients: int, pictures: int) -> str:
    """Let clients ask one request after the other; tells how fast pictures are described.

    The CPU time says more than the clock on a machine that has other work.
    """
    each = max(pictures // clients, 1)
    picture = _picture("PNG", (640, 480), noisy=True)

    async def client() -> None:
        for _ in range(each):
            await describer.describe(picture, **ASKS[ask])

    began_s, began_cpu_s = time.monotonic(), describer.cpu_s()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    took_s, cpu_s = time.monotonic() - began_s, describer.cpu_s() - began_cpu_s
    return f"{clients * each / took_s:.2f}/s, {cpu_s / clients / each:.2f} s"


async def memory_told(describer: Describer) -> str:
    """Describe large pictures, and tell how far each raised what the worker held."""
    now, _ = describer.memory_mib()
    told = [f"the worker holds {now} MiB after all that"]
    for what, (kind, size) in LARGE.items():
        picture = _picture(kind, size)
        before, _ = describer.memory_mib()
        describer.forget_peak()
        await describer.describe(picture)
        after, peak = describer.memory_mib()
        told.append(f"a {what}: {peak - before:+} MiB at most, {after - before:+} MiB after")
    return "; ".join(told)


async def _ready(url: str) -> Describer:
    """Load the model with a first picture."""
    session = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=None))
    await Describer(session, 0).describe(_picture("PNG", (64, 64)))
    async with session.get("/running") as answer:
        [running] = (await answer.json())["running"]
    return Describer(session, running["pid"])


def _config(directory: Path, batch: int) -> str:
    options = {"model": str(directory), "device": "cpu", "batch": batch, "max_pixels": 100_000_000}
    model = {"florence2": options, "concurrencyLimit": max(CLIENTS)}
    return yaml.safe_dump({"logLevel": "warn", "models": {"eyes": model}})


def _picture(kind: str, size: tuple[int, int], *, noisy: bool = False) -> str:
    image = Image.effect_noise(size, 80) if noisy else Image.new("RGB", size, "white")
    file = io.BytesIO()
    image.convert("RGB").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()
