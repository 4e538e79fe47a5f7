"""Groups: who may stay when another comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama_swap.house import house, pid_of
from tests.proxy.served import Hotseat, served

MODELS = dict.fromkeys(("a", "b", "c", "d"), "")


async def after(hotseat: Hotseat, asked: str) -> str:
    """Ask for these models, one by one; tell who is there afterwards."""
    for model in asked:
        assert (await hotseat.chat(model)).text == model
    return "".join(await hotseat.running())


async def walk(hotseat: Hotseat, steps: str) -> str:
    """Go through steps such as `a b:ab`, who is asked and who is there then; tell how it went."""
    went = []
    for step in steps.split():
        there = await after(hotseat, step[0])
        went.append(f"{step[0]}:{there}" if ":" in step else step)
    return " ".join(went)


WALKS = {
    "no groups: one at a time": ("", "a b:b"),
    "a group that swaps": ("groups: {g: {members: [a, b]}}", "a b:b"),
    "a group that does not swap": (
        "groups: {g: {swap: false, members: [a, b]}}",
        "a b:ab c:c a:a",
    ),
    "an exclusive group sends others away": (
        "groups: {g: {swap: false, members: [a, b]}, h: {swap: false, members: [c, d]}}",
        "a b:ab c:c d:cd",
    ),
    "a group that is not exclusive sends nobody away": (
        "groups: {g: {exclusive: false, members: [a, b]}, h: {members: [c]}}",
        "c a:ac b:bc",
    ),
    "but is itself sent away by one that is": (
        "groups: {g: {exclusive: false, members: [a]}}",
        "a c:c",
    ),
    "unless it is persistent": (
        "groups: {g: {persistent: true, exclusive: false, members: [a]}}",
        "a c:ac d:ad",
    ),
    "a persistent group may swap within": (
        "groups: {g: {persistent: true, exclusive: false, members: [a, b]}}",
        "a c:ac b:bc",
    ),
    "models in no group are a group that swaps": (
        "groups: {g: {swap: false, exclusive: false, persistent: true, members: [a, b]}}",
        "a b:ab c:abc d:abd",
    ),
    "the same in routing": (
        "routing: {router: {use: group, settings: {groups: {g: {swap: false, members: [a, b]}}}}}",
        "a b:ab c:c",
    ),
}


@pytest.mark.parametrize("case", WALKS)
async def test_who_stays(case: str, tmp_path: Path) -> None:
    """Step by step, who is there after whose call."""
    groups, steps = WALKS[case]
    async with served(house(groups, **MODELS), tmp_path) as hotseat:
        assert await walk(hotseat, steps) == steps


async def test_neighbours_are_not_reloaded(tmp_path: Path) -> None:
    """Going to and fro between members that stay costs one load each."""
    config = house("groups: {g: {swap: false, members: [a, b]}}\n", a="", b="")
    async with served(config, tmp_path) as hotseat:
        await after(hotseat, "ab")
        pids = [await pid_of(hotseat, name) for name in "ab"]
        await after(hotseat, "abab")

        assert [await pid_of(hotseat, name) for name in "ab"] == pids


async def test_who_is_there_already_sends_nobody_away(tmp_path: Path) -> None:
    """Rules are for who comes: a warm model of an exclusive group leaves its neighbours."""
    config = house("groups: {g: {exclusive: false, members: [b]}}", a="", b="")
    async with served(config, tmp_path) as hotseat:
        assert await after(hotseat, "aba") == "ab"
