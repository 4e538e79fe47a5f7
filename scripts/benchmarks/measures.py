"""What a user feels of a proxy that swaps, as figures, each of one that has just started."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.contest import Serving
from scripts.benchmarks.report import percentile
from scripts.benchmarks.talk import Connection, NoAnswer, ask, connected

MIB = 1 << 20
MEMORY = ("VmRSS", "VmHWM")  # in /proc/PID/status
CONCURRENCY = 16
CLIENTS = 3  # that keep one model busy
WORK_S = 0.5  # of their requests
PAUSES_S = (0.002, 0.02)  # between two chunks of a stream

Rows = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    swaps: int
    slow: int  # swaps to models that take their time
    rounds: int
    requests: int  # of a round
    seconds: float  # that all ask together
    chunks: int  # of a stream
    upload_mib: int
    starve_s: float  # after which nobody waits for the starved one any more


Measure = Callable[[Serving, Sizes], Awaitable[Rows]]


async def swap(on: Serving, sizes: Sizes) -> Rows:
    """Let two models that are up at once take turns."""
    took_s = []
    await ask(on.port, "b")
    for number in range(sizes.swaps):
        began = time.monotonic()
        await ask(on.port, "ab"[number % 2])
        took_s.append(time.monotonic() - began)
    return {"swap, worker up at once: p50 / p90 / max": _ms(took_s, 0.5, 0.9, 1.0)}


async def slow_swap(on: Serving, _: Sizes) -> Rows:
    """Call models that take their time, and count what the swap took beyond that."""
    overhead_s = []
    for model in on.slow:
        await ask(on.port, "a")
        began = time.monotonic()
        told = await ask(on.port, model)
        overhead_s.append(time.monotonic() - began - (told["ready"] - told["started"]))
    return {
        "swap, worker up after 0.3 to 3.3 s: beyond that, p50 / p90": _ms(overhead_s, 0.5, 0.9)
    }


async def latency(on: Serving, sizes: Sizes) -> Rows:
    """Ask straight and through the proxy, in turn; small JSON on kept-alive connections."""
    added_s: dict[float, list[float]] = {0.5: [], 0.9: []}
    async with _both_ways(on) as (straight, through):
        for _ in range(sizes.rounds):
            direct = [await _timed(straight) for _ in range(sizes.requests)]
            proxied = [await _timed(through) for _ in range(sizes.requests)]
            for part, told in added_s.items():
                told.append(percentile(proxied, part) - percentile(direct, part))
    medians = [statistics.median(told) for told in added_s.values()]
    return {"added to a small request: p50 / p90": _in_ms(*medians)}


async def throughput(on: Serving, sizes: Sizes) -> Rows:
    """Let 16 connections ask without end."""
    await ask(on.port, "a")
    ends, counted = time.monotonic() + sizes.seconds, [0, 0]

    async def keep_asking() -> None:
        async with connected(on.port) as connection:
            while time.monotonic() < ends:
                try:
                    await connection.ask("a")
                    counted[0] += 1
                except NoAnswer:
                    counted[1] += 1

    await asyncio.gather(*(keep_asking() for _ in range(CONCURRENCY)))
    refused = f", {counted[1]} refused" if counted[1] else ""
    return {f"{CONCURRENCY} at once": f"{counted[0] / sizes.seconds:.0f}/s{refused}"}


async def streams(on: Serving, sizes: Sizes) -> Rows:
    """Take streams straight and through the proxy; each chunk says when it was sent."""
    rows: dict[str, str] = {}
    async with _both_ways(on) as (straight, through):
        for pause_s in PAUSES_S:
            pairs = [
                (await _stream(straight, sizes, pause_s), await _stream(through, sizes, pause_s))
                for _ in range(sizes.rounds)
            ]
            first_s = statistics.median(via.first_s - direct.first_s for direct, via in pairs)
            chunk_s = statistics.median(via.chunk_s - direct.chunk_s for direct, via in pairs)
            told = f"a chunk each {pause_s * 1e3:g} ms: added to the first / to each, p50"
            rows[told] = _in_ms(first_s, chunk_s, digits=3)
    return rows


async def upload(on: Serving, sizes: Sizes) -> Rows:
    """Post one large body, and look at the proxy's memory."""
    await ask(on.port, "a")
    before_mib, _ = _memory_mib(on.pid)
    await ask(on.port, "a", filler=sizes.upload_mib * MIB)
    after_mib, peak_mib = _memory_mib(on.pid)
    told = f"{before_mib} / {peak_mib} / {after_mib} MiB"
    return {f"memory, a POST of {sizes.upload_mib} MiB: before / peak / after": told}


