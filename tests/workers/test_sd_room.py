"""Tiles ahead of a failure: how a picture is decoded where there is no room for the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proxy.bytes_counted import charge_of
from tests.proxy.served import served
from tests.workers import heads, sd_files
from tests.workers.reckoned import sd
from tests.workers.test_sd_life import GENERATIONS, LONG, logged
from tests.workers.test_sd_plan import KLEIN, planned
from workers.memory import MIB
from workers.sd import estimate, room
from workers.sd.options import SdOptions

SIZE = {"size": "528x512"}  # one row of pixels more than a tile has
IN_TILES = "in tiles, for want of memory"


def test_the_estimate_tells_what_tiles_make_do_with(tmp_path: Path) -> None:
    """The ladder names both, and where tiles are chosen or refused, there is but one."""
    flux = heads.flux(tmp_path / "flux.safetensors", width=128)
    options = {"diffusion_model": str(flux), "vae": str(heads.kl_vae(tmp_path / "vae"))}
    options["diffusion_flash_attn"] = True

    auto, always, never = [
        {rung.up_to_pixels: (rung.size_bytes, rung.least_bytes) for rung in memory.requests}
        for memory in (sd(**options), *(sd(**options, vae_tiling=on) for on in (True, False)))
    ]

    whole, least = auto[1024**2]
    assert whole > 6000 * MIB
    assert least == 416 * MIB
    assert always[1024**2] == (least, least)
    assert never[1024**2] == (whole, whole)


def test_only_where_tiles_help_is_the_need_told(models: Path) -> None:
    """A picture within one tile takes the same either way."""
    told = estimate.vae_bytes(SdOptions.model_validate(sd_files.options(models)))

    assert told(512 * 512) is None
    assert (told(528 * 512) or 0) > 400 * MIB


@pytest.mark.parametrize(
    ("option", "asked", "meant"),
    [
        ("auto", None, "open"),
        ("auto", True, "tiles"),
        ("auto", False, "whole"),
        (True, None, "tiles"),
        (False, None, "whole"),
    ],
)
def test_who_asks_for_tiles_or_for_none_gets_them(
    option: object, asked: object, meant: str
) -> None:
    """What is left open is for the engine's thread to decide, which sees what is free."""
    options = SdOptions.model_validate({"vae_tiling": option})
    model = replace(KLEIN, options=options, vae_bytes=lambda pixels: 1000 * pixels)

    job = planned(model, vae_tiling=asked, size="64x64").job

    decided = "tiles" if job.vae_tiling else "whole"
    assert (decided if job.vae_bytes is None else "open") == meant


def test_room_is_what_the_weights_leave() -> None:
    """Who counts nothing sets no limit, and where weights alone are too much there is no room."""
    held = room.Room(held_bytes=1000)

    assert held.left_bytes(None) is None
    assert held.left_bytes("none") is None
    assert held.left_bytes("900") == 0
    assert held.left_bytes("1900") == 900


async def test_a_worker_is_told_what_it_could_have_and_not_what_it_needed(tmp_path: Path) -> None:
    """What smaller pictures took before says nothing of what there is for a larger one."""
    entry = {"echo": {}, "memory": {"host": "64MiB"}}
    counted = {"device": "cpu", "host": {"memory": "2GiB"}, "models": {"mirror": entry}}

    async with served(json.dumps(counted), tmp_path) as hotseat:
        heard = (await hotseat.get("/upstream/mirror/heard")).body
        charge = await charge_of(hotseat, "mirror", "host")

    assert charge < 2048 * MIB
    assert [room.HEADER, str(2048 * MIB)] in heard["headers"]


@pytest.mark.engine
@pytest.mark.timeout(60)
async def test_a_worker_without_room_begins_in_tiles(models: Path) -> None:
    """It is decided before the first step, and logged with the numbers."""
    async with logged(sd_files.options(models)) as (worker, log):
        headers = {room.HEADER: "1"}
        async with worker.session.post(
            GENERATIONS, json=LONG | SIZE | {"stream": True}, headers=headers
        ) as answer:
            told = await log.has(IN_TILES)
            await log.has("generating image")
            first = await answer.content.readline()

    assert "decoding takes about 495 MiB, and there are 0" in told
    assert first == b"event: image_generation.progress\n"


@pytest.mark.engine
@pytest.mark.timeout(90)
async def test_a_budget_too_small_for_the_whole_asks_for_tiles(
    models: Path, tmp_path: Path
) -> None:
    """The model is charged with what tiles take, and paints so, where it had to be refused."""
    models_of = {"painter": {"sd": sd_files.options(models)}}
    config = {"device": "cpu", "host": {"memory": "800MiB"}, "models": models_of}
    async with served(json.dumps(config), tmp_path) as hotseat:
        body = LONG | {"model": "painter", "stream": True, "size": "768x768"}
        async with hotseat.session.post(GENERATIONS, json=body) as answer:
            async for line in answer.content:
                if line.startswith(b"event:"):
                    break
            charge = await charge_of(hotseat, "painter", "host")
        logs = (await hotseat.get("/logs")).body

    assert line == b"event: image_generation.progress\n"
    assert 500 * MIB < charge <= 800 * MIB
    assert IN_TILES in logs
