"""Very many clients at once, and what is left of those who leave."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from proxy.forward import Errand
from proxy.pool import Ticket
from tests.proxy.served import Gate, Hotseat, chat_body, served, spawned

CLIENTS = 10_000
TO_SPARE = 500  # descriptors for other things than clients
KNOCKING = 200  # at once: more would only wait in the kernel
MARGIN_BYTES = 16 << 20  # 1.6 KiB for each client; one that waits takes ten times as much
CONFIG = """
models:
  a: {concurrencyLimit: 1, queueLimit: 10000, echo: {reply: I am a}}
  b: {queueLimit: 10000, echo: {reply: I am b}}
"""


@pytest.fixture
def room() -> Iterator[int]:
    """Allow as many descriptors as the system does; give how many clients that makes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(CLIENTS, hard - TO_SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Clients that ask and do not read; every tenth of them for a stream, the half for b."""

    def __init__(self, hotseat: Hotseat) -> None:
        self._hotseat = hotseat
        self._door = asyncio.Semaphore(KNOCKING)
        self._writers: list[asyncio.StreamWriter] = []

    async def gather(self, count: int) -> None:
        """Let so many come; return when all of them wait."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self._come(number))
        while await waiting(self._hotseat) < count:
            pass

    async def _come(self, number: int) -> None:
        asked = chat_body("ab"[number % 2], "hi") | {"stream": number % 10 == 0}
        body = json.dumps(asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        port = int(self._hotseat.url.rpartition(":")[2])
        async with self._door:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers.append(writer)
            writer.write(head.encode() + b"\r\n" + body)
            await writer.drain()

    def leave(self) -> None:
        """Go: some say good-bye, others do not."""
        for number, writer in enumerate(self._writers):
            if number % 3:
                writer.close()
            else:
                writer.transport.abort()
        self._writers.clear()


async def waiting(hotseat: Hotseat) -> int:
    return len((await hotseat.get("/api/queue")).body["waiting"])


async def until_left(process: asyncio.subprocess.Process, count: int) -> None:
    """Read the proxy's log until it has said so often that a client left."""
    assert process.stderr is not None
    while count:
        line = await process.stderr.readline()
        assert line, "the log ended"
        count -= b" status=499 " in line


@pytest.mark.timeout(120)
async def test_ten_thousand_who_leave_cost_no_swap_and_leave_nothing_behind(
    tmp_path: Path, gate: Callable[[], Gate], room: int
) -> None:
    """The seated model goes on, nobody waits, and a second crowd needs no more than the first.

    The first one may leave the allocator with more pages than before, which the next one uses.
    """
    held = gate()
    async with spawned(CONFIG, tmp_path) as (hotseat, process), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        pid = (await hotseat.running())["a"]["pid"]
        proxy, crowd = psutil.Process(process.pid), Crowd(hotseat)
        fds_before, rss_bytes = proxy.num_fds(), list[int]()
        for _ in range(2 * -(-CLIENTS // room)):
            await crowd.gather(room)
            began = time.monotonic()
            assert await waiting(hotseat) == room
            looked_s = time.monotonic() - began
            crowd.leave()
            await until_left(process, room)
            rss_bytes.append(proxy.memory_info().rss)
            assert looked_s < 2
            assert await waiting(hotseat) == 0
        while set(await hotseat.running()) != {"a"}:
            pass  # the process that was started for b, and that nobody wants any more
        held.open()

        assert (await first).text == "I am a"
        assert (await hotseat.chat("a")).text == "I am a"
        assert {m: w["pid"] for m, w in (await hotseat.running()).items()} == {"a": pid}
        swaps = (await hotseat.get("/api/swaps")).body["swaps"]
        assert [swap["model"] for swap in swaps] == ["a"]
        assert proxy.num_fds() <= fds_before + 3
        assert rss_bytes[-1] <= rss_bytes[0] + MARGIN_BYTES


async def test_nothing_that_belongs_to_who_has_left_is_kept(
    tmp_path: Path, gate: Callable[[], Gate], room: int
) -> None:
    """Neither his ticket nor his request nor a task of his: garbage, once he is gone."""
    held, count = gate(), min(400, room // 2)
    before = alive()  # pytest keeps the frames of tests that failed, and all that is in them
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        crowd = Crowd(hotseat)
        await crowd.gather(count)
        during = alive() - before
        crowd.leave()
        while (await hotseat.get("/metrics")).body.count(f'status="499"}} {count / 2}') < 2:
            pass
        assert min(during["Ticket"], during["Errand"], during["Request"]) >= count
        while not all_gone(after := alive() - before) or during["Task"] - after["Task"] < count:
            assert await waiting(hotseat) == 0  # a round trip, in which tasks go on to their end
        held.open()

        assert (await first).status == 200


def alive() -> Counter[str]:
    """Count what exists of each kind once garbage is collected."""
    gc.collect()
    found = Counter(type(one) for one in gc.get_objects())
    return Counter({k.__name__: found[k] for k in (Ticket, Errand, web.Request, asyncio.Task)})


def all_gone(after: Counter[str]) -> bool:
    """Tell whether only the first one is left, and whoever asks for the queue."""
    return (after["Ticket"], after["Errand"]) == (1, 1) and after["Request"] <= 2


async def test_those_who_stay_are_served_though_every_second_leaves(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A client gone while it was queued changes nothing for the others."""
    held = gate()
    async with (
        served(f"patience: 60\n{CONFIG}", tmp_path) as hotseat,
        aiohttp.ClientSession(hotseat.url, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        hotseat.session = session
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        asking = [tasks.create_task(hotseat.chat("aabb"[number % 4])) for number in range(200)]
        while await waiting(hotseat) < 200:
            pass
        for leaver in asking[::2]:
            leaver.cancel()
        held.open()
        texts = [(await task).text for task in asking[1::2]]
        swaps = (await hotseat.get("/api/swaps")).body["swaps"]

        assert texts == ["I am a", "I am b"] * 50
        assert (await first).text == "I am a"
        assert [swap["model"] for swap in swaps] == ["a", "b"]
