"""What the server says of itself, and of the machine that it runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.nvml.device import GIB, ScriptedNvml
from tests.proxy.served import Hotseat, served

MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of this module."""
    config = "{apiKeys: [open-sesame], models: {a: {echo: {}}}}"
    async with served(config, tmp_path_factory.mktemp("system")) as one:
        one.session.headers["Authorization"] = "Bearer open-sesame"
        yield one


@MODULE
async def test_the_front_door_is_no_404(hotseat: Hotseat) -> None:
    """Browsers and people begin there; no key is needed."""
    front = await hotseat.get("/")
    async with hotseat.session.get("/favicon.ico") as icon:
        assert icon.status == 204
    for path in ("/ui", "/ui/", "/ui/models", "/upstream"):
        async with hotseat.session.get(path, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "/")

    assert front.status == 200
    assert front.body["name"] == "hotseat"
    assert (await hotseat.get("/wol-health")).body == "OK"


@MODULE
async def test_version(hotseat: Hotseat) -> None:
    """Three texts, as readers expect."""
    told = (await hotseat.get("/api/version")).body

    assert told.keys() == {"version", "commit", "build_date"}
    assert all(isinstance(value, str) and value for value in told.values())


@MODULE
async def test_hardware(hotseat: Hotseat) -> None:
    """What this machine is."""
    told = (await hotseat.get("/api/hardware")).body

    assert told["schema_version"] == 1
    assert told["cpu"]["logical_thread_count"] >= 1
    assert told["memory"]["capacity_bytes"] > 0
    assert told["operating_system"]["family"] == "linux"
    assert isinstance(told["accelerators"], list)


async def until_looked(hotseat: Hotseat) -> dict[str, Any]:
    """Ask until the machine has been looked at once."""
    while True:
        told: dict[str, Any] = (await hotseat.get("/api/performance")).body
        if told["sys_stats"]:
            return told


@MODULE
async def test_performance(hotseat: Hotseat) -> None:
    """Looks of the last hour, or those after a moment."""
    told = await until_looked(hotseat)
    look = told["sys_stats"][0]
    later = datetime.fromisoformat(look["timestamp"]) + timedelta(days=1)
    after = later.isoformat().replace("+", "%2B")

    assert told["enabled"] is True
    assert len(look["cpu_util_per_core"]) >= 1
    assert look["mem_total_mb"] > look["mem_used_mb"] > 0
    assert {"load_avg_1", "load_avg_5", "load_avg_15", "swap_total_mb", "net_io"} <= look.keys()
    assert (await hotseat.get(f"/api/performance?after={after}")).body["sys_stats"] == []
    assert (await hotseat.get("/api/performance?after=noon")).status == 400


@MODULE
async def test_metrics_have_the_names_that_dashboards_know(hotseat: Hotseat) -> None:
    """Beside ours."""
    await until_looked(hotseat)
    text = (await hotseat.get("/metrics")).body
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert "hotseat_waiting_requests" in families
    for name in ("memory_total_bytes", "memory_used_bytes", "memory_free_bytes"):
        assert families[f"llamaswap_{name}"].samples[0].value > 0
    assert {"core": "0"} in [s.labels for s in families["llamaswap_cpu_util_percent"].samples]
    loads = families["llamaswap_load_average"].samples
    assert [sample.labels for sample in loads] == [
        {"interval": one} for one in ("1m", "5m", "15m")
    ]
    ways = {s.labels["direction"] for s in families["llamaswap_network_bytes_total"].samples}
    assert ways == {"recv", "sent"}


async def test_performance_may_be_switched_off(tmp_path: Path) -> None:
    """Then there is nothing to tell but our own metrics."""
    config = "{performance: {disabled: true}, models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat:
        told = await hotseat.get("/api/performance")
        metrics = await hotseat.get("/metrics")

    assert (told.status, told.body) == (503, {"enabled": False})
    assert metrics.status == 200
    assert "llamaswap_" not in metrics.body


async def test_gpus_are_told_as_far_as_they_tell(
    tmp_path: Path, scripted_nvml: ScriptedNvml
) -> None:
    """Everywhere by the same figures; what a GPU does not say is 0."""
    gpu = scripted_nvml.add_gpu(24 * GIB)
    for name, value in (("util", 40), ("temperature", 61), ("power_mw", 150_500)):
        gpu.set(name, value)
    gpu.stick(6 * GIB)
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        [look] = (await until_looked(hotseat))["gpu_stats"]
        [card] = (await hotseat.get("/api/hardware")).body["accelerators"]
        text = (await hotseat.get("/metrics")).body
    families = {family.name: family for family in text_string_to_metric_families(text)}
    [power] = families["llamaswap_gpu_power_draw_watts"].samples
    [used] = families["llamaswap_gpu_memory_used_bytes"].samples

    assert (look["id"], look["name"], look["uuid"]) == (0, "Scripted 0", "GPU-0a8f-scripted")
    assert (look["gpu_util_pct"], look["temp_c"], look["power_draw_w"]) == (40, 61, 150.5)
    assert (look["mem_used_mb"], look["mem_total_mb"], look["mem_util_pct"]) == (6144, 24576, 25)
    assert (look["fan_speed_pct"], look["vram_temp_c"]) == (0, 0)
    assert card["memory"] == {"kind": "dedicated", "capacity_bytes": 24 * GIB}
    assert (power.value, used.value) == (150.5, 6 * GIB)
    assert power.labels == {"id": "0", "name": "Scripted 0", "uuid": "GPU-0a8f-scripted"}


async def test_the_config_is_read_again_when_asked(tmp_path: Path) -> None:
    """Here nobody has said where it comes from: it stays, and the outcome is told."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        answer = await hotseat.post("/api/reload")
        health = (await hotseat.get("/healthz")).body

    assert (answer.status, answer.error["code"]) == (400, "config_refused")
    assert answer.body["reloaded"] is False
    assert health["reload"]["problems"] == answer.body["problems"]
