"""The file is read again, and only what it changes changes."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.llama_swap.house import house, started, until_listed
from tests.proxy.served import workers_of


async def test_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    """What is wrong is told with its line, the old config goes on; the next one counts again."""
    path = tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    async with started("--config", str(path)) as (hotseat, program):
        await hotseat.chat("a")
        before = workers_of(program.process.pid)
        path.write_text("models: {broken")
        program.process.send_signal(signal.SIGHUP)
        await program.said("swap.yaml:1: ")
        kept = await hotseat.chat("a")
        path.write_text(house(a="", c=""))
        program.process.send_signal(signal.SIGHUP)
        await until_listed(hotseat, "c")

        assert kept.text == "a"
        assert workers_of(program.process.pid) == before


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """With --watch-config, without a signal."""
    path = tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    async with started("--config", str(path), "--watch-config") as (hotseat, _):
        path.write_text(house(a="", c=""))
        await until_listed(hotseat, "c")

        assert (await hotseat.chat("c")).text == "c"


async def test_a_reload_ends_who_has_changed_or_is_gone(tmp_path: Path) -> None:
    """And them alone; the changed one comes back as its entry now says."""
    path = tmp_path / "swap.yaml"
    group = "groups: {all: {swap: false, members: [a, b, c]}}\n"
    path.write_text(house(group, a="", b="", c=""))
    async with started("--config", str(path)) as (hotseat, program):
        for name in "abc":
            await hotseat.chat(name)
        pid = (await hotseat.running())["a"]["pid"]
        text = house("groups: {all: {swap: false, members: [a, b]}}\n", a="", b="--reply new")
        path.write_text(text)
        program.process.send_signal(signal.SIGHUP)
        while [*await hotseat.running()] != ["a"]:
            pass

        assert (await hotseat.chat("b")).text == "new"
        assert (await hotseat.running())["a"]["pid"] == pid
        assert (await hotseat.chat("c")).status == 404
