"""SillyTavern: it puts its own path in the place of any other, and asks for every list."""

from __future__ import annotations

import asyncio

import pytest

from tests.clients.drawn import decoded
from tests.proxy.painted import until
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
SETTINGS = {
    "url": "http://localhost:7860",
    "auth": "",
    "prompt": "a red circle",
    "seed": 5,
    "negative_prompt": "grey",
    "sampler_name": "Euler a",
    "scheduler": "karras",
    "steps": 2,
    "cfg_scale": 7,
    "width": 64,
    "height": 96,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "None",
    "hr_scale": 2,
    "hr_second_pass_steps": 0,
    "denoising_strength": 0.7,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "do_not_save_grid": False,
}
"""All that it has of settings goes out, its own too."""
LISTS = {
    "sd-models": "title",
    "samplers": "name",
    "schedulers": "name",
    "upscalers": "name",
    "latent-upscale-modes": "name",
    "sd-vae": "model_name",
}
"""Lists, and what is read of each entry."""


async def test_every_list_can_be_read(hotseat: Hotseat) -> None:
    """By the names that it looks for; some are empty."""
    told = {
        path: [one[key] for one in (await hotseat.get(f"/sdapi/v1/{path}")).body]
        for path, key in LISTS.items()
    }

    assert told["sd-models"] == ["painter"]
    assert {"Euler a", "DPM++ 2M"} <= {*told["samplers"]}
    assert "karras" in told["schedulers"]
    assert told["upscalers"] == ["None"]


async def test_a_model_is_chosen_and_loads_at_once(hotseat: Hotseat) -> None:
    """It asks about progress until nothing is under way any more: that is so from the start."""
    chosen = await hotseat.post("/sdapi/v1/options", json={"sd_model_checkpoint": "painter"})
    progress = (await hotseat.get("/sdapi/v1/progress")).body

    assert chosen.status == 200
    assert (progress["progress"], progress["state"]["job_count"]) == (0, 0)


async def test_a_picture_by_all_of_its_settings(hotseat: Hotseat) -> None:
    """Those that mean nothing here pass."""
    first = await hotseat.post("/sdapi/v1/txt2img", json=SETTINGS)
    again = await hotseat.post("/sdapi/v1/txt2img", json=SETTINGS)
    other = await hotseat.post("/sdapi/v1/txt2img", json={**SETTINGS, "sampler_name": "Heun"})
    images = [one.body["images"][0] for one in (first, again, other)]

    assert decoded(images[0]).size == (64, 96)
    assert images[0] == images[1] != images[2]


async def test_who_gives_up_interrupts_and_leaves(hotseat: Hotseat) -> None:
    """Both at once; the next picture is the right one."""
    plain = await hotseat.post("/sdapi/v1/txt2img", json=SETTINGS)
    long = {**SETTINGS, "width": 256, "height": 256, "steps": 100}
    async with asyncio.TaskGroup() as tasks:
        painting = tasks.create_task(hotseat.post("/sdapi/v1/txt2img", json=long))
        await until(hotseat, "/sdapi/v1/progress", lambda told: told["state"]["sampling_step"])
        interrupted = tasks.create_task(hotseat.post("/sdapi/v1/interrupt"))
        painting.cancel()
    idle = await until(hotseat, "/sdapi/v1/progress", lambda told: not told["state"]["job_count"])
    after = await hotseat.post("/sdapi/v1/txt2img", json=SETTINGS)

    assert interrupted.result().status == 200
    assert idle["current_image"] is None
    assert after.body["images"] == plain.body["images"]
