"""How pictures under way end: clients that leave, stops, a dead proxy; and what stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.workers import sd_files
from tests.workers.launch import Launched, launched

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

GENERATIONS = "/v1/images/generations"
LONG = {"prompt": "a red circle", "seed": 1, "steps": 1000}
SHORT = {"prompt": "a red circle", "seed": 1, "steps": 2}
GIVEN_UP = 75


class Log:
    """What the worker writes to stderr, which tells how far its engine is."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines

    async def has(self, part: str) -> str:
        """Wait for the next line with `part`."""
        async for line in self._lines:
            if part in line.decode():
                return line.decode()
        raise AssertionError(f"the worker ended without {part!r}")


@contextlib.asynccontextmanager
async def logged(
    options: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Launched, Log]]:
    """Launch a worker whose log can be waited for; its warm-up is over."""
    lines = asyncio.StreamReader(limit=1 << 22)
    read, write = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(read, "rb", 0)
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(transport.close)
        stderr = os.dup(2)
        os.dup2(write, 2)  # the worker inherits it
        os.close(write)
        try:
            worker = await stack.enter_async_context(launched("sd", options, env))
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        log = Log(lines)
        await log.has("generate_image completed")
        yield worker, log


@contextlib.asynccontextmanager
async def painting(worker: Launched, log: Log, phase: str, **body: Any) -> AsyncIterator[None]:
    """Have a request under way that is in `phase`; its client leaves at the end of the block."""

    async def ask() -> None:
        with contextlib.suppress(aiohttp.ClientError):  # the block may end the worker
            await worker.session.post(GENERATIONS, json=LONG | body)

    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(ask())
        await log.has(phase)
        yield
        asked.cancel()


async def paint(worker: Launched, **body: Any) -> list[str]:
    async with worker.session.post(GENERATIONS, json=SHORT | body) as answer:
        assert answer.status == 200, await answer.text()
        return [entry["b64_json"] for entry in (await answer.json())["data"]]


async def counts(worker: Launched) -> dict[str, int]:
    async with worker.session.get("/props") as answer:
        return (await answer.json())["pictures"]


async def test_a_client_that_leaves_stops_the_engine(models: Path) -> None:
    """A thousand steps, thrice, end at the next one; the next picture is as ever."""
    async with logged(sd_files.options(models)) as (worker, log):
        assert worker.facts["can_stop"] is True
        before = await paint(worker)

        await log.has("generate_image completed")
        async with painting(worker, log, "generating image", n=3):
            pass

        assert before == await paint(worker)
        assert await counts(worker) == {"wanted": 0, "painted": 2, "dropped": 1}


async def test_leaving_in_any_phase_leaves_the_engine_whole(models: Path) -> None:
    """Loaders and decoders are let finish: only between steps does the engine stop."""
    async with logged(sd_files.options(models)) as (worker, log):
        before = await paint(worker)
        await log.has("generate_image completed")
        for phase in ("apply lora", "loading LoRA", "get_sigmas", "generating image", "decoding"):
            steps = 1 if phase == "decoding" else 1000
            async with painting(worker, log, phase, steps=steps, loras=["swap"]):
                pass

        assert before == await paint(worker)


async def test_sigterm_while_painting_exits_at_once(models: Path) -> None:
    """The worker cuts what runs and exits 0."""
    async with logged(sd_files.options(models)) as (worker, log):
        async with painting(worker, log, "generating image"):
            worker.process.terminate()
            status = await asyncio.wait_for(worker.process.wait(), 5)

        assert status == 0


async def test_a_dead_proxy_ends_the_worker_while_painting(models: Path) -> None:
    """The end of stdin is the end of the worker, whatever its engine does."""
    async with (
        logged(sd_files.options(models)) as (worker, log),
        painting(worker, log, "generating image"),
    ):
        assert worker.process.stdin is not None
        worker.process.stdin.close()

        await asyncio.wait_for(worker.process.wait(), 5)


async def test_without_a_compiler_the_process_is_given_up(models: Path, tmp_path: Path) -> None:
    """An engine that cannot be stopped does not paint on for nobody for long."""
    no_compiler = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
    async with logged(sd_files.options(models, cancel_after_s=1), no_compiler) as (worker, log):
        assert worker.facts["can_stop"] is False

        async with painting(worker, log, "generating image"):
            pass

        assert await asyncio.wait_for(worker.process.wait(), 30) == GIVEN_UP


async def test_without_a_compiler_a_short_rest_is_painted(models: Path, tmp_path: Path) -> None:
    """Where the rest takes no longer than cancel_after_s, the process is kept."""
    no_compiler = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
    async with logged(sd_files.options(models, cancel_after_s=600), no_compiler) as (worker, log):
        async with painting(worker, log, "generating image", steps=10):
            pass

        await log.has("generate_image completed")
        assert len(await paint(worker)) == 1
        assert await counts(worker) == {"wanted": 0, "painted": 1, "dropped": 1}


async def test_memory_does_not_grow(models: Path) -> None:
    """Ten pictures leave nothing behind: their buffers, leaked, would be 0.28 MB."""
    async with launched("sd", sd_files.options(models)) as worker:
        process = psutil.Process(worker.process.pid)
        await paint(worker, n=10, steps=1, size="96x96")  # the interpreter grows for a while
        before = process.memory_info().rss

        await paint(worker, n=10, steps=1, size="96x96")

        assert process.memory_info().rss - before < 200_000


async def test_too_large_a_picture_is_a_clear_error(models: Path) -> None:
    """Without memory for a picture the answer is 503, and smaller ones still work."""
    async with launched("sd", sd_files.options(models)) as worker:
        process = psutil.Process(worker.process.pid)
        room = process.memory_info().vms + 300_000_000
        process.rlimit(psutil.RLIMIT_AS, (room, room))
        async with worker.session.post(GENERATIONS, json=SHORT | {"size": "2048x2048"}) as answer:
            told = (await answer.json())["error"]

        assert (answer.status, told["code"]) == (503, "capacity_exceeded")
        assert len(await paint(worker)) == 1


async def test_a_vae_without_memory_works_in_tiles(models: Path) -> None:
    """A picture whose decoding fits only in tiles is painted so, and the answer tells."""
    async with launched("sd", sd_files.options(models)) as worker:
        process = psutil.Process(worker.process.pid)
        room = process.memory_info().vms + 118_000_000  # 142 are needed at once, 94 for a tile
        process.rlimit(psutil.RLIMIT_AS, (room, room))
        long = SHORT | {"size": "768x96", "steps": 1}
        async with worker.session.post(GENERATIONS, json=long) as answer:
            told = await answer.json()

        assert answer.status == 200, told
        assert told["parameters"]["vae_tiling"] is True
        assert len(await paint(worker)) == 1
