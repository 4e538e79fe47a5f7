"""Another config while the server runs: who stays, who goes, and what is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import app
from proxy.config import load_config
from proxy.reload import Outcome, Reloader, Rereading
from proxy.reload import reloader as reload
from proxy.scheduler import Phase
from tests.llama_swap.house import started
from tests.nvml.device import ScriptedGpu
from tests.proxy import bytes_counted
from tests.proxy.bytes_counted import GIB, answered, budget_seen, on_card
from tests.proxy.served import Gate, Hotseat, served, spawned, workers_of

ECHO = f"{sys.executable} -P -m workers.echo --port ${{PORT}}"

gpu = bytes_counted.gpu


def config_of(models: dict[str, dict[str, Any]], **above: object) -> str:
    return json.dumps({**above, "models": models})


def echoes(*names: str, **more: object) -> dict[str, dict[str, Any]]:
    """Name models that stay side by side, and say who they are."""
    return {name: {"pin": True, "echo": {"reply": f"I am {name}"}, **more} for name in names}


@dataclass
class Reloadable:
    """A proxy whose config can be written anew."""

    hotseat: Hotseat
    path: Path
    reloader: Reloader

    async def take(self, config: str) -> Outcome:
        """Write another config and have it read."""
        self.path.write_text(config)
        return await self.reloader.reload("test")


@asynccontextmanager
async def reloadable(
    config: str, folder: Path, *, is_watched: bool = False
) -> AsyncIterator[Reloadable]:
    """Serve a config that can be exchanged, for the length of the block."""
    path = folder / "swap.yaml"
    path.write_text(config)
    rereading = Rereading(lambda: load_config(path), lambda: [path], is_watched)
    listener = app.listen("127.0.0.1", 0)
    async with app.serving(load_config(path).config, listener, rereading=rereading) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession(url) as session:
            yield Reloadable(Hotseat(url, session, server.pool), path, server.reloader)


async def pids(hotseat: Hotseat) -> dict[str, int]:
    return {name: one["pid"] for name, one in (await hotseat.running()).items()}


async def fates(outcome: Outcome) -> dict[str, tuple[str, ...]]:
    """Tell what became of each model, with the keys."""
    told: Any = outcome.as_json()["models"]
    return {name: (one["change"], *one["keys"]) for name, one in told.items()}


async def test_nothing_changes_for_who_is_not_changed(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A request under way, its worker and all others live on; only the changed one is renewed."""
    held = gate()
    before = {**echoes("a", "b"), "c": {"echo": {}}}
    after = {**before, "b": {"pin": True, "echo": {"reply": "another b"}}}
    async with reloadable(config_of(before), tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        for name in ("a", "b", "c"):
            await hotseat.chat(name)
        old = await pids(hotseat)
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        outcome = await served_.take(config_of(after))
        assert outcome.is_well
        assert await fates(outcome) == {"b": ("changed", "echo.reply")}
        assert (await hotseat.chat("b")).text == "another b"

        new = await pids(hotseat)
        assert {name: new[name] for name in "ac"} == {name: old[name] for name in "ac"}
        assert new["b"] != old["b"]
        held.open()
        assert (await slow).text == "I am a"
        assert "reloaded cause=test" in (await hotseat.get("/logs")).body


async def test_the_same_config_again_changes_nothing(tmp_path: Path) -> None:
    """A signal for nothing costs nothing."""
    config = config_of({**echoes("a"), "f": {"cmd": ECHO}})
    async with reloadable(config, tmp_path) as served_:
        for name in ("a", "f"):
            await served_.hotseat.chat(name)
        old = await pids(served_.hotseat)
        outcome = await served_.take(config)

        assert outcome.is_well
        assert outcome.as_json()["models"] == {}
        assert await pids(served_.hotseat) == old


async def test_a_changed_worker_finishes_what_it_serves(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The old worker ends its answer; who asks meanwhile waits for the new one."""
    held = gate()
    before = config_of({"a": {"cmd": f'{ECHO} --options \'{{"reply": "old"}}\''}})
    after = config_of({"a": {"cmd": f'{ECHO} --options \'{{"reply": "new"}}\''}})
    async with reloadable(before, tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        assert (await served_.take(after)).is_well
        asked = tasks.create_task(hotseat.chat("a"))
        while not (await hotseat.get("/api/queue")).body["waiting"]:
            pass
        held.open()

        assert (await slow).text == "old"
        assert (await asked).text == "new"
        assert "unloaded model=a cause=reload" in (await hotseat.get("/logs")).body


async def test_a_new_worker_waits_for_the_port_of_the_old(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """With a port of its own, the new worker is started when the old one is gone."""
    held = gate()
    port = app.listen("127.0.0.1", 0)
    number = port.getsockname()[1]
    port.close()
    serve = f"{sys.executable} -P -m workers.echo --port {number}"

    def config(reply: str) -> str:
        options = json.dumps({"reply": reply, "stop_s": 0.3})
        model = {"cmd": f"{serve} --options '{options}'", "proxy": f"http://127.0.0.1:{number}"}
        return config_of({"a": {"pin": True, **model}})

    async with reloadable(config("old"), tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await served_.take(config("new"))
        asked = tasks.create_task(hotseat.chat("a"))
        while len((await hotseat.get("/running")).body["running"]) < 2:
            pass
        held.open()

        assert ((await slow).text, (await asked).text) == ("old", "new")
        assert "start_failed" not in (await hotseat.get("/logs")).body


async def test_where_both_have_room_the_new_worker_does_not_wait(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A worker of ours has a socket of its own: a long answer of the old one delays nobody."""
    held = gate()
    before, after = ({"a": {"pin": True, "echo": {"reply": word}}} for word in ("old", "new"))
    async with reloadable(config_of(before), tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await served_.take(config_of(after))

        assert (await hotseat.chat("a")).text == "new"
        held.open()
        assert (await slow).text == "old"


async def test_a_renamed_model_waits_for_its_port(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nobody takes the old worker, which still serves there, for the new one."""
    held = gate()
    port = app.listen("127.0.0.1", 0)
    number = port.getsockname()[1]
    port.close()

    def config(name: str) -> str:
        options = json.dumps({"reply": f"I am {name}"})
        command = f"{sys.executable} -P -m workers.echo --port {number} --options '{options}'"
        place = f"http://localhost:{number}"
        return config_of({name: {"pin": True, "cmd": command, "proxy": place}})

    async with reloadable(config("a"), tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await served_.take(config("b"))
        asked = tasks.create_task(hotseat.chat("b"))
        while len((await hotseat.get("/running")).body["running"]) < 2:
            pass
        held.open()

        assert ((await slow).text, (await asked).text) == ("I am a", "I am b")


SEAT: dict[str, object] = {}
GROUPS: dict[str, object] = {"groups": {"both": {"swap": False, "members": ["a", "b"]}}}
ALONE: dict[str, object] = {"groups": {"one": {"members": ["a", "b"]}}}
BYTES: dict[str, object] = {"gpu": {"memory": "1GiB"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [(GROUPS, SEAT), (BYTES, SEAT), (SEAT, BYTES), (GROUPS, BYTES), (SEAT, ALONE), (BYTES, ALONE)],
)
async def test_under_other_rules_nobody_loads_beside_who_still_serves(
    tmp_path: Path,
    gate: Callable[[], Gate],
    before: dict[str, object],
    after: dict[str, object],
) -> None:
    """A seat, bytes or a company: what a worker of the old rules holds is counted by the new."""
    held = gate()
    old = {"a": {"echo": {}, "memory": "1GiB"}, "b": {"echo": {}, "memory": "1GiB"}}
    new = {**old, "a": {"echo": {"reply": "another"}, "memory": "1GiB"}}
    async with reloadable(config_of(old, **before), tmp_path) as served_:
        hotseat = served_.hotseat
        assert hotseat.pool is not None
        workers = hotseat.pool.standing.state.workers
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
            await held.reached()
            assert (await served_.take(config_of(new, **after))).is_well
            asked = tasks.create_task(hotseat.chat("b"))
            while Phase.PREPARED not in {worker.phase for worker in workers.values()}:
                await hotseat.get("/running")
            states = {name: one["state"] for name, one in (await hotseat.running()).items()}
            assert states == {"a": "stopping", "b": "starting"}

            held.open()
            assert ((await slow).status, (await asked).status) == (200, 200)


async def test_rules_of_company_cost_no_worker(tmp_path: Path) -> None:
    """Who is the same under groups and without them stays, as far as there is room."""
    models: dict[str, dict[str, Any]] = {"a": {"echo": {}}, "b": {"echo": {}}}
    async with reloadable(config_of(models), tmp_path) as served_:
        hotseat = served_.hotseat
        await hotseat.chat("a")
        old = await pids(hotseat)
        await served_.take(config_of(models, **GROUPS))
        await hotseat.chat("b")
        both = await pids(hotseat)
        await served_.take(config_of(models))
        await hotseat.log_line("unloaded model=. cause=over_budget")

        assert both["a"] == old["a"]
        [(name, pid)] = (await pids(hotseat)).items()
        assert both[name] == pid


async def test_who_waits_keeps_his_place(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Queued requests of models that stay are served as if nothing had happened."""
    held = gate()
    before = {"a": {"echo": {}}, "b": {"echo": {"reply": "I am b"}}}
    config = config_of({**before, "new": {"echo": {}}}, patience=0)
    async with (
        reloadable(config_of(before, patience=0), tmp_path) as served_,
        asyncio.TaskGroup() as tasks,
    ):
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        asked = tasks.create_task(hotseat.chat("b"))
        while not (waiting := (await hotseat.get("/api/queue")).body["waiting"]):
            pass
        assert await fates(await served_.take(config)) == {"new": ("added",)}
        again = (await hotseat.get("/api/queue")).body["waiting"]
        assert [one["id"] for one in again] == [one["id"] for one in waiting]
        held.open()

        assert (await slow).status == 200
        assert (await asked).text == "I am b"


async def test_who_waits_gets_the_seat_of_the_newly_pinned(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A pinned model takes no seat, so that who waited for it need not wait any more."""
    held = gate()
    before = {name: {"echo": {}, "memory": "1GiB"} for name in "ab"}
    after = config_of({**before, "a": {**before["a"], "pin": True}})
    async with (
        reloadable(config_of(before), tmp_path) as served_,
        asyncio.TaskGroup() as tasks,
    ):
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        asked = tasks.create_task(hotseat.chat("b"))
        while not (await hotseat.get("/api/queue")).body["waiting"]:
            pass
        assert await fates(await served_.take(after)) == {"a": ("kept", "pin")}

        assert (await asked).status == 200
        held.open()
        assert (await slow).status == 200


async def test_a_model_that_is_gone(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Its worker ends its answer and goes; who waits for it or asks for it is told."""
    held = gate()
    before = config_of({"a": {"concurrencyLimit": 1, "echo": {}}, "b": {"echo": {}}})
    async with reloadable(before, tmp_path) as served_, asyncio.TaskGroup() as tasks:
        hotseat = served_.hotseat
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        waits = tasks.create_task(hotseat.chat("a"))
        while not (await hotseat.get("/api/queue")).body["waiting"]:
            pass
        assert await fates(await served_.take(config_of({"b": {"echo": {}}}))) == {
            "a": ("removed",)
        }
        assert (await waits).status == 404
        assert (await hotseat.chat("a")).status == 404
        assert (await hotseat.running())["a"]["state"] == "stopping"
        held.open()

        assert (await slow).status == 200
        await hotseat.log_line("unloaded model=a cause=reload")
        assert (await hotseat.chat("b")).status == 200


async def test_settings_of_the_proxy_count_at_once(tmp_path: Path) -> None:
    """A ttl, an alias, a limit: the worker stays, and does what the new config says."""
    before, more = config_of({"a": {"echo": {}}}), {"aliases": ["al"], "unloadTimeout": 3}
    async with reloadable(before, tmp_path) as served_:
        hotseat = served_.hotseat
        await hotseat.chat("a")
        old = await pids(hotseat)
        outcome = await served_.take(config_of({"a": {"echo": {}, "ttl": 60, **more}}))
        assert await fates(outcome) == {"a": ("kept", "aliases", "ttl", "unloadTimeout")}
        assert (await hotseat.chat("al")).status == 200
        assert (await pids(hotseat)) == old

        await served_.take(config_of({"a": {"echo": {}, "ttl": 0.05, **more}}))
        await hotseat.log_line("unloaded model=a cause=ttl")


async def test_the_newly_pinned_take_their_seat(tmp_path: Path) -> None:
    """Who is pinned now is loaded; who sits already stays, beside the seat; and back again."""
    before = config_of({name: {"echo": {}} for name in "abc"})
    after = config_of({"a": {"echo": {}, "pin": True}, "b": {"echo": {}}, "c": {"echo": {}}})
    async with reloadable(before, tmp_path) as served_:
        hotseat = served_.hotseat
        await hotseat.chat("a")
        old = await pids(hotseat)
        assert await fates(await served_.take(after)) == {"a": ("kept", "pin")}
        for name in "bc":
            await hotseat.chat(name)
        assert (await pids(hotseat))["a"] == old["a"]

        await served_.take(config_of({name: {"echo": {}, "pin": name == "b"} for name in "abc"}))
        await hotseat.log_line("swap came=b left=.* cause=pin")
        for name in "ac":
            await hotseat.chat(name)
        assert sorted(await pids(hotseat)) == ["b", "c"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("models: {a: {echo: {}", "not valid YAML"),
        ("models: {a: {echo: {}, pinn: true}, b: {}}", "pinn"),
        ("models: {a: {echo: {}}, b: {echo: {file: nowhere.gguf}}}", "nowhere.gguf"),
        ("models: {a: {echo: {}}}\ngpu: {memory: auto, devices: [7]}", "needs to look at the GPU"),
    ],
)
async def test_on_any_mistake_the_old_config_stays(tmp_path: Path, broken: str, told: str) -> None:
    """Every mistake is told, with its line; nothing else happens."""
    async with reloadable("models: {a: {echo: {}}}", tmp_path) as served_:
        hotseat = served_.hotseat
        await hotseat.chat("a")
        old = await pids(hotseat)
        outcome = await served_.take(broken)

        assert not outcome.is_well
        assert any(told in problem for problem in outcome.problems)
        assert await pids(hotseat) == old
        assert (await hotseat.chat("a")).status == 200
        lines = (await hotseat.get("/logs")).body
        assert "reload_failed cause=test" in lines
        assert told in lines
        assert served_.reloader.last is outcome

        assert (await served_.take("models: {a: {echo: {}}}")).is_well


async def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Not one after the other, reload by reload."""
    async with reloadable("models: {a: {echo: {}}}", tmp_path) as served_:
        outcome = await served_.take("models:\n  a: {echo: {}, x: 1}\n  b: {echo: {}, y: 1}\n")

        assert [p.split(":")[1] for p in outcome.problems] == ["2", "3"]


async def test_what_was_wrong_before_hinders_nobody(tmp_path: Path) -> None:
    """A model whose file is missing since the start does not keep others from changing."""
    wrong = {"echo": {"file": "nowhere.gguf"}}
    async with reloadable(config_of({"w": wrong, "a": {"echo": {}}}), tmp_path) as served_:
        outcome = await served_.take(config_of({"w": wrong, "b": {"echo": {}}}))

        assert outcome.is_well
        assert "nowhere.gguf" in await served_.hotseat.log_line("config_warning")


async def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    """A key that is read once changes nothing, and that is told."""
    async with reloadable("models: {a: {echo: {}}}", tmp_path) as served_:
        outcome = await served_.take(
            "models: {a: {echo: {}}}\nfootprints: other.json\nglobalTTL: 3\n"
        )

        assert outcome.as_json()["keys"] == ["footprints", "globalTTL"]
        assert outcome.as_json()["needs_restart"] == ["footprints"]
        assert "footprints" in await served_.hotseat.log_line("needs_restart")


async def test_a_budget_may_change(tmp_path: Path) -> None:
    """More memory: both fit; less again: the idle one goes."""

    def config(gib: int) -> str:
        models = {name: {"memory": "10GiB", "echo": {}} for name in "ab"}
        return config_of(models, gpu={"memory": f"{gib}GiB", "devices": [0]})

    async with reloadable(config(12), tmp_path) as served_:
        hotseat = served_.hotseat
        for name in "ab":
            await hotseat.chat(name)
        await hotseat.log_line("unloaded model=a cause=swap")
        assert (await served_.take(config(24))).as_json()["models"] == {}
        await hotseat.chat("a")
        assert sorted(await pids(hotseat)) == ["a", "b"]

        await served_.take(config(12))
        await hotseat.log_line("unloaded model=. cause=over_budget")
        while len(await pids(hotseat)) != 1:
            pass


async def test_the_memory_of_a_seated_model_may_change(tmp_path: Path) -> None:
    """What it is thought to need is counted anew; its worker knows nothing of it."""

    def config(size: str) -> str:
        return config_of({"a": {"memory": size, "echo": {}}}, gpu={"memory": "24GiB"})

    async with reloadable(config("10GiB"), tmp_path) as served_:
        hotseat = served_.hotseat
        await hotseat.chat("a")
        old = await pids(hotseat)
        assert await fates(await served_.take(config("12GiB"))) == {"a": ("kept", "memory")}

        entry = (await hotseat.running())["a"]
        assert entry["memory"] == {"gpu0": 12 << 30}
        assert await pids(hotseat) == old


async def test_what_others_use_is_known_further(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """Another reserve is taken from what they leave, at once; the GPU is not opened anew."""

    def config(**section: str) -> str:
        models = {"a": on_card(gpu, 4 * GIB)}
        return bytes_counted.config_of(models, gpu={"memory": "auto", **section})

    gpu.allocate(os.getpid(), 8 * GIB)
    async with reloadable(config(), tmp_path) as served_:
        hotseat = served_.hotseat
        await answered(hotseat.chat("a"))
        old = await pids(hotseat)
        assert hotseat.pool is not None
        assert hotseat.pool.standing.budget == {"gpu0": 16 * GIB}
        assert (await served_.take(config(reserve="2GiB"))).is_well

        assert hotseat.pool.standing.budget == {"gpu0": 14 * GIB}
        assert await pids(hotseat) == old
        gpu.free(os.getpid())
        await budget_seen(hotseat, 22)


@pytest.mark.parametrize("shows", ["none", "upstream", "both"])
async def test_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shows: str
) -> None:
    """LogToStdout says whose lines our own output has: ours, the workers', both or neither."""
    config = config_of({"a": {"echo": {"says": "a has come"}}}, logToStdout=shows)
    async with reloadable(config, tmp_path) as served_:
        await served_.hotseat.chat("a")
    printed = capsys.readouterr()

    assert ("a: a has come\n" in printed.out) == (shows != "none")
    assert (" swap came=a" in printed.err) == (shows == "both")


async def test_keys_and_the_log_level_count_at_once(tmp_path: Path) -> None:
    """Whom the new config does not know is not let in any more."""
    async with reloadable("models: {a: {echo: {}}}", tmp_path) as served_:
        hotseat = served_.hotseat
        assert (await hotseat.chat("a")).status == 200
        await served_.take("models: {a: {echo: {}}}\napiKeys: [secret]\nlogLevel: debug\n")
        assert (await hotseat.chat("a")).status == 401
        told = json.dumps(served_.reloader.last.as_json() if served_.reloader.last else {})

        assert "secret" not in told
        await served_.take("models: {a: {echo: {}}}\nlogLevel: debug\n")
        await hotseat.chat("a")
        assert " debug event " in (await hotseat.get("/logs")).body


async def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    """A server that was not told where its config comes from says so."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        assert hotseat.pool is not None
        outcome = await Reloader(hotseat.pool, None, never, print).reload("test")

        assert not outcome.is_well
        assert "where its config comes from" in outcome.problems[0]


async def test_a_reading_that_breaks_is_told_too(tmp_path: Path) -> None:
    """Whatever goes wrong, there is an outcome, and the server goes on."""

    def read() -> Any:
        raise MemoryError("no room for so large a file")

    async with served(config_of({"a": {"echo": {}}}), tmp_path) as hotseat:
        assert hotseat.pool is not None
        reloader = Reloader(hotseat.pool, Rereading(read, list), never, print)
        outcome = await reloader.reload("test")

        assert outcome.as_json()["problems"] == ["MemoryError: no room for so large a file"]
        assert reloader.last is outcome
        assert (await hotseat.chat("a")).status == 200


async def never(_loaded: object) -> Any:
    raise AssertionError


# How a reload is asked for.


async def test_sighup_reloads(tmp_path: Path) -> None:
    """The signal reads the file again; what is asked for during a reload is not lost."""
    async with spawned(config_of({"a": {"echo": {"reply": "old"}}}), tmp_path) as (
        hotseat,
        process,
    ):
        assert (await hotseat.chat("a")).text == "old"
        path = tmp_path / "swap.yaml"
        path.write_text(config_of({"a": {"echo": {"reply": "new"}}}))
        process.send_signal(signal.SIGHUP)
        await hotseat.log_line(" reloaded ")
        assert (await hotseat.chat("a")).text == "new"

        path.write_text("models: [")
        process.send_signal(signal.SIGHUP)
        await hotseat.log_line("reload_failed")
        assert (await hotseat.chat("a")).text == "new"


async def test_a_watched_file_is_read_when_it_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is not taken for the whole; a file that is replaced is seen too."""
    monkeypatch.setattr(reload, "LOOK_S", 0.05)
    config = config_of({"a": {"echo": {"reply": "old"}}})
    async with reloadable(config, tmp_path, is_watched=True) as served_:
        hotseat = served_.hotseat
        other = tmp_path / "other.yaml"
        other.write_text(config_of({"a": {"echo": {"reply": "new"}}}))
        os.utime(other, ns=(served_.path.stat().st_mtime_ns,) * 2)
        other.replace(served_.path)
        await hotseat.log_line(" reloaded ")

        assert (await hotseat.chat("a")).text == "new"


async def test_a_watched_file_that_may_be_read_again_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another permission is a change, though the file is as old and as long as it was."""
    monkeypatch.setattr(reload, "LOOK_S", 0.05)
    async with reloadable(config_of(echoes("a")), tmp_path, is_watched=True) as served_:
        served_.path.chmod(0o600)

        await served_.hotseat.log_line(" reloaded ")


async def test_watch_config_looks_at_the_folder_too(tmp_path: Path) -> None:
    """With --watch-config and --config-dir, a new file in the folder is a new model."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "a.yaml").write_text(config_of({"a": {"echo": {}}}))
    flags = ("--config-dir", str(folder), "--watch-config")
    async with started(*flags) as (hotseat, _process):
        assert (await hotseat.chat("b")).status == 404
        (folder / "b.yaml").write_text(config_of({"b": {"echo": {"reply": "I am b"}}}))
        await hotseat.log_line("model_added model=b")

        assert (await hotseat.chat("b")).text == "I am b"


async def test_nothing_is_left_of_any_config(tmp_path: Path) -> None:
    """Three reloads that change a model leave one worker, and in the end none."""

    def config(number: int) -> str:
        return config_of({"a": {"echo": {"reply": f"number {number}"}}})

    async with reloadable(config(0), tmp_path) as served_:
        for number in range(1, 4):
            await served_.take(config(number))
            assert (await served_.hotseat.chat("a")).text == f"number {number}"
        assert len(workers_of(os.getpid())) == 1

    assert workers_of(os.getpid()) == []
