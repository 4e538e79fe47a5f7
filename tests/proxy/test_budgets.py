"""Several models in the host's memory at once: who stays, who goes, and how much is counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.bytes_counted import (
    MIB,
    Entry,
    answered,
    charge_of,
    config_of,
    running_when,
    state_of,
)
from tests.proxy.served import Gate, Hotseat, served

BARE_MIB = 48  # an echo's estimate of itself


def ballast(mib: int, **more: Any) -> Entry:
    """Make an echo with so much in its hands; `more` are keys of the model, or `echo`."""
    options = more.pop("echo", {})
    return {"echo": {"ballast_bytes": mib * MIB, **options}, **more}


def in_host(memory: str, models: dict[str, Entry], **top: object) -> str:
    """Write a swap.yaml whose models share so much of the host's memory."""
    return config_of(models, device="cpu", host={"memory": memory}, **top)


def foreign(mib: int) -> Entry:
    """Make a `cmd` of which nobody knows what it needs."""
    options = json.dumps({"ballast_bytes": mib * MIB})
    return {"cmd": f"{sys.executable} -m workers.echo --port ${{PORT}} --options '{options}'"}


async def paint(hotseat: Hotseat, model: str, size: str, **echo: Any) -> int:
    """Ask for a picture; gives the status."""
    body = {"model": model, "prompt": "x", "size": size, "echo": echo}
    return (await hotseat.post("/v1/images/generations", json=body)).status


# Who stays.


async def test_as_many_stay_as_fit(tmp_path: Path) -> None:
    """Two of three fit: the third takes one place, and the other two go on without a swap."""
    three = {name: ballast(100) for name in "abc"}
    async with served(in_host("400MiB", three), tmp_path) as hotseat:
        await answered(*(hotseat.chat(name) for name in "abab"))
        assert list(await hotseat.running()) == ["a", "b"]

        await answered(hotseat.chat("c"))
        running = await running_when(hotseat, lambda all_: len(all_) == 2)

        assert "c" in running
        assert (await hotseat.get("/logs")).body.count(" swap came=") == 3