async def unload(on: Serving, _: Sizes) -> Rows:
    """Unload a model that is slow to stop, and meanwhile ask the one beside it."""
    await ask(on.port, "left")
    await ask(on.port, "right")
    waited_s = [0.0]
    async with asyncio.TaskGroup() as tasks:
        unloading = tasks.create_task(_unload(on.port, "left"))
        while not unloading.done():
            began = time.monotonic()
            await ask(on.port, "right")
            waited_s.append(time.monotonic() - began)
            await asyncio.sleep(0.02)  # a client now and then, not a flood
    return {"warm request while another model unloads for 4 s: longest": _ms(waited_s, 1.0)}


async def starve(on: Serving, sizes: Sizes) -> Rows:
    """Keep one model busy, and ask another."""
    await ask(on.port, "a")
    over = asyncio.Event()

    async def keep_asking(delay_s: float) -> None:
        await asyncio.sleep(delay_s)  # clients that are out of step
        while not over.is_set():
            await ask(on.port, "a", work=WORK_S)

    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(keep_asking(WORK_S * number / CLIENTS))
        await asyncio.sleep(2 * WORK_S)  # until the flood is in full flow
        began = time.monotonic()
        asked = tasks.create_task(ask(on.port, "b"))
        done, _ = await asyncio.wait({asked}, timeout=sizes.starve_s)
        waited_s = time.monotonic() - began
        over.set()
    told = f"{waited_s:.1f} s" if done else f"not within {sizes.starve_s:g} s"
    return {f"{CLIENTS} clients keep a model busy: wait for another": told}


async def deaf(on: Serving, _: Sizes) -> Rows:
    """Swap away from a worker that ignores SIGTERM."""
    await ask(on.port, "deaf")
    began = time.monotonic()
    await ask(on.port, "a")
    told = f"{time.monotonic() - began:.1f} s"
    return {"swap from a worker that ignores SIGTERM, unloadTimeout 1": told}


async def reload(on: Serving, _: Sizes) -> Rows:
    """Have the file read again while a request is under way, though nothing has changed."""
    before = await ask(on.port, "a")
    async with asyncio.TaskGroup() as tasks:
        under_way = tasks.create_task(_comes_back(on.port, work=2 * WORK_S))
        await asyncio.sleep(WORK_S)
        os.kill(on.pid, signal.SIGHUP)
    answered = under_way.result() is not None
    after = await _comes_back(on.port) or await _comes_back(on.port)
    is_kept = after is not None and after["pid"] == before["pid"]
    return {
        "reload that changes nothing: its worker / a request under way": (
            f"{'kept' if is_kept else 'lost'} / {'answered' if answered else 'lost'}"
        )
    }


MEASURES: Mapping[str, Measure] = {
    "swap": swap,
    "slow-swap": slow_swap,
    "latency": latency,
    "throughput": throughput,
    "streams": streams,
    "upload": upload,
    "unload": unload,
    "starve": starve,
    "deaf": deaf,
    "reload": reload,
}


# what they are made of


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream took, in seconds."""

    first_s: float  # to its first chunk
    chunk_s: float  # the median of a chunk's way


async def _stream(connection: Connection, sizes: Sizes, pause_s: float) -> Streamed:
    began, first_s, ways_s = time.monotonic(), 0.0, []
    async for event in connection.events("a", chunks=sizes.chunks, pause=pause_s):
        now = time.monotonic()
        first_s = first_s or now - began
        ways_s.append(now - float(event))
    return Streamed(first_s, statistics.median(ways_s))


@asynccontextmanager
async def _both_ways(on: Serving) -> AsyncIterator[tuple[Connection, Connection]]:
    """Connect to a worker itself, and to the proxy before it."""
    worker = await ask(on.port, "a")
    async with connected(worker["port"]) as straight, connected(on.port) as through:
        await through.ask("a")
        yield straight, through


async def _timed(connection: Connection) -> float:
    began = time.perf_counter()
    await connection.ask("a")
    return time.perf_counter() - began


async def _unload(port: int, model: str) -> None:
    async with connected(port) as connection:
        await connection.send(f"/api/models/unload/{model}", {})
        async for _ in connection.parts():
            pass


async def _comes_back(port: int, **wishes: object) -> Mapping[str, Any] | None:
    """Ask, and give None if there is no answer."""
    try:
        return await ask(port, "a", **wishes)
    except (NoAnswer, OSError, asyncio.IncompleteReadError, ValueError):
        return None


def _memory_mib(pid: int) -> tuple[int, int]:
    """Give what a process holds, and the most that it ever held."""
    status = Path("/proc", str(pid), "status").read_text()
    now, peak = (re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in MEMORY)
    return int(now[1]) // 1024 if now else 0, int(peak[1]) // 1024 if peak else 0


def _ms(seconds: Sequence[float], *parts: float) -> str:
    return _in_ms(*(percentile(seconds, part) for part in parts), digits=0)


def _in_ms(*seconds: float, digits: int = 2) -> str:
    return " / ".join(f"{one * 1e3:.{digits}f}" for one in seconds) + " ms"
