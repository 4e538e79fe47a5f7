"""Selectors: one name for several models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.llama_swap.house import house, told, until_state
from tests.proxy.served import Gate, served

CHAT = "/v1/chat/completions"
TOGETHER = "groups: {all: {swap: false, members: [a, b]}}\n"


def selector(strategy: str, **more: str) -> str:
    told = "".join(f", {key}: {value}" for key, value in more.items())
    return f"selectors: {{any: {{strategy: {strategy}, targets: [a, b]{told}}}}}\n"


async def test_pin_is_the_first_target(tmp_path: Path) -> None:
    """Whoever is loaded."""
    async with served(house(selector("pin"), a="", b=""), tmp_path) as hotseat:
        await hotseat.chat("b")

        assert (await hotseat.chat("any")).text == "a"


async def test_warm_is_who_is_there(tmp_path: Path) -> None:
    """The first target that is ready, else the first of all; the seat is not touched for it."""
    async with served(house(selector("warm"), a="", b=""), tmp_path) as hotseat:
        cold = await hotseat.chat("any")
        await hotseat.chat("b")
        warm = await hotseat.chat("any")

        assert (cold.text, warm.text) == ("a", "b")
        assert [*await hotseat.running()] == ["b"]


async def test_warm_is_who_is_coming(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Before it starts another one."""
    load = gate()
    config = house(selector("warm"), a="", b=f"--load-gate {load.path}")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("b"))
        await until_state(hotseat, "b", "starting")
        second = tasks.create_task(hotseat.chat("any"))
        while len((await hotseat.get("/api/queue")).body["waiting"]) < 2:
            pass
        await load.pass_one()

        assert [(await first).text, (await second).text] == ["b", "b"]


async def test_spillover_begins_another_when_one_is_full(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The first target gets so many at once; only the next request starts the second."""
    held, also = gate(), gate()
    config = house(TOGETHER + selector("spillover", settings="{spillover: 2}"), a="", b="")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        one = tasks.create_task(hotseat.chat("any", gate=str(held.path)))
        await held.reached()
        two = await hotseat.chat("any")
        alone = [*await hotseat.running()]
        three = tasks.create_task(hotseat.chat("any", gate=str(also.path)))
        await also.reached()
        four = await hotseat.chat("any")
        held.open()
        also.open()

        assert [(await one).text, two.text, (await three).text, four.text] == [*"aaab"]
        assert alone == ["a"]


async def test_the_worker_sees_the_name_of_its_model(tmp_path: Path) -> None:
    """A selector is nothing that a worker could know."""
    config = house(selector("pin"), a="--tells", b="")
    async with served(config, tmp_path) as hotseat:
        seen = await told(hotseat, CHAT, json={"model": "any", "messages": []})

        assert seen.json["model"] == "a"


async def test_a_selector_has_no_upstream_path(tmp_path: Path) -> None:
    """There one names a worker."""
    async with served(house(selector("pin"), a="", b=""), tmp_path) as hotseat:
        answer = await hotseat.get("/upstream/any/x")

        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_a_selector_may_lead_to_a_peer_by_pin_alone(tmp_path: Path) -> None:
    """Nobody knows whether a peer's model is warm."""
    config = house("peers: {far: {proxy: 'http://127.0.0.1:1', models: [m]}}\n", a="")
    one = f"{config}selectors: {{s: {{strategy: pin, targets: [far/m]}}}}\n"
    async with served(one, tmp_path) as hotseat:
        answer = await hotseat.chat("s")

        assert answer.status == 502


async def test_a_selector_is_unlisted_if_it_says_so(tmp_path: Path) -> None:
    """And can be asked all the same."""
    config = house(TOGETHER + selector("warm", unlisted="true"), a="", b="")
    async with served(config, tmp_path) as hotseat:
        listed = [entry["id"] for entry in (await hotseat.get("/v1/models")).body["data"]]

        assert listed == ["a", "b"]
        assert (await hotseat.chat("any")).status == 200
