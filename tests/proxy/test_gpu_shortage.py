"""A GPU that is full, one that was learned of, several, and none; and what a swap took."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.nvml.device import ScriptedGpu, ScriptedNvml
from tests.proxy import bytes_counted
from tests.proxy.bytes_counted import (
    GIB,
    Entry,
    answered,
    budget_seen,
    charge_of,
    config_of,
    held_back,
    on_card,
    running_when,
)
from tests.proxy.served import Gate, Hotseat, served

NO_DRIVER = 9
ME = os.getpid()  # no worker: somebody else who uses the GPU
AUTO = {"memory": "auto"}
FIXED = {"memory": "24GiB"}

gpu = bytes_counted.gpu


# Out of memory.


async def test_a_load_that_finds_less_than_was_thought_is_tried_alone(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """A declaration that is too small: the neighbour goes, and the second try succeeds."""
    models = {"a": on_card(gpu, 10 * GIB), "b": on_card(gpu, 16 * GIB, memory="5GiB")}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))

        assert list(await hotseat.running()) == ["b"]
        assert await charge_of(hotseat, "b", "gpu0") == 16 * GIB
        assert "out of memory" in await hotseat.log_line("start_failed model=b")


async def test_memory_that_is_taken_while_a_model_waits(
    tmp_path: Path, gpu: ScriptedGpu, gate: Callable[[], Gate]
) -> None:
    """Somebody else is quicker: the load fails beside the neighbour, and succeeds without him."""
    held = gate()
    models = {
        "busy": on_card(gpu, 12 * GIB),
        "neighbour": on_card(gpu, 4 * GIB),
        "b": on_card(gpu, 14 * GIB, patience=0),
    }
    async with (
        served(config_of(models, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        await answered(hotseat.chat("neighbour"))
        slow = tasks.create_task(hotseat.chat("busy", gate=str(held.path)))
        await held.reached()
        asked = tasks.create_task(hotseat.chat("b"))
        await held_back(hotseat, "b")
        gpu.allocate(ME, 8 * GIB)
        held.open()

        assert (await slow).status == 200
        assert (await asked).status == 200
        assert list(await hotseat.running()) == ["b"]
        assert "out of memory" in await hotseat.log_line("start_failed model=b")


async def test_a_load_that_fails_alone_too_is_a_503_with_numbers(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """The neighbour went for nothing, so this is said, and the model cools down."""
    models = {"a": on_card(gpu, 4 * GIB), "b": on_card(gpu, 14 * GIB)}
    gpu.allocate(ME, 12 * GIB)
    async with served(config_of(models, gpu=FIXED), tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        failed = await hotseat.chat("b")
        again = await hotseat.chat("b")

        assert (failed.status, failed.error["code"]) == (503, "capacity_exceeded")
        assert f"{14 * GIB} bytes asked" in failed.error["message"]
        assert "24.0 GiB of gpu0" in failed.error["message"]
        assert int(failed.headers["Retry-After"]) >= 1
        assert (await hotseat.get("/logs")).body.count("start_failed model=b") == 2
        assert (again.status, again.error["code"]) == (503, "cooling_down")
        assert int(again.headers["Retry-After"]) >= 1
        await running_when(hotseat, lambda running: not running)
        await answered(hotseat.chat("a"))


async def test_a_model_that_runs_out_while_it_serves_is_given_more(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """The request is answered 503, and a quarter more is charged from then on."""
    async with served(config_of({"a": on_card(gpu, 8 * GIB)}, gpu=AUTO), tmp_path) as hotseat:
        failed = await hotseat.chat("a", out_of_memory=True)

        assert (failed.status, failed.error["code"]) == (503, "capacity_exceeded")
        assert await charge_of(hotseat, "a", "gpu0") == 10 * GIB
        assert "when=request" in await hotseat.log_line("out_of_memory model=a")
        await answered(hotseat.chat("a"))


async def test_running_out_again_and_again_makes_no_model_unservable(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """Requests that were too large claim the card at most; with a little less it is served too."""
    async with served(config_of({"a": on_card(gpu, 8 * GIB)}, gpu=AUTO), tmp_path) as hotseat:
        for _ in range(6):
            assert (await hotseat.chat("a", out_of_memory=True)).status == 503
        await hotseat.post("/api/models/unload")
        gpu.allocate(ME, 2 * GIB)
        await budget_seen(hotseat, 22)

        await answered(hotseat.chat("a"))


async def test_a_request_that_finds_the_card_full_is_told_so(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """An engine's own refusal goes through, and the worker lives on."""
    async with served(config_of({"a": on_card(gpu, 8 * GIB)}, gpu=AUTO), tmp_path) as hotseat:
        failed = await hotseat.chat("a", allocate_bytes=17 * GIB)
        pid = (await hotseat.running())["a"]["pid"]

        assert (failed.status, failed.error["code"]) == (503, "capacity_exceeded")
        await answered(hotseat.chat("a"))
        assert (await hotseat.running())["a"]["pid"] == pid


