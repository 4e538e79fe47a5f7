"""Jobs and AUTOMATIC1111's face with an engine that paints."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from pathlib import Path

import pytest

from tests.proxy.painted import PAINTER, followed, until
from tests.proxy.served import Hotseat, served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CONFIG = (
    PAINTER
    + """
models:
  painter:
    sd:
      <<: *painter
      lora_dir: {models}/image/loras
      defaults: {{width: 64, height: 64, steps: 4}}
"""
)
ASKED = {
    "prompt": "a red circle",
    "negative_prompt": "",
    "seed": 5,
    "steps": 2,
    "width": 64,
    "height": 64,
    "batch_size": 1,
    "sampler_name": "Euler a",
}
JOB = {
    "model": "painter",
    "prompt": "a red circle",
    "steps": 20,
    "size": "64x64",
    "n": 2,
    "seed": 1,
    "response_format": "url",
}
PNG = b"\x89PNG"


@pytest.fixture
def config(models: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the config of a tiny painter; threads that wait must not spin on two busy cores."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return CONFIG.format(models=models)


async def png_info(hotseat: Hotseat, image: str) -> str:
    told = await hotseat.post("/sdapi/v1/png-info", json={"image": image})
    assert told.status == 200, told.body
    info: str = told.body["info"]
    return info


async def test_a_client_of_automatic1111_paints_without_naming_a_model(
    config: str, tmp_path: Path
) -> None:
    """As Open WebUI does: options, then txt2img; `info` is JSON in a text, the PNG tells more."""
    async with served(config, tmp_path) as hotseat:
        options = (await hotseat.get("/sdapi/v1/options")).body
        await hotseat.post("/sdapi/v1/options", json=options)
        answer = await hotseat.post("/sdapi/v1/txt2img", json=ASKED)
        assert answer.status == 200, answer.body
        [image] = answer.body["images"]
        loras = (await hotseat.get("/sdapi/v1/loras")).body
        told = await png_info(hotseat, image)

    assert options["sd_model_checkpoint"] == "painter"
    assert base64.b64decode(image).startswith(PNG)
    assert json.loads(answer.body["info"])["seed"] == 5
    assert told.startswith("a red circle\n")
    assert "Seed: 5" in told
    assert [one["name"] for one in loras] == ["swap"]


async def test_a_job_paints_while_nobody_is_there(config: str, tmp_path: Path) -> None:
    """Its steps are told, and its picture is fetched by a link, once it is done."""
    async with served(config, tmp_path) as hotseat:
        accepted = await hotseat.post("/v1/images/generations?async=1", json=JOB)
        told = await followed(hotseat, accepted.body["id"])
        result = await hotseat.get(told[-1]["result"])
        pictures = []
        for one in result.body["data"]:
            async with hotseat.session.get(one["url"]) as response:
                pictures.append(await response.read())

    steps = [one["progress"]["step"] for one in told if one["progress"]]
    assert told[-1]["status"] == "done"
    assert max(steps) > 0
    assert {one["progress"]["steps"] for one in told if one["progress"]} == {20}
    assert [picture[:4] for picture in pictures] == [PNG, PNG]
    assert pictures[0] != pictures[1]


async def test_an_interrupt_ends_what_is_painted(config: str, tmp_path: Path) -> None:
    """Who waits is told in words, and the worker lives on for the next."""
    body = {"prompt": "x", "width": 256, "height": 256, "steps": 100}
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        painting = tasks.create_task(hotseat.post("/sdapi/v1/txt2img", json=body))
        told = await until(
            hotseat, "/sdapi/v1/progress", lambda told: told["state"]["sampling_step"] > 0
        )
        interrupted = await hotseat.post("/sdapi/v1/interrupt")
        answer = await painting
        again = await hotseat.post("/sdapi/v1/txt2img", json=ASKED)

    assert 0 < told["progress"] < 1
    assert interrupted.status == 200
    assert (answer.status, answer.error["code"]) == (499, "cancelled")
    assert again.status == 200


async def test_a_stream_of_pictures_goes_on_without_its_client(
    config: str, tmp_path: Path
) -> None:
    """Who stays hears it as it comes, beginning with how the load goes; who comes back, all."""
    body = {**JOB, "n": 1, "steps": 8, "stream": True, "partial_images": 1}
    body = {**body, "response_format": None, "on_disconnect": "finish"}
    headers = {"X-Hotseat-Job": "mine"}
    async with served(config, tmp_path) as hotseat:
        async with hotseat.session.post(
            "/v1/images/generations", json=body, headers=headers
        ) as response:
            first = await response.content.readline()
            response.close()
        told = await followed(hotseat, "mine")
        result = await hotseat.get("/api/jobs/mine/result")
        patient = await hotseat.post("/v1/images/generations", json=body)

    kinds = [line for line in result.body.splitlines() if line.startswith("event:")]
    assert first.startswith(b": queue 1")
    assert told[-1]["status"] == "done"
    assert "event: image_generation.partial_image" in kinds
    assert kinds[-1] == "event: image_generation.completed"
    assert "event: image_generation.completed" in patient.body


async def test_the_openai_client_gets_pictures_in_every_way(config: str, tmp_path: Path) -> None:
    """Links, a stream, an edit and a variation of what was painted."""
    async with served(config, tmp_path) as hotseat:
        images = hotseat.openai().images
        paint = partial(images.generate, model="painter", prompt="a red circle", size="64x64")
        linked = await paint(response_format="url")
        async with hotseat.session.get(linked.data[0].url) as response:
            picture = await response.read()
        stream = await paint(stream=True, partial_images=1)
        kinds = [event.type async for event in stream]
        edited = await images.edit(
            model="painter", image=picture, prompt="a blue circle", response_format="b64_json"
        )
        with pytest.warns(
            DeprecationWarning, match="deprecated"
        ):  # openai's own models have it no more
            vary = images.create_variation(model="painter", image=picture, response_format="url")
        varied = await vary

    assert picture.startswith(PNG)
    assert kinds[-1] == "image_generation.completed"
    assert base64.b64decode(edited.data[0].b64_json).startswith(PNG)
    assert varied.data[0].url.startswith(f"{hotseat.url}/v1/images/results/")