async def test_models_that_fit_serve_at_the_same_time(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nobody waits for a neighbour whose memory he does not need."""
    held = gate()
    two = {name: ballast(50) for name in "ab"}
    async with (
        served(in_host("300MiB", two), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        slow = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()

        assert (await hotseat.chat("b")).status == 200
        assert not slow.done()
        held.open()
        assert (await slow).status == 200


async def test_the_fewest_go(tmp_path: Path) -> None:
    """One big one goes rather than two small ones, though it was used last and loads longest."""
    models = {
        **{name: ballast(40) for name in ("small", "little")},
        "big": ballast(150, echo={"load_s": 0.3}),
        "new": ballast(120),
    }
    async with served(in_host("430MiB", models), tmp_path) as hotseat:
        await answered(*(hotseat.chat(name) for name in ("small", "little", "big")))
        assert len(await hotseat.running()) == 3

        await answered(hotseat.chat("new"))

        await running_when(hotseat, lambda all_: sorted(all_) == ["little", "new", "small"])


async def test_the_quickest_to_bring_back_goes(tmp_path: Path) -> None:
    """Of two that would do, the one goes that loads faster, though it was used last."""
    models = {
        "slow": ballast(100, echo={"load_s": 1.0}),
        "quick": ballast(100),
        "new": ballast(100),
    }
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await answered(*(hotseat.chat(name) for name in ("slow", "quick", "new")))

        await running_when(hotseat, lambda all_: sorted(all_) == ["new", "slow"])


async def test_pinned_ones_are_counted_and_stay(tmp_path: Path) -> None:
    """A pinned model takes its part of the memory, and others go before it does."""
    models = {"pinned": ballast(100, pin=True), "a": ballast(100), "b": ballast(100)}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await state_of(hotseat, "pinned", "ready")
        assert await charge_of(hotseat, "pinned", "host") > 100 * MIB

        await answered(hotseat.chat("a"), hotseat.chat("b"))

        await running_when(hotseat, lambda all_: sorted(all_) == ["b", "pinned"])


# What does not fit.


async def test_what_never_fits_is_refused_with_numbers(tmp_path: Path) -> None:
    """A 503 says what the model needs and what there is; nobody was sent away for it."""
    models = {"small": ballast(0), "huge": ballast(0, memory="1GiB")}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await answered(hotseat.chat("small"))
        refused = await hotseat.chat("huge")

        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "1.0 GiB of host" in refused.error["message"]
        assert "400 MiB of host" in refused.error["message"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert list(await hotseat.running()) == ["small"]


async def test_what_does_not_fit_beside_the_pinned_is_refused(tmp_path: Path) -> None:
    """The numbers are those that are left when everybody has gone who can go."""
    models = {"pinned": ballast(0, memory="300MiB", pin=True), "a": ballast(0, memory="200MiB")}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await state_of(hotseat, "pinned", "ready")
        refused = await hotseat.chat("a")

        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "200 MiB of host; at best there is 100 MiB of host" in refused.error["message"]


# What is counted.


async def test_an_estimate_counts_where_nothing_is_declared(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """What the worker's own program reckons is charged from the load on, before any look."""
    held = gate()
    models = {"a": ballast(100, echo={"load_gate": str(held.path)})}
    async with (
        served(in_host("400MiB", models), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hotseat.chat("a"))
        await held.reached()

        assert await charge_of(hotseat, "a", "host") == (BARE_MIB + 100) * MIB
        held.open()
        assert (await asked).status == 200


async def test_more_declared_than_held_counts(tmp_path: Path) -> None:
    """A declaration keeps its place free: two such models do not fit, little as they hold."""
    models = {name: ballast(0, memory="250MiB") for name in "ab"}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        assert await charge_of(hotseat, "a", "host") == 250 * MIB

        await answered(hotseat.chat("b"))

        await running_when(hotseat, lambda all_: list(all_) == ["b"])


async def test_more_held_than_declared_counts_and_is_said_once(tmp_path: Path) -> None:
    """The measured peak is charged instead; one warning per model and run says so."""
    models = {"a": ballast(150, memory="60MiB")}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        await hotseat.post("/api/models/unload")
        await answered(*(hotseat.chat("a") for _ in range(3)))

        assert await charge_of(hotseat, "a", "host") > 150 * MIB
        drift = await hotseat.log_line("holds_more_than_declared")
        assert "model=a" in drift
        assert (await hotseat.get("/logs")).body.count("holds_more_than_declared") == 1


async def test_a_model_that_keeps_its_word_is_not_warned_of(tmp_path: Path) -> None:
    """A declaration that suffices is no news."""
    models = {"a": ballast(0, memory="200MiB")}
    async with served(in_host("400MiB", models), tmp_path) as hotseat:
        await answered(hotseat.chat("a"))

        assert "holds_more_than_declared" not in (await hotseat.get("/logs")).body


async def test_an_unknown_command_is_alone_once_and_then_known(tmp_path: Path) -> None:
    """It gets all the memory there is for its first load, is measured, and has neighbours then."""
    models = {"known": ballast(50), "unknown": foreign(60)}
    async with served(in_host("500MiB", models), tmp_path) as hotseat:
        await answered(hotseat.chat("known"), hotseat.chat("unknown"))
        assert list(await hotseat.running()) == ["unknown"]
        assert 60 * MIB < await charge_of(hotseat, "unknown", "host") < 250 * MIB

        await answered(hotseat.chat("known"), hotseat.chat("unknown"), hotseat.chat("known"))

        assert list(await hotseat.running()) == ["known", "unknown"]
        assert (await hotseat.get("/logs")).body.count(" swap came=unknown") == 1


async def test_a_larger_picture_is_given_more(tmp_path: Path) -> None:
    """What a size of picture was seen to need is charged before the next, and who idles goes."""
    models = {"painter": ballast(50), "idle": ballast(100)}
    async with served(in_host("380MiB", models), tmp_path) as hotseat:
        assert await paint(hotseat, "painter", "1024x1024", allocate_bytes=150 * MIB) == 200
        large = await charge_of(hotseat, "painter", "host")
        await hotseat.post("/api/models/unload")
        assert await paint(hotseat, "painter", "256x256") == 200
        await answered(hotseat.chat("idle"))
        assert sorted(await hotseat.running()) == ["idle", "painter"]
        small = await charge_of(hotseat, "painter", "host")

        assert await paint(hotseat, "painter", "1024x1024", allocate_bytes=150 * MIB) == 200

        await running_when(hotseat, lambda all_: list(all_) == ["painter"])
        assert large - small > 100 * MIB
        assert await charge_of(hotseat, "painter", "host") == pytest.approx(large, rel=0.1)
        assert (await hotseat.get("/logs")).body.count(" swap came=painter") == 2


# What is kept from run to run.


async def held_while_loading(config: str, folder: Path, held: Gate) -> int:
    """Serve, tell what model `a` is charged with before it is measured, and let it answer."""
    async with served(config, folder) as hotseat, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(hotseat.chat("a"))
        await held.reached()
        charge = await charge_of(hotseat, "a", "host")
        held.open()
        assert (await asked).status == 200
    return charge


def kept_files(folder: Path) -> list[str]:
    return [str(one.relative_to(folder)) for one in folder.rglob("*.json")]


@pytest.mark.parametrize(
    ("footprints", "kept_at"),
    [(None, "state/hotseat/footprints.json"), ("seen.json", "seen.json"), (False, None)],
)
async def test_what_was_measured_counts_after_a_restart(
    tmp_path: Path,
    gate: Callable[[], Gate],
    footprints: str | bool | None,  # noqa: FBT001  # as the key takes it
    kept_at: str | None,
) -> None:
    """A peak above the declaration rules from the first load on, unless nothing may be kept."""
    held = gate()
    key = {} if footprints is None else {"footprints": footprints}
    models = {"a": ballast(150, memory="60MiB", echo={"load_gate": str(held.path)})}
    config = in_host("400MiB", models, **key)

    first = await held_while_loading(config, tmp_path, held)
    second = await held_while_loading(config, tmp_path, held)

    assert first == 60 * MIB
    assert (second > 150 * MIB) == (kept_at is not None)
    assert kept_files(tmp_path) == ([kept_at] if kept_at else [])


async def test_other_options_are_another_footprint(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """What a model held before its options changed says nothing of it now."""
    held = gate()

    def config(mib: int) -> str:
        return in_host("400MiB", {"a": ballast(mib, echo={"load_gate": str(held.path)})})

    await held_while_loading(config(150), tmp_path, held)
    after = await held_while_loading(config(10), tmp_path, held)

    assert after == (BARE_MIB + 10) * MIB


async def test_footprints_that_make_no_sense_are_set_aside(tmp_path: Path) -> None:
    """The proxy starts without them, keeps the broken file beside, and learns anew."""
    file = tmp_path / "seen.json"
    file.write_text('{"version": 1, "peaks": [{"model')
    config = in_host("400MiB", {"a": ballast(0)}, footprints="seen.json")

    async with served(config, tmp_path) as hotseat:
        await answered(hotseat.chat("a"))
        assert str(file) in await hotseat.log_line("footprints_unreadable")

    assert file.with_name("seen.json.corrupt").read_text().startswith('{"version": 1')
    assert json.loads(file.read_text())["peaks"]
