"""When a model leaves, and how it is made to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.llama_swap.house import house, pid_of, started
from tests.proxy.served import Gate, Hotseat, all_gone, served, workers_of

TTLS = {
    "with a ttl of the file's": ("globalTTL: 0.4", "never"),
    "without": ("", "never nothing minus"),
}


@pytest.mark.parametrize("case", TTLS)
async def test_idle_models_leave_after_their_ttl(case: str, tmp_path: Path) -> None:
    """Their own counts over the file's: -1 is the file's, 0 is never."""
    file, stay = TTLS[case]
    models = {"never": "ttl: 0", "nothing": "", "minus": "ttl: -1", "own": "ttl: 0.5"}
    entries = "".join(f"  {name}: {{cmd: 'ECHO', {said}}}\n" for name, said in models.items())
    members = f"groups: {{all: {{swap: false, members: [{', '.join(models)}]}}}}"
    async with served(house(f"{file}\n{members}\nmodels:\n{entries}"), tmp_path) as hotseat:
        await asyncio.gather(*(hotseat.chat(name) for name in models))
        for name in models.keys() - {*stay.split()}:
            await hotseat.log_line(f"unloaded model={name} cause=ttl")

        assert {*await hotseat.running()} == {*stay.split()}


async def test_an_answer_that_outlasts_the_ttl_is_not_cut(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The idle time begins at its last byte."""
    held = gate()
    config = """
groups: {all: {swap: false, members: [a, b]}}
models: {a: {cmd: "ECHO --reply a", ttl: 0.2}, b: {cmd: "ECHO", ttl: 0.2}}
"""
    async with served(house(config), tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await hotseat.chat("b")
        await hotseat.log_line("unloaded model=b")
        seated = [*await hotseat.running()]
        held.open()

        assert seated == ["a"]
        assert (await answer).text == "a"
        assert await hotseat.log_line("unloaded model=a")


async def gone(hotseat: Hotseat, way: str) -> None:
    """Make model a leave in one of the ways that there are."""
    match way:
        case "swap":
            await hotseat.chat("b")
        case "unload":
            await hotseat.post("/api/models/unload/a")
        case "ttl":
            await hotseat.log_line("unloaded model=a")


@pytest.mark.parametrize("way", ["swap", "unload", "ttl"])
async def test_who_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path, way: str) -> None:
    """One unloadTimeout on every path, and for all that the worker has started."""
    ttl = "globalTTL: 0.1\n" if way == "ttl" else ""
    config = house(f"{ttl}unloadTimeout: 0.3\n", a="--ignore-sigterm --grandchild", b="")
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        family = workers_of(os.getpid())
        await gone(hotseat, way)

        assert len(family) >= 3
        assert await all_gone(family, within_s=3)


async def test_a_models_own_unload_timeout_counts(tmp_path: Path) -> None:
    """Over the file's, which would outlast this test."""
    config = "unloadTimeout: 60\nmodels: {a: {cmd: 'ECHO --ignore-sigterm', unloadTimeout: 0.3}}\n"
    async with served(house(config), tmp_path) as hotseat:
        await hotseat.chat("a")

        assert (await hotseat.get("/unload")).body == "OK"
        assert await hotseat.running() == {}


async def test_cmd_stop_takes_the_place_of_the_signal(tmp_path: Path) -> None:
    """It knows the process, the port and the environment of what it stops."""
    note = tmp_path / "note"
    config = f"""
unloadTimeout: 60
models:
  a:
    cmd: "ECHO --ignore-sigterm"
    env: [GREETING=hello]
    cmdStop: >-
      sh -c 'echo ${{PID}} ${{PORT}} ${{MODEL_ID}} $GREETING > {note}; kill -KILL ${{PID}}'
"""
    async with served(house(config), tmp_path) as hotseat:
        port = (await hotseat.get("/upstream/a/process")).body["argv"][1]
        pid = await pid_of(hotseat, "a")
        await hotseat.get("/unload")

        assert note.read_text().split()[1:] == [port, "a", "hello"]
        assert note.read_text().split()[0].isdigit()
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("stop", ["true", "false", "no-such-program", "sleep 60"])
async def test_a_cmd_stop_that_does_not_stop_it_is_not_the_end(tmp_path: Path, stop: str) -> None:
    """After the grace the worker is killed, and what was to stop it too."""
    config = f"models: {{a: {{cmd: 'ECHO', cmdStop: '{stop}', unloadTimeout: 0.3}}}}\n"
    async with served(house(config), tmp_path) as hotseat:
        await hotseat.chat("a")
        await hotseat.get("/unload")

        assert await hotseat.running() == {}
        assert await all_gone(workers_of(os.getpid()), within_s=2)


async def test_a_grandchild_that_holds_the_output_delays_nobody(tmp_path: Path) -> None:
    """A worker is gone when its processes are, not when its pipes are closed."""
    config = house("unloadTimeout: 60\n", a="--grandchild", b="")
    async with served(config, tmp_path) as hotseat, asyncio.timeout(6):
        await hotseat.chat("a")

        assert (await hotseat.chat("b")).text == "b"


async def test_sigterm_lets_answers_end(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """The proxy goes when the last one is out, and takes its workers along."""
    held, path = gate(), tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    async with started("--config", str(path)) as (hotseat, program), asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        family = workers_of(program.process.pid)
        program.process.send_signal(signal.SIGTERM)
        await program.said("stopping")
        held.open()

        assert (await answer).text == "a"
        assert await program.process.wait() == 0
        assert await all_gone(family, within_s=2)
