"""The GPU arbitrated by bytes, under a scripted driver: others use it, and it fails."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from proxy.pool import life
from tests.nvml.device import ScriptedGpu
from tests.proxy import bytes_counted
from tests.proxy.bytes_counted import (
    GIB,
    answered,
    budget_seen,
    charge_of,
    config_of,
    held_back,
    on_card,
    running_when,
)
from tests.proxy.served import Gate, Hotseat, all_gone, served

GPU_IS_LOST = 15
ME = os.getpid()  # no worker: somebody else who uses the GPU
AUTO = {"memory": "auto"}

gpu = bytes_counted.gpu


async def loads_of(hotseat: Hotseat, model: str) -> int:
    """Count how often the model came to its seat."""
    told: str = (await hotseat.get("/logs")).body
    return len(re.findall(rf" swap came={model} ", told))


# Who stays.


async def test_models_share_a_gpu_by_bytes(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """As many stay as the card holds, by what they were seen to hold of it."""
    three = {name: on_card(gpu, 10 * GIB) for name in "abc"}
    async with served(config_of(three, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))
        running = await hotseat.running()
        assert [entry["memory"] for entry in running.values()] == [{"gpu0": 10 * GIB}] * 2

        await answered(hotseat.chat("c"))

        assert "c" in await running_when(hotseat, lambda all_: len(all_) == 2)


async def test_a_reserve_is_left_free(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """What is reserved is nobody's."""
    two = {name: on_card(gpu, 10 * GIB) for name in "ab"}
    section = {"memory": "100%", "reserve": "6GiB"}
    async with served(config_of(two, gpu=section), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))

        await running_when(hotseat, lambda all_: list(all_) == ["b"])


# Others use the GPU too.


