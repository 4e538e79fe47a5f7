"""AUTOMATIC1111's face at the root: its clients name a model once, and then no more."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.routes.a1111 import SAMPLERS, SCHEDULERS
from proxy.routes.pngtext import SIGNATURE, TEXT_BYTES, texts_of
from tests.proxy.served import Answer, Gate, Hotseat, served
from workers.echo.face import PIXEL_PNG
from workers.sd import samplers

CONFIG = """
models:
  chat: {llama: {model: missing.gguf}}
  first: {echo: {}}
  second: {aliases: [other], echo: {}}
  hidden: {unlisted: true, echo: {}}
"""


async def heard(hotseat: Hotseat, path: str, **body: Any) -> dict[str, Any]:
    """Tell which body reached a worker."""
    answer = await hotseat.post(path, json=body)
    assert answer.status == 200, answer.body
    assert answer.body["path"] == path
    told: dict[str, Any] = json.loads(base64.b64decode(answer.body["body"]))
    return told


async def choose(hotseat: Hotseat, name: object) -> Answer:
    """Send all options back, as clients do, with another checkpoint."""
    options = (await hotseat.get("/sdapi/v1/options")).body
    return await hotseat.post("/sdapi/v1/options", json={**options, "sd_model_checkpoint": name})


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/sdapi/v1/img2img"])
async def test_who_names_no_model_gets_the_checkpoint(tmp_path: Path, path: str) -> None:
    """The first that paints, then the one that was chosen; one in the body wins."""
    async with served(CONFIG, tmp_path) as hotseat:
        first = await heard(hotseat, path, prompt="x")
        chosen = await choose(hotseat, "second")
        second = await heard(hotseat, path, prompt="x", model=None)
        named = await heard(hotseat, path, model="first")
        overridden = await heard(
            hotseat, path, override_settings={"sd_model_checkpoint": "hidden"}
        )
        running = await hotseat.running()

    assert first == {"prompt": "x", "model": "first"}
    assert (chosen.status, chosen.body) == (200, None)
    assert second["model"] == "second"
    assert named == {"model": "first"}
    assert overridden["model"] == "hidden"
    assert list(running) == ["hidden"]


async def test_a_checkpoint_is_an_option(tmp_path: Path) -> None:
    """By id or alias; an unknown one changes nothing, and no other option does."""
    async with served(CONFIG, tmp_path) as hotseat:
        listed = (await hotseat.get("/sdapi/v1/sd-models")).body
        other = await choose(hotseat, "other")
        lost = await choose(hotseat, "secnd")
        odd = await choose(hotseat, 7)
        await hotseat.post("/sdapi/v1/options", json={"sd_vae": "x"})
        options = (await hotseat.get("/sdapi/v1/options")).body
        again = (await hotseat.get("/sdapi/v1/sd-models")).body

    assert [one["title"] for one in listed] == ["first", "second"]
    assert [one["title"] for one in again] == ["first", "second", "other"]
    assert (other.status, odd.status) == (200, 400)
    assert (lost.status, lost.error["code"]) == (404, "model_not_found")
    assert "second" in lost.error["message"]
    assert options["sd_model_checkpoint"] == "other"


async def test_without_a_model_that_paints_there_is_no_checkpoint(tmp_path: Path) -> None:
    """That is told as a missing model."""
    async with served("models: {chat: {llama: {model: no.gguf}}}", tmp_path) as hotseat:
        options = (await hotseat.get("/sdapi/v1/options")).body
        answer = await hotseat.post("/sdapi/v1/txt2img", json={"prompt": "x"})

    assert options["sd_model_checkpoint"] is None
    assert (answer.status, answer.error["code"]) == (400, "missing_model")


async def test_lists_are_told_without_a_worker(tmp_path: Path) -> None:
    """In the shapes that clients read."""
    async with served(CONFIG, tmp_path) as hotseat:
        told = {
            name: (await hotseat.get(f"/sdapi/v1/{name}")).body
            for name in (
                *("samplers", "schedulers", "upscalers"),
                *("latent-upscale-modes", "sd-vae", "loras"),
            )
        }
        running = await hotseat.running()

    assert {"Euler a", "DPM++ 2M"} <= {one["name"] for one in told["samplers"]}
    assert {"karras", "automatic"} <= {one["name"] for one in told["schedulers"]}
    assert [one["name"] for one in told["upscalers"]] == ["None"]
    assert told["latent-upscale-modes"] == told["sd-vae"] == told["loras"] == []
    assert running == {}


def test_the_worker_knows_every_name_that_is_listed() -> None:
    """All of the engine's are among them."""
    methods = [samplers.sample_method(n) for name, more in SAMPLERS.items() for n in (name, *more)]
    schedulers = [samplers.scheduler(name) for pair in SCHEDULERS.items() for name in pair]

    assert set(methods) == set(samplers.SAMPLE_METHODS)
    assert set(schedulers) == {None, *samplers.SCHEDULERS}


