"""Real engines in a budget of the host's memory: who stays is read from the process table."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.proxy.painted import PAINTER
from tests.proxy.served import Hotseat, served, workers_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CONFIG = (
    PAINTER
    + """
device: cpu
host: {{memory: {budget_bytes}}}
models:
  painter:
    sd:
      <<: *painter
      defaults: {{width: 64, height: 64, steps: 2}}
  chat:
    llama: {{model: {models}/chat.gguf, n_threads: 1, defaults: {{temperature: 0}}}}
  embed:
    llama: {{model: {models}/embed.gguf, embedding: true, n_threads: 1}}
"""
)
NAMES = ["chat", "embed", "painter"]
PLENTY_BYTES = 4 << 30
ENGINE_OF = {"chat": "hotseat-llama", "embed": "hotseat-llama", "painter": "hotseat-sd"}
MARGIN = 1.02  # of what is charged: a peak is taken a moment before the next page is touched


@pytest.fixture(autouse=True)
def _threads_that_wait_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


async def ask(hotseat: Hotseat, model: str) -> None:
    """Ask the model what it can do, and see that the answer is right."""
    match model:
        case "chat":
            answer = await hotseat.chat("chat", "What is the capital of France?")
            assert "Paris" in answer.text
        case "embed":
            body = {"model": "embed", "input": "a red circle"}
            vector = (await hotseat.post("/v1/embeddings", json=body)).body["data"][0]["embedding"]
            assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-3)
        case _:
            body = {"model": "painter", "prompt": "a red circle"}
            painted = await hotseat.post("/v1/images/generations", json=body)
            assert painted.body["data"][0]["b64_json"]


class Scales:
    """Weighs the loaded workers of the process table, over and over, while others work.

    A worker renames its process before it loads. One that only imports is not weighed: it has no
    charge yet.
    """

    def __init__(self) -> None:
        self.most_bytes = 0
        self.most_loaded = 0

    def weigh(self) -> None:
        sizes = list(resident_bytes(psutil.Process().children(recursive=True)))
        self.most_bytes = max(self.most_bytes, sum(sizes))
        self.most_loaded = max(self.most_loaded, len(sizes))

    @asynccontextmanager
    async def weighing(self) -> AsyncIterator[None]:
        async def weigh_on() -> None:
            while True:
                await asyncio.to_thread(self.weigh)

        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(weigh_on())
            yield
            watch.cancel()


def resident_bytes(workers: Iterable[psutil.Process]) -> Iterable[int]:
    for worker in workers:
        try:
            if worker.name().startswith("hotseat-"):
                yield worker.memory_info().rss
        except psutil.NoSuchProcess:
            continue


async def residents(hotseat: Hotseat) -> dict[str, int]:
    """Give each resident model's charge in bytes, once /running is what the process table says."""
    running = await hotseat.running()
    while any(entry["state"] != "ready" for entry in running.values()):
        running = await hotseat.running()
    loaded = {w.pid: w for w in workers_of(os.getpid()) if w.name().startswith("hotseat-")}
    assert {entry["pid"] for entry in running.values()} == loaded.keys()
    for name, entry in running.items():
        worker = loaded[entry["pid"]]
        assert worker.name() == ENGINE_OF[name]
        assert worker.memory_info().rss <= MARGIN * entry["memory"]["host"]
    return {name: entry["memory"]["host"] for name, entry in running.items()}


async def all_charges(models: Path, folder: Path) -> dict[str, int]:
    """Serve all three with room for all; gives what each was seen to need."""
    config = CONFIG.format(models=models, budget_bytes=PLENTY_BYTES)
    async with served(config, folder) as hotseat:
        for name in [*NAMES, *NAMES]:
            await ask(hotseat, name)
        charges = await residents(hotseat)
        assert (await hotseat.get("/logs")).body.count(" swap came=") == len(NAMES)
    return charges


async def test_all_stay_where_there_is_room_for_all(models: Path, tmp_path: Path) -> None:
    """Three engines live side by side, and no process holds more than it is charged."""
    charges = await all_charges(models, tmp_path)

    assert sorted(charges) == NAMES


async def test_two_of_three_stay_and_they_are_the_right_two(models: Path, tmp_path: Path) -> None:
    """The one that takes long to load stays; the other two take turns beside it.

    The budget is what all three were seen to need, less half of the smallest: any two fit. All
    the while the loaded workers' resident sets add up to no more than it.
    """
    charges = await all_charges(models, tmp_path)
    budget_bytes = sum(charges.values()) - min(charges.values()) // 2
    config = CONFIG.format(models=models, budget_bytes=budget_bytes)
    scales = Scales()
    async with served(config, tmp_path) as hotseat, scales.weighing():
        await ask(hotseat, "painter")
        painter = (await hotseat.running())["painter"]["pid"]
        for name in ("chat", "embed", "chat", "embed"):
            await ask(hotseat, name)
            assert sorted(await residents(hotseat)) == sorted([name, "painter"])
        for name in ("painter", "embed", "painter"):
            await ask(hotseat, name)

        assert (await hotseat.running())["painter"]["pid"] == painter
        told = (await hotseat.get("/logs")).body
        assert told.count(" swap came=painter ") == 1
        assert told.count(" swap came=") == 5

    assert scales.most_loaded == 2
    assert 0 < scales.most_bytes <= budget_bytes