async def test_somebody_else_takes_memory_and_gives_it_back(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """While he has it, what does not fit is refused with numbers; afterwards it is loaded."""
    models = {"a": on_card(gpu, 4 * GIB), "b": on_card(gpu, 16 * GIB)}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        gpu.allocate(ME, 12 * GIB)
        await budget_seen(hotseat, 12)
        refused = await hotseat.chat("b")

        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "b needs 16.0 GiB of gpu0" in refused.error["message"]
        assert "at best there is 12.0 GiB of gpu0" in refused.error["message"]
        assert list(await hotseat.running()) == ["a"]

        gpu.free(ME)
        await budget_seen(hotseat, 24)
        await answered(hotseat.chat("b"), hotseat.chat("a"))


async def test_who_waits_is_refused_when_somebody_else_takes_the_room(
    tmp_path: Path, gpu: ScriptedGpu, gate: Callable[[], Gate]
) -> None:
    """A waiting request that cannot be served any more is told so, not kept for ever."""
    held = gate()
    models = {
        "a": on_card(gpu, 10 * GIB, patience=60),
        "b": on_card(gpu, 20 * GIB, patience=60),
    }
    async with (
        served(config_of(models, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        waiting = tasks.create_task(hotseat.post("/api/models/load/b"))
        await running_when(hotseat, lambda all_: "b" in all_)
        await held_back(hotseat, "b")
        gpu.allocate(ME, 12 * GIB)

        assert (await waiting).status == 503
        assert not slow.done()
        held.open()
        assert (await slow).status == 200


async def test_loaded_ones_stay_unless_they_yield(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Somebody who takes what is left drives nobody out of the memory that was set aside."""
    models = {name: on_card(gpu, 8 * GIB, memory="10GiB") for name in "ab"}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))
        gpu.allocate(ME, 8 * GIB)
        await budget_seen(hotseat, 20)

        await answered(hotseat.chat("a"), hotseat.chat("b"))
        assert await loads_of(hotseat, "a") == await loads_of(hotseat, "b") == 1


async def test_idle_ones_yield_and_busy_ones_do_not(
    tmp_path: Path, gpu: ScriptedGpu, gate: Callable[[], Gate]
) -> None:
    """With `yield`, who idles goes when somebody else needs the memory; who serves goes on."""
    held = gate()
    models = {name: on_card(gpu, 8 * GIB, memory="10GiB") for name in ("busy", "idle")}
    section = {**AUTO, "yield": True}
    async with (
        served(config_of(models, gpu=section), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        await answered(hotseat.chat("idle"))
        slow = tasks.create_task(hotseat.chat("busy", gate=str(held.path)))
        await held.reached()
        gpu.allocate(ME, 8 * GIB)

        await hotseat.log_line("unloaded model=idle cause=over_budget")
        assert list(await hotseat.running()) == ["busy"]
        assert not slow.done()
        held.open()
        assert (await slow).status == 200


async def test_who_was_there_first_is_seen_at_once(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """What somebody else has before the proxy starts is not promised to the first request."""
    gpu.allocate(ME, 12 * GIB)
    models = {"a": on_card(gpu, 16 * GIB), "b": on_card(gpu, 12 * GIB)}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        refused = await hotseat.chat("a")

        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "at best there is 12.0 GiB of gpu0" in refused.error["message"]
        await answered(hotseat.chat("b"))


@pytest.mark.parametrize("silence", ["untold", "unlisted"])
async def test_a_driver_that_does_not_tell_who_holds_what(
    tmp_path: Path, gpu: ScriptedGpu, silence: str
) -> None:
    """Then ours is what is charged, the rest is of others, and what is free tells of the gone."""
    gpu.set(silence, 1)
    models = {name: on_card(gpu, 9 * GIB) for name in "abc"}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(*(hotseat.chat(name) for name in "ababc"))
        running = await running_when(hotseat, lambda all_: len(all_) == 2)
        assert running["c"]["memory"] == {"gpu0": 9 * GIB}

        gpu.allocate(ME, 4 * GIB)
        await budget_seen(hotseat, 20)
        await answered(*(hotseat.chat(name) for name in running))
        assert (await hotseat.running()).keys() == running.keys()


# Memory that does not come back.


@pytest.fixture
def _stuck_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "STUCK_AFTER_S", 0.3)


async def leave_stuck(hotseat: Hotseat, gpu: ScriptedGpu, model: str) -> psutil.Process:
    """Let the driver keep what the model's worker holds; gives the worker's process."""
    pid = (await hotseat.running())[model]["pid"]
    (gpu.held / str(pid)).rename(gpu.held / "stuck-1")
    return psutil.Process(pid)


@pytest.mark.usefixtures("_stuck_soon")
async def test_memory_that_stays_away_is_an_alarm(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Nothing is loaded into what a dead worker held, and /ready says so, until it is free."""
    models = {"a": on_card(gpu, 16 * GIB), "b": on_card(gpu, 16 * GIB)}
    config = config_of(models, gpu=AUTO, unloadTimeout=0.1)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        await leave_stuck(hotseat, gpu, "a")
        refused = await hotseat.chat("b")

        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "b needs 16.0 GiB of gpu0" in refused.error["message"]
        assert "at best there is 8.0 GiB of gpu0" in refused.error["message"]
        assert "model=a" in await hotseat.log_line(" stuck ")
        ready = await hotseat.get("/ready")
        assert (ready.status, ready.body["ready"]) == (503, False)
        assert "a was stopped" in ready.body["alarms"][0]
        assert await loads_of(hotseat, "b") == 0

        gpu.stick(0)
        await running_when(hotseat, lambda all_: "a" not in all_)
        assert (await hotseat.get("/ready")).status == 200
        await answered(hotseat.chat("b"))


@pytest.mark.usefixtures("_stuck_soon")
async def test_what_fits_beside_the_stuck_is_loaded(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Only the lost memory is lost: a model that needs no more than the rest is served."""
    models = {
        "a": on_card(gpu, 10 * GIB),
        "b": on_card(gpu, 20 * GIB),
        "small": on_card(gpu, 12 * GIB),
    }
    config = config_of(models, gpu=AUTO, unloadTimeout=0.1)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        await leave_stuck(hotseat, gpu, "a")
        assert (await hotseat.chat("b")).status == 503

        await answered(hotseat.chat("small"))


async def test_a_slow_driver_is_waited_for(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Nobody loads while the memory of a dead worker is not seen free, and then at once."""
    models = {"a": on_card(gpu, 16 * GIB), "b": on_card(gpu, 16 * GIB)}
    async with (
        served(config_of(models, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        await answered(hotseat.chat("a"))
        process = await leave_stuck(hotseat, gpu, "a")
        asked = tasks.create_task(hotseat.chat("b"))
        assert await all_gone([process], 5)

        assert (await hotseat.running())["b"]["state"] == "starting"
        assert await charge_of(hotseat, "b", "gpu0") == 0
        gpu.stick(0)
        assert (await asked).status == 200
        assert (await hotseat.get("/api/swaps")).body["swaps"][-1]["memory_free_s"] > 0


async def test_a_single_seat_waits_for_the_memory_too(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Without a budget, the next one loads when the driver shows the last one's memory free."""
    models = {"a": on_card(gpu, 16 * GIB), "b": on_card(gpu, 16 * GIB)}
    async with served(config_of(models), tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await answered(hotseat.chat("a"))
        process = await leave_stuck(hotseat, gpu, "a")
        asked = tasks.create_task(hotseat.chat("b"))
        assert await all_gone([process], 5)

        assert not asked.done()
        gpu.stick(0)
        assert (await asked).status == 200


@pytest.mark.usefixtures("_stuck_soon")
async def test_a_proxy_ends_though_memory_is_stuck(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """What a driver keeps is nothing that a shutdown could wait for."""
    config = config_of({"a": on_card(gpu, 16 * GIB)}, gpu=AUTO, unloadTimeout=0.1)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        process = await leave_stuck(hotseat, gpu, "a")
        await hotseat.post("/api/models/unload")
        assert (await hotseat.get("/ready")).status == 503

    assert not process.is_running()


async def test_a_crash_whose_memory_comes_back_slowly(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Nobody is sent to a dead worker: who asks meanwhile waits, and gets the next one."""
    async with (
        served(config_of({"a": on_card(gpu, 16 * GIB)}, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        await answered(hotseat.chat("a"))
        process = await leave_stuck(hotseat, gpu, "a")
        process.kill()
        assert await all_gone([process], 5)
        await running_when(hotseat, lambda all_: all_["a"]["state"] == "stopping")
        asked = tasks.create_task(hotseat.chat("a"))
        while not (await hotseat.get("/api/queue")).body["waiting"]:
            pass

        gpu.stick(0)
        assert (await asked).status == 200


@pytest.mark.usefixtures("_stuck_soon")
async def test_a_crash_whose_memory_stays_away(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """A crash is one 502; then there is no room, and no other error, until the memory is back."""
    config = config_of({"a": on_card(gpu, 16 * GIB)}, gpu=AUTO, unloadTimeout=0.1)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        await leave_stuck(hotseat, gpu, "a")
        died = await hotseat.chat("a", die_after=0)
        refused = await hotseat.chat("a")

        assert (died.status, died.error["code"]) == (502, "worker_died")
        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert (await hotseat.get("/ready")).status == 503

        gpu.stick(0)
        await running_when(hotseat, lambda all_: not all_)
        await answered(hotseat.chat("a"))


# A driver that fails.


async def test_a_driver_that_is_lost_and_comes_back(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """An alarm on /ready while the GPU cannot be looked at; requests go on; then all is well."""
    config = config_of({"a": on_card(gpu, 10 * GIB)}, gpu=AUTO)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        gpu.fail(GPU_IS_LOST)
        assert "gpu0" in await hotseat.log_line("device_lost")

        ready = await hotseat.get("/ready")
        assert ready.status == 503
        assert "gpu0" in ready.body["alarms"][0]
        await answered(hotseat.chat("a"))

        gpu.fail(0)
        while (await hotseat.get("/ready")).status != 200:
            pass
        await answered(hotseat.chat("a"))


async def test_nobody_loads_while_the_gpu_cannot_be_looked_at(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """A swap on a GPU that is lost waits until its memory can be seen free again."""
    models = {name: on_card(gpu, 16 * GIB) for name in "ab"}
    async with (
        served(config_of(models, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        await answered(hotseat.chat("a"))
        process = psutil.Process((await hotseat.running())["a"]["pid"])
        gpu.fail(GPU_IS_LOST)
        asked = tasks.create_task(hotseat.chat("b"))
        assert await all_gone([process], 5)

        assert (await hotseat.running())["b"]["state"] == "starting"
        assert not asked.done()
        gpu.fail(0)
        assert (await asked).status == 200
