"""Where llama-swap's users lose, D1 to D10: each test fails on what happens there."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.llama_swap.house import (
    broken_stream,
    events,
    house,
    pid_of,
    started,
    until_listed,
    until_state,
)
from tests.proxy.served import Gate, served

TOGETHER = "groups: {all: {swap: false, members: [a, b]}}\n"


async def test_d01_a_worker_serves_as_soon_as_it_is_up(tmp_path: Path) -> None:
    """Its readiness is seen within a fraction of a second, not at the next full one."""
    late_s = []
    async with served(house(a="", b=""), tmp_path) as hotseat:
        for model in "aba":
            up_at = (await hotseat.get(f"/upstream/{model}/process")).body["up_at"]
            late_s.append(time.monotonic() - up_at)

    assert min(late_s) < 0.3


async def test_d02_a_hung_health_endpoint_is_given_up(tmp_path: Path) -> None:
    """It takes the question and never answers: the start ends in time, and others get the seat."""
    config = house("healthCheckTimeout: 0.8\n", a="--health-hangs", b="")
    async with served(config, tmp_path) as hotseat:
        hung = await hotseat.chat("a")

        assert (hung.status, hung.error["code"]) == (504, "worker_start_timeout")
        assert (await hotseat.chat("b")).text == "b"


async def test_d03_a_swap_keeps_to_the_grace_of_a_stop(tmp_path: Path) -> None:
    """UnloadTimeout ends who ignores SIGTERM, not healthCheckTimeout."""
    config = house("unloadTimeout: 0.3\nhealthCheckTimeout: 15\n", a="--ignore-sigterm", b="")
    async with served(config, tmp_path) as hotseat, asyncio.timeout(6):
        await hotseat.chat("a")

        assert (await hotseat.chat("b")).text == "b"


async def test_d04_a_flood_on_one_model_starves_nobody(tmp_path: Path) -> None:
    """Three clients that never pause keep the other model waiting for its patience only."""
    async with served(house("patience: 0.2\n", a="", b=""), tmp_path) as hotseat:
        await hotseat.chat("a")
        is_over = asyncio.Event()

        async def flood() -> None:
            while not is_over.is_set():
                await hotseat.chat("a", serve_s=0.05)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(flood())
            answer = await hotseat.chat("b")
            is_over.set()

        assert answer.text == "b"


async def test_d05_an_abandoned_load_keeps_its_ttl(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The idle clock begins at ready: who nobody waited for outlasts a shorter ttl after it."""
    load = gate()
    config = f"""{TOGETHER}
models:
  a: {{cmd: "ECHO --load-gate {load.path}", ttl: 30}}
  b: {{cmd: "ECHO", ttl: 1.2}}
"""
    async with served(house(config), tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        leaver = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        leaver.cancel()
        await hotseat.log_line("request .*model=a")
        load.open()
        await until_state(hotseat, "a", "ready")
        await hotseat.chat("b")
        await hotseat.log_line("unloaded model=b")

        assert [*await hotseat.running()] == ["a"]


@pytest.mark.parametrize("why", ["no-such-program --port ${PORT}", "./not-here/x --port ${PORT}"])
async def test_d06_a_model_that_cannot_start_costs_nobody_the_seat(
    tmp_path: Path, why: str
) -> None:
    """What can be seen before is seen before anybody is sent away."""
    config = house(f"models:\n  b: {{cmd: 'ECHO'}}\n  a: {{cmd: '{why}'}}\n")
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("b")
        pid = await pid_of(hotseat, "b")

        assert (await hotseat.chat("a")).status == 502
        assert await pid_of(hotseat, "b") == pid


async def test_d06_a_model_that_failed_does_not_cost_the_seat_twice(tmp_path: Path) -> None:
    """While it cools down, asking for it again moves nobody."""
    async with served(house(a="--exit-at-load 2", b=""), tmp_path) as hotseat:
        await hotseat.chat("b")
        failed = await hotseat.chat("a")
        await hotseat.chat("b")
        pid = await pid_of(hotseat, "b")
        again = await hotseat.chat("a")

        assert (failed.status, again.status) == (502, 503)
        assert await pid_of(hotseat, "b") == pid


WORDS = {
    "CUDA error: out of memory": (503, "capacity_exceeded"),
    "error while loading shared libraries: libcuda.so.1": (502, "worker_start_failed"),
    "unrecognized argument: --flash-atn": (502, "worker_start_failed"),
    "failed to open GGUF file /models/x.gguf": (502, "worker_start_failed"),
}


@pytest.mark.parametrize("words", WORDS)
async def test_d07_a_failed_start_says_why(tmp_path: Path, words: str) -> None:
    """The client reads what the worker said last, and a memory problem is told from others."""
    async with served(house(a=f"--exit-at-load 2 --detail '{words}'"), tmp_path) as hotseat:
        answer = await hotseat.chat("a")

        assert (answer.status, answer.error["code"]) == WORDS[words]
        assert words in answer.error["message"]


async def test_d08_a_slow_stop_holds_up_nobody_else(tmp_path: Path) -> None:
    """While one is being sent away, another one serves."""
    config = house(f"unloadTimeout: 60\n{TOGETHER}", a="--ignore-sigterm", b="")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        stubborn = (await hotseat.get("/upstream/a/process")).body["pid"]
        await hotseat.chat("b")
        unloading = tasks.create_task(hotseat.post("/api/models/unload/a"))
        await until_state(hotseat, "a", "stopping")
        warm = await hotseat.chat("b")
        is_gone = unloading.done()
        os.kill(stubborn, signal.SIGKILL)

        assert warm.text == "b"
        assert not is_gone
        assert (await unloading).status == 200


async def test_d09_a_reload_keeps_who_did_not_change(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The worker goes on, and so does the answer that it is giving."""
    held, path = gate(), tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    async with started("--config", str(path)) as (hotseat, program), asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        pid = await pid_of(hotseat, "a")
        path.write_text(house(a="", new=""))
        program.process.send_signal(signal.SIGHUP)
        await until_listed(hotseat, "new")
        held.open()

        assert (await answer).text == "a"
        assert await pid_of(hotseat, "a") == pid


async def test_d10_a_crash_in_a_stream_is_seen_as_one(tmp_path: Path) -> None:
    """An error event and a cut connection, where a clean end would pass for the whole answer."""
    async with served(house(a=""), tmp_path) as hotseat:
        got = await broken_stream(hotseat, "a", tokens=9, die_after=2)

    assert len(events(got)) == 3
    assert events(got)[-1]["error"]["code"] == "worker_died"
    assert b"[DONE]" not in got