async def test_loras_are_those_in_the_folder_just_now(tmp_path: Path) -> None:
    """Of the model that is named, else of the checkpoint; which fit only its worker can tell."""
    config = "models: {paint: {sd: {model: no.gguf, lora_dir: loras}}}"
    folder = tmp_path / "loras" / "style"
    async with served(config, tmp_path) as hotseat:
        before = (await hotseat.get("/sdapi/v1/loras")).body
        folder.mkdir(parents=True)
        (folder / "ink.safetensors").touch()
        (folder / "read.me").touch()
        after = (await hotseat.get("/sdapi/v1/loras?model=paint")).body
        entry = (await hotseat.get("/v1/models/paint")).body

    assert before == []
    ink = dict.fromkeys(("name", "alias", "path"), "style/ink")
    assert after == [{**ink, "metadata": {}, "fits": None}]
    assert entry["loras"] == [{"name": "style/ink", "fits": None}]


async def test_progress_is_that_of_the_picture_that_is_painted(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nothing while nothing runs; the picture so far can be left out."""
    held = gate()
    progress = {"step": 1, "steps": 4, "image": 2, "images": 2, "eta_s": 3, "preview": "aGk="}
    body = {
        "model": "first",
        "prompt": "x",
        "echo": {"gate": str(held.path), "progress": progress},
    }
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        idle = (await hotseat.get("/sdapi/v1/progress")).body
        painting = tasks.create_task(hotseat.post("/v1/images/generations", json=body))
        await held.reached()
        told = (await hotseat.get("/sdapi/v1/progress")).body
        bare = (await hotseat.get("/sdapi/v1/progress?skip_current_image=true")).body
        held.open()
        await painting

    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    assert (told["progress"], told["eta_relative"]) == (0.625, 3)
    assert told["state"]["job_count"] == 1
    assert (told["state"]["sampling_step"], told["state"]["sampling_steps"]) == (1, 4)
    assert (told["current_image"], bare["current_image"]) == ("aGk=", None)


async def test_an_interrupt_of_nothing_is_well(tmp_path: Path) -> None:
    """With or without a body."""
    async with served(CONFIG, tmp_path) as hotseat:
        bare = await hotseat.post("/sdapi/v1/interrupt")
        empty = await hotseat.post("/sdapi/v1/interrupt", json={})

    assert (bare.status, bare.body, empty.status) == (200, {}, 200)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


async def test_a_png_tells_how_it_was_made(tmp_path: Path) -> None:
    """All of its texts, in every way that a PNG may hold them."""
    pixel = base64.b64decode(PIXEL_PNG)
    packed = zlib.compress("grün".encode())
    raw = (
        *(SIGNATURE, chunk(b"tEXt", b"parameters\0a cat\nSteps: 4")),
        *(chunk(b"zTXt", b"z\0\0" + zlib.compress(b"zipped")), chunk(b"zTXt", b"bad\0\0x")),
        *(chunk(b"iTXt", b"i\0\1\0de\0\0" + packed), pixel.removeprefix(SIGNATURE)),
    )
    image = base64.b64encode(b"".join(raw)).decode()
    async with served(CONFIG, tmp_path) as hotseat:
        told = await hotseat.post("/sdapi/v1/png-info", json={"image": image})
        uri = await hotseat.post(
            "/sdapi/v1/png-info", json={"image": f"data:image/png;base64,{PIXEL_PNG}"}
        )
        wrong = [
            await hotseat.post("/sdapi/v1/png-info", json={"image": image})
            for image in (None, "!", "aGk=", base64.b64encode(raw[0] + raw[1][:9]).decode())
        ]

    assert told.body["info"] == "a cat\nSteps: 4"
    assert told.body["items"] == {"parameters": "a cat\nSteps: 4", "z": "zipped", "i": "grün"}
    assert (uri.body["info"], uri.body["items"]) == ("", {})
    assert [(one.status, one.error["param"]) for one in wrong] == [(400, "image")] * 4


def test_a_bomb_is_no_text() -> None:
    """What unpacks to more than a text may have is left out."""
    bomb = io.BytesIO(zlib.compress(b"x" * (TEXT_BYTES + 1))).getvalue()

    assert texts_of(SIGNATURE + chunk(b"zTXt", b"k\0\0" + bomb)) == {}


def test_many_texts_are_no_more_than_one() -> None:
    """However many chunks there are: each byte unpacked is counted."""
    packed = zlib.compress(b"x" * (TEXT_BYTES // 4))
    many = b"".join(chunk(b"zTXt", b"%d\0\0" % n + packed) for n in range(40))

    assert list(texts_of(SIGNATURE + many)) == ["0", "1", "2", "3"]
