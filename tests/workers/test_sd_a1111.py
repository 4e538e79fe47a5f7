"""AUTOMATIC1111's bodies and answers, with the real engine; and the listing of LoRAs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.launch import Launched, launched
from tests.workers.sd_files import difference, scene

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
LEFT_HALF, RIGHT_HALF = (0, 0, 48, 64), (48, 0, 96, 64)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Launched]:
    folder = tmp_path_factory.mktemp("loras")
    (folder / "sub").mkdir()
    module = "diffusion_model.txt_in"
    shapes = sd_files.lora_shapes(module, 128, 32)
    sd_files.write_safetensors(folder / "sub" / "strong.safetensors", shapes)
    sd_files.write_safetensors(folder / "odd.safetensors", sd_files.lora_shapes(module, 128, 48))
    async with launched("sd", sd_files.options(models, lora_dir=str(folder))) as launch:
        yield launch


async def draw(worker: Launched, path: str = TXT2IMG, **body: Any) -> dict[str, Any]:
    return await worker.post(path, {"prompt": "a red circle", "seed": 7} | body)


def images_of(answer: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(raw))) for raw in answer["images"]]


async def test_txt2img_paints_what_generations_paints(worker: Launched) -> None:
    """The settings mean the same under their names of either kind."""
    theirs = await draw(
        worker,
        steps=3,
        cfg_scale=2,
        sampler_name="Euler a",
        scheduler="Automatic",
        negative_prompt="blue",
        width=96,
        height=64,
    )
    ours = await worker.post(
        "/v1/images/generations",
        {
            "prompt": "a red circle",
            "seed": 7,
            "steps": 3,
            "cfg_scale": 2,
            "sample_method": "euler_a",
            "negative_prompt": "blue",
            "size": "96x64",
        },
    )

    assert theirs["images"] == [ours["data"][0]["b64_json"]]


async def test_info_is_a_json_string(worker: Launched) -> None:
    """Clients parse it for the size, the seed and the text of the PNG."""
    answer = await draw(worker, batch_size=2, n_iter=1, width=96, height=64, seed=20)
    info = json.loads(answer["info"])

    assert (info["width"], info["height"], info["seed"]) == (96, 64, 20)
    assert info["all_seeds"] == [20, 21]
    assert info["infotexts"] == [image.info["parameters"] for image in images_of(answer)]
    assert answer["parameters"]["batch_size"] == 2


async def test_what_a_user_interface_sends_is_tolerated(worker: Launched) -> None:
    """Fields that mean nothing here, nulls and an empty prompt are no mistakes."""
    answer = await draw(
        worker,
        prompt="",
        negative_prompt="",
        sampler_name="",
        sampler_index=None,
        enable_hr=False,
        hr_upscaler="Latent",
        denoising_strength=0.7,
        override_settings={"sd_model_checkpoint": "x", "CLIP_stop_at_last_layers": 2},
        restore_faces=False,
        styles=[],
        url="http://127.0.0.1:7860",
        auth="",
        batch_size=1,
        seed=-1,
    )

    assert [image.size for image in images_of(answer)] == [(64, 64)]
    assert json.loads(answer["info"])["clip_skip"] == 2


async def test_img2img_keeps_size_and_nearness(worker: Launched) -> None:
    """Little denoising stays near to the picture; the answer has its size."""
    image = scene((70, 50))
    near, far = [
        images_of(
            await draw(
                worker,
                IMG2IMG,
                init_images=[base64.b64encode(encoded(image)).decode()],
                denoising_strength=strength,
                steps=8,
            )
        )[0]
        for strength in (0.05, 1.0)
    ]

    assert near.size == image.size
    assert difference(near, image) < difference(far, image)


@pytest.mark.parametrize("invert", [False, True])
async def test_a_mask_is_white_where_it_is_painted(worker: Launched, invert: bool) -> None:  # noqa: FBT001
    """White is painted anew, and black stays; inverted, the other way round."""
    image = scene((96, 64), "blue")
    mask = Image.new("L", image.size)
    mask.paste(255, LEFT_HALF)
    answer = await draw(
        worker,
        IMG2IMG,
        init_images=[data_uri(encoded(image))],
        mask=data_uri(encoded(mask)),
        mask_blur=0,
        inpainting_mask_invert=int(invert),
        denoising_strength=1,
    )

    [painted] = images_of(answer)
    stays, changes = (LEFT_HALF, RIGHT_HALF) if invert else (RIGHT_HALF, LEFT_HALF)
    assert difference(painted.crop(stays), image.crop(stays)) < 1
    assert difference(painted.crop(changes), image.crop(changes)) > 5


async def test_img2img_needs_a_picture(worker: Launched) -> None:
    """Without a picture it would paint something else than was asked for."""
    told = await worker.post(IMG2IMG, {"prompt": "a"}, status=400)

    assert told["error"]["param"] == "init_images"


async def test_loras_are_listed_with_their_fit(worker: Launched) -> None:
    """Each LoRA of the folder is told, and why one cannot be used."""
    async with worker.session.get("/loras") as answer:
        odd, strong = await answer.json()

    assert (odd["name"], odd["fits"]) == ("odd", False)
    assert "txt_in" in odd["reason"]
    assert strong == {
        "name": "sub/strong",
        "path": "sub/strong.safetensors",
        "fits": True,
        "reason": None,
    }


async def test_a_listed_path_can_be_asked_for(worker: Launched) -> None:
    """What `/sdapi/v1/loras` lists fits the model, and its path is a name."""
    async with worker.session.get("/sdapi/v1/loras") as answer:
        [lora] = await answer.json()
    plain = await draw(worker)
    painted = await draw(worker, lora=[{"path": lora["path"], "multiplier": 0.5}])

    assert lora["alias"] == lora["name"] == "sub/strong"
    assert images_of(plain)[0].tobytes() != images_of(painted)[0].tobytes()


async def test_a_lora_put_there_later_is_known(models: Path, tmp_path: Path) -> None:
    """The folder is looked at anew each time; a near miss is told the right name."""
    async with launched("sd", sd_files.options(models, lora_dir=str(tmp_path))) as worker:
        shapes = sd_files.lora_shapes("diffusion_model.txt_in", 128, 32)
        sd_files.write_safetensors(tmp_path / "watercolour.safetensors", shapes)
        told = await worker.post(TXT2IMG, {"prompt": "a", "lora": "watercolor"}, status=404)
        async with worker.session.get("/loras") as answer:
            listed = await answer.json()

    assert "did you mean 'watercolour'" in told["error"]["message"]
    assert [lora["name"] for lora in listed] == ["watercolour"]


@pytest.mark.filterwarnings("ignore:deprecated")  # the SDK calls it so
async def test_variations_are_like_their_picture(worker: Launched) -> None:
    """OpenAI's variations need a picture and no prompt, and resemble the picture."""
    image = scene()
    answer = await worker.openai().images.create_variation(
        image=("a.png", encoded(image), "image/png"), n=2, extra_body={"seed": "5", "steps": "8"}
    )

    made = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in answer.data]
    assert made[0].tobytes() != made[1].tobytes()
    blue = Image.new("RGB", image.size, "blue")
    assert all(difference(one, image) < difference(one, blue) for one in made)


async def test_a_variation_needs_a_picture(worker: Launched) -> None:
    """Without one there is nothing to vary."""
    told = await worker.post("/v1/images/variations", {"prompt": "a"}, status=400)

    assert told["error"]["param"] == "image"


async def test_an_empty_prompt_is_refused_where_openai_does(worker: Launched) -> None:
    """A prompt that was all extra arguments is empty as well."""
    prompt = '<sd_cpp_extra_args>{"seed": 1}</sd_cpp_extra_args>'
    told = await worker.post("/v1/images/generations", {"prompt": prompt}, status=400)

    assert told["error"]["param"] == "prompt"


async def test_extra_arguments_reach_the_engine(worker: Launched) -> None:
    """What stands in the prompt paints what the fields paint."""
    block = {"seed": 7, "sample_params": {"sample_steps": 3}}
    by_prompt = await worker.post(
        "/v1/images/generations",
        {"prompt": f"a red circle<sd_cpp_extra_args>{json.dumps(block)}</sd_cpp_extra_args>"},
    )
    by_field = await draw(worker, steps=3)

    assert by_field["images"] == [by_prompt["data"][0]["b64_json"]]