async def test_a_death_by_lack_of_memory_is_no_crash(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """An engine that aborts over it: 503 with the numbers, and more for its next load."""
    async with served(config_of({"a": on_card(gpu, 8 * GIB)}, gpu=AUTO), tmp_path) as hotseat:
        failed = await hotseat.chat("a", die_saying="CUDA error: out of memory")

        assert (failed.status, failed.error["code"]) == (503, "capacity_exceeded")
        assert "8.0 GiB of gpu0" in failed.error["message"]
        assert "CUDA error: out of memory" in failed.error["message"]
        await answered(hotseat.chat("a"))
        assert await charge_of(hotseat, "a", "gpu0") == 10 * GIB


# What is kept from run to run.


async def test_a_command_is_known_by_its_pids_after_a_restart(
    tmp_path: Path, gpu: ScriptedGpu
) -> None:
    """What the driver told of a `cmd` in one run gives it a neighbour at once in the next."""
    options = json.dumps({"allocate": {"path": str(gpu.held), "bytes": 9 * GIB}})
    cmd = f"{sys.executable} -m workers.echo --port ${{PORT}} --options '{options}'"
    models: dict[str, Entry] = {"cmd": {"cmd": cmd}, "a": on_card(gpu, 9 * GIB)}
    config = config_of(models, gpu=AUTO)

    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("cmd"))
        alone = list(await hotseat.running())
        charge = await charge_of(hotseat, "cmd", "gpu0")
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("cmd"))
        beside = list(await hotseat.running())

    assert (alone, beside) == (["cmd"], ["a", "cmd"])
    assert charge == 9 * GIB


async def test_a_peak_in_a_request_counts_after_a_restart(
    tmp_path: Path, gpu: ScriptedGpu, gate: Callable[[], Gate]
) -> None:
    """What a model held while it served is charged from its next load on."""
    held = gate()
    config = config_of({"a": on_card(gpu, 8 * GIB)}, gpu=AUTO)

    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await answered(hotseat.chat("a"))
        slow = tasks.create_task(hotseat.chat("a", allocate_bytes=4 * GIB, gate=str(held.path)))
        await held.reached()
        gpu.allocate(ME, 6 * GIB)  # once this is noticed, the request was looked at too
        await budget_seen(hotseat, 18)
        held.open()
        assert (await slow).status == 200
        before = await charge_of(hotseat, "a", "gpu0")
    gpu.free(ME)
    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        after = await charge_of(hotseat, "a", "gpu0")

    assert before == after == 12 * GIB


# Several GPUs, and none.


async def environment_of(hotseat: Hotseat, model: str) -> dict[str, str]:
    pid = (await hotseat.running())[model]["pid"]
    return psutil.Process(pid).environ()


