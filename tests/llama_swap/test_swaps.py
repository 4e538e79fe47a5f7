"""Who is served when, while models come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.llama_swap.house import house, pid_of, until_state
from tests.proxy.served import Answer, Gate, Hotseat, served


def swaps(log: str) -> list[str]:
    """Name the models that came, in their order."""
    lines = [line.split("swap came=")[1] for line in log.splitlines() if "swap came=" in line]
    return [line.split()[0] for line in lines]


async def waiting(hotseat: Hotseat, count: int) -> None:
    """Ask until so many wait; each question is a round trip."""
    while len((await hotseat.get("/api/queue")).body["waiting"]) < count:
        pass


async def test_a_swap_cuts_no_answer(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """The one who leaves says what it was saying to the end, and only then goes."""
    held = gate()
    async with served(house("patience: 0\n", a="", b=""), tmp_path) as hotseat:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
            await held.reached()
            second = tasks.create_task(hotseat.chat("b"))
            await waiting(hotseat, 1)
            seated = [*await hotseat.running()]
            held.open()

        assert "a" in seated
        assert (first.result().text, second.result().text) == ("a", "b")


async def test_turns_are_bundled(tmp_path: Path) -> None:
    """Requests for A B C A B C cost three loads, each of which serves two."""
    async with served(house(a="", b="", c=""), tmp_path) as hotseat:
        answers = await asyncio.gather(*(hotseat.chat(name) for name in "abcabc"))

        assert [answer.text for answer in answers] == [*"abcabc"]
        assert sorted(swaps((await hotseat.get("/logs")).body)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["c", "cc"])
async def test_who_is_urgent_comes_first(
    tmp_path: Path, gate: Callable[[], Gate], name: str
) -> None:
    """The scheduler's priority by model: a later call for a more urgent one goes before.

    It may be given by an alias, too.
    """
    held = gate()
    config = house(f"""
patience: 0
routing: {{scheduler: {{use: fifo, settings: {{fifo: {{priority: {{{name}: 10}}}}}}}}}}
models:
  a: {{cmd: "ECHO"}}
  b: {{cmd: "ECHO"}}
  c: {{cmd: "ECHO", aliases: [cc]}}
""")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        later = tasks.create_task(hotseat.chat("b"))
        await waiting(hotseat, 1)
        sooner = tasks.create_task(hotseat.chat("c"))
        await waiting(hotseat, 2)
        held.open()
        await asyncio.gather(later, sooner)

        assert swaps((await hotseat.get("/logs")).body) == ["a", "c", "b"]


async def test_who_leaves_the_queue_costs_no_load(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A client that gives up before its model's turn is as if it had never come."""
    held = gate()
    async with served(house(a="", b=""), tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        pid = await pid_of(hotseat, "a")
        leaver = tasks.create_task(hotseat.chat("b"))
        await waiting(hotseat, 1)
        leaver.cancel()
        await hotseat.log_line("request .*model=b")
        held.open()

        assert (await first).text == "a"
        assert await pid_of(hotseat, "a") == pid
        assert swaps((await hotseat.get("/logs")).body) == ["a"]


async def test_loads_that_do_not_touch_each_other_go_on_together(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Of two that may sit together, the second does not wait for the first to be ready."""
    first, second = gate(), gate()
    config = house(
        "groups: {g: {swap: false, members: [a, b]}}\n",
        a=f"--load-gate {first.path}",
        b=f"--load-gate {second.path}",
    )
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(hotseat.chat(name)) for name in "ab"]
        await first.reached()
        await second.reached()
        first.open()
        second.open()

        assert [(await answer).text for answer in answers] == ["a", "b"]


async def test_a_worker_that_crashed_comes_back_when_it_is_asked(tmp_path: Path) -> None:
    """Not before, and without a word of the crash to who asks then."""
    async with served(house(a=""), tmp_path) as hotseat:
        await hotseat.chat("a", die_after=0)
        await until_state(hotseat, "a", None)

        assert (await hotseat.chat("a")).text == "a"


async def test_a_failed_load_is_told_to_all_who_waited(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nobody is left waiting for a model that did not come."""
    load = gate()
    config = house(a=f"--load-gate {load.path} --exit-at-load 3 --detail broken")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(hotseat.chat("a")) for _ in range(3)]
        await load.reached()
        await waiting(hotseat, 3)
        load.open()
        answers: list[Answer] = [await task for task in asked]

        assert [answer.status for answer in answers] == [502] * 3
        assert all("broken" in answer.error["message"] for answer in answers)


async def test_a_stop_during_a_load_is_told_to_who_waits(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Unloading a model that is still coming ends its start and its waiters at once."""
    load = gate()
    async with served(house(a=f"--load-gate {load.path}"), tmp_path) as hotseat:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(hotseat.chat("a"))
            await load.reached()
            await hotseat.post("/api/models/unload/a")

            assert (await asked).status in (502, 503)
        assert await hotseat.running() == {}
