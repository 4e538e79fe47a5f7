"""What tells of the workers, and what sends them away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.llama_swap.house import house
from tests.proxy.served import Hotseat, served

CONFIG = """
groups: {both: {swap: false, members: [a, org/b, c]}}
models:
  a: {cmd: "ECHO --reply a", name: Anna, description: talks, ttl: 600}
  org/b: {cmd: "ECHO --reply b", aliases: [bee]}
  c:
    cmd: "ECHO --reply c --api-key sk-secret-1 --hf-token=sk-secret-2"
    env: [API_TOKEN=sk-secret-3]
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve three models that may be loaded together."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("management")) as one:
        yield one


async def load(hotseat: Hotseat, *models: str) -> None:
    for model in models:
        assert (await hotseat.chat(model)).status == 200


async def test_running_has_llama_swaps_shape(hotseat: Hotseat) -> None:
    """Its keys, sorted by model, and ours beside them."""
    await load(hotseat, "org/b", "c", "a")
    answer = await hotseat.get("/running")
    entries = answer.body["running"]
    anna = entries[0]

    assert [entry["model"] for entry in entries] == ["a", "c", "org/b"]
    assert (anna["state"], anna["ttl"]) == ("ready", 600)
    assert (anna["name"], anna["description"]) == ("Anna", "talks")
    assert anna["proxy"].startswith("http://")
    assert "--reply a" in anna["cmd"]
    assert {"pid", "uptime_s", "idle_s", "memory"} <= anna.keys()


async def test_running_tells_the_port(hotseat: Hotseat) -> None:
    """Command and address are the real ones, with the port in place."""
    await load(hotseat, "a")
    entry = (await hotseat.running())["a"]

    assert "${PORT}" not in entry["cmd"]
    assert entry["proxy"].rpartition(":")[2].strip("/") in entry["cmd"]


async def test_running_masks_secrets(hotseat: Hotseat) -> None:
    """A key in a command is nobody's to read, whichever way it is written."""
    await load(hotseat, "c")
    answer = await hotseat.get("/running")

    assert "sk-secret" not in str(answer.body)
    assert "--reply c" in str(answer.body)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/unload", "OK"),
        ("POST", "/unload", "OK"),
        ("POST", "/api/models/unload", {"msg": "ok"}),
    ],
)
async def test_all_can_be_sent_away(
    hotseat: Hotseat, method: str, path: str, body: object
) -> None:
    """The answer comes when they are gone."""
    await load(hotseat, "a")
    answer = await (hotseat.get(path) if method == "GET" else hotseat.post(path))

    assert (answer.status, answer.body) == (200, body)
    assert await hotseat.running() == {}


@pytest.mark.parametrize("name", ["org/b", "org%2Fb", "bee"])
async def test_one_can_be_sent_away(hotseat: Hotseat, name: str) -> None:
    """By its id, escaped or not, or an alias; the others stay."""
    await load(hotseat, "a", "org/b")
    answer = await hotseat.post(f"/api/models/unload/{name}")
    running = await hotseat.running()

    assert (answer.status, answer.body) == (200, "OK")
    assert "a" in running
    assert "org/b" not in running


async def test_sending_away_who_is_not_there_is_no_error(hotseat: Hotseat) -> None:
    """Twice is as good as once."""
    answers = [await hotseat.post("/api/models/unload/a") for _ in range(2)]

    assert [answer.body for answer in answers] == ["OK", "OK"]


async def test_sending_away_who_is_unknown_is_an_error(hotseat: Hotseat) -> None:
    """A 404 in JSON."""
    answer = await hotseat.post("/api/models/unload/nobody")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_a_model_can_be_loaded_by_a_look_at_it(hotseat: Hotseat) -> None:
    """GET /upstream/{model}/ is the idiom; there is a call of our own for it too."""
    await hotseat.get("/unload")
    await hotseat.get("/upstream/a/")
    await hotseat.post("/api/models/load/bee")

    assert [*await hotseat.running()] == ["a", "org/b"]


async def test_the_version_is_told(hotseat: Hotseat) -> None:
    """With llama-swap's keys, as its clients read all three."""
    answer = await hotseat.get("/api/version")

    assert {"version", "commit", "build_date"} <= answer.body.keys()
    assert answer.body["version"]


async def test_metrics_have_llama_swaps_names(hotseat: Hotseat) -> None:
    """Dashboards made for it go on, and ours are beside them."""
    await load(hotseat, "a")
    answer = await hotseat.get("/metrics")

    assert "text/plain" in answer.headers["Content-Type"]
    for name in ("cpu_util_percent", "memory_total_bytes", "load_average"):
        assert f"\nllamaswap_{name}" in answer.body
    assert "hotseat_requests_total" in answer.body


async def test_performance_is_told(hotseat: Hotseat) -> None:
    """The system's figures, and nothing amiss where there is no GPU."""
    answer = await hotseat.get("/api/performance")

    assert answer.body["enabled"] is True
    assert {"sys_stats", "gpu_stats"} <= answer.body.keys()
    assert (await hotseat.get("/api/performance?after=yesterday")).status == 400


async def test_hardware_is_told(hotseat: Hotseat) -> None:
    """In llama-swap's first schema."""
    answer = await hotseat.get("/api/hardware")

    assert answer.body["schema_version"] == 1
    assert answer.body["memory"]["capacity_bytes"] > 0
    assert answer.body["cpu"]["logical_thread_count"] >= 1


async def test_a_preloaded_model_is_there_without_a_call(tmp_path: Path) -> None:
    """Hooks.on_startup.preload takes ids and aliases, and they come in their order."""
    config = house(f"hooks: {{on_startup: {{preload: [bee, a]}}}}\n{CONFIG}")
    async with served(config, tmp_path) as hotseat:
        await asyncio.gather(hotseat.log_line("swap came=org/b"), hotseat.log_line("swap came=a"))

        assert [*await hotseat.running()] == ["a", "org/b"]
        history = (await hotseat.get("/logs")).body
        assert history.index("swap came=org/b") < history.index("swap came=a")