async def test_two_gpus_serve_at_the_same_time(
    tmp_path: Path, scripted_nvml: ScriptedNvml, gate: Callable[[], Gate]
) -> None:
    """Each model sees its own GPU and no other, by index or UUID, and is charged there."""
    one, other = scripted_nvml.add_gpu(), scripted_nvml.add_gpu()
    held = gate()
    models = {
        "a": on_card(one, 20 * GIB, gpu="GPU-0a8f-scripted"),
        "b": on_card(other, 20 * GIB, gpu=1),
    }
    async with (
        served(config_of(models, gpu=AUTO), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await answered(hotseat.chat("b"))

        assert not slow.done()
        assert await charge_of(hotseat, "a", "gpu0") == 20 * GIB
        assert await charge_of(hotseat, "b", "gpu1") == 20 * GIB
        seen_by_a = await environment_of(hotseat, "a")
        seen_by_b = await environment_of(hotseat, "b")
        assert seen_by_a["CUDA_VISIBLE_DEVICES"] == "0"  # the same by its index
        assert seen_by_b["CUDA_VISIBLE_DEVICES"] == "1"
        assert seen_by_b["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        held.open()
        assert (await slow).status == 200


async def test_a_cpu_model_sees_no_gpu_and_takes_none(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """It is served beside a model that fills the card, and every library is told that it is."""
    models = {"a": on_card(gpu, 24 * GIB), "small": {"echo": {}, "device": "cpu"}}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("small"))

        assert sorted(await hotseat.running()) == ["a", "small"]
        seen = await environment_of(hotseat, "small")
        assert (seen["CUDA_VISIBLE_DEVICES"], seen["HIP_VISIBLE_DEVICES"]) == ("-1", "-1")
        assert (await environment_of(hotseat, "a"))["CUDA_VISIBLE_DEVICES"] == "0"


async def test_without_a_driver_auto_says_what_to_do(
    tmp_path: Path, scripted_nvml: ScriptedNvml
) -> None:
    """`hotseat serve` ends with one line that names the key and both ways out."""
    path = tmp_path / "swap.yaml"
    path.write_text(config_of({"a": {"echo": {}}}, gpu=AUTO))
    scripted_nvml.fail(NO_DRIVER)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve"),
        *("--config", str(path), "--listen", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **scripted_nvml.env},
    )
    _, told = await process.communicate()

    assert process.returncode == 1
    assert b"gpu.memory" in told
    assert b'pip install "hotseat[gpu]"' in told
    assert b"22GiB" in told
    assert b"Traceback" not in told


async def test_without_a_driver_a_size_will_do(
    tmp_path: Path, gpu: ScriptedGpu, scripted_nvml: ScriptedNvml
) -> None:
    """Declared and estimated sizes share a budget that nobody can look at."""
    models = {
        "a": on_card(gpu, 10 * GIB),
        "b": {"echo": {}, "memory": "10GiB"},
        "c": {"echo": {}, "memory": "25GiB"},
    }
    scripted_nvml.fail(NO_DRIVER)
    async with served(config_of(models, gpu=FIXED), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))

        assert sorted(await hotseat.running()) == ["a", "b"]
        assert (await hotseat.chat("c")).error["code"] == "no_room"
        assert (await hotseat.get("/ready")).status == 200


async def test_a_model_on_two_gpus_is_charged_on_both(
    tmp_path: Path, scripted_nvml: ScriptedNvml
) -> None:
    """Its bytes are split evenly, it sees both, and it needs room on each of them."""
    scripted_nvml.add_gpu()
    other = scripted_nvml.add_gpu()
    models = {
        "wide": {"echo": {}, "gpu": [0, 1], "memory": "20GiB"},
        "b": on_card(other, 16 * GIB, gpu=1),
    }
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("wide"))
        assert await charge_of(hotseat, "wide", "gpu0") == 10 * GIB
        assert await charge_of(hotseat, "wide", "gpu1") == 10 * GIB
        assert (await environment_of(hotseat, "wide"))["CUDA_VISIBLE_DEVICES"] == "0,1"

        await answered(hotseat.chat("b"))

        await running_when(hotseat, lambda all_: list(all_) == ["b"])


# What a swap took.


async def test_a_swap_is_told_part_by_part(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """GET /api/swaps has who came, why, who left for it, and the seconds of each part."""
    models = {
        "a": on_card(gpu, 16 * GIB, echo={"stop_s": 0.2}),
        "b": on_card(gpu, 16 * GIB, echo={"load_s": 0.2, "import_s": 0.2}),
    }
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))
        first, second = (await hotseat.get("/api/swaps")).body["swaps"]

        assert (first["model"], first["cause"], first["victims"]) == ("a", "request", [])
        assert not first.keys() & {"drain_s", "stop_s", "memory_free_s"}
        assert (second["model"], second["cause"], second["error"]) == ("b", "request", None)
        (victim,) = second["victims"]
        assert victim["model"] == "a"
        parts = ("drain", "stop", "memory_free", "spawn", "import", "wait", "load", "first_byte")
        took_s = {part: second[f"{part}_s"] for part in parts}
        assert took_s["stop"] >= 0.2
        assert took_s["wait"] >= took_s["stop"]
        assert took_s["import"] >= 0.2
        assert took_s["load"] >= 0.2
        assert all(seconds >= 0 for seconds in took_s.values())
        before_ready = sum(took_s[part] for part in ("spawn", "import", "wait", "load"))
        assert second["total_s"] == pytest.approx(before_ready, abs=0.05)


async def test_a_failed_swap_is_told_with_its_error(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Both tries of a load that runs out of memory are there, and who left for the second."""
    models = {"a": on_card(gpu, 10 * GIB), "b": on_card(gpu, 16 * GIB, memory="5GiB")}
    async with served(config_of(models, gpu=AUTO), tmp_path) as hotseat:
        await answered(hotseat.chat("a"), hotseat.chat("b"))
        _, failed, well = (await hotseat.get("/api/swaps")).body["swaps"]

        assert "out of memory" in failed["error"]
        assert (well["model"], well["error"]) == ("b", None)
        assert [victim["model"] for victim in well["victims"]] == ["a"]
