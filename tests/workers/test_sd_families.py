"""Every field of a request acts, with three real families: FLUX.1, FLUX.2-klein and SD1.5."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import sd_families, sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.launch import Launched, launched
from tests.workers.sd_files import difference, scene

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

GENERATIONS = "/v1/images/generations"
# for two passes a step, as other values of cfg want, SD1.5 takes twice its time
PLAIN: Mapping[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 2, "cfg_scale": 1}
RED, BLUE = (data_uri(encoded(scene(colour=colour))) for colour in ("red", "blue"))
FAMILIES = ("flux1", "klein", "sd15")

Change = dict[str, Any]


def klein(folder: Path, models: Path) -> dict[str, Any]:
    """Give the options of the tiny set that the demo has, with a second LoRA."""
    loras = folder / "loras"
    loras.mkdir()
    swap = (models / "image/loras/swap.safetensors").read_bytes()
    (loras / "one.safetensors").write_bytes(swap)
    shapes = sd_files.lora_shapes("diffusion_model.txt_in", 128, 32)
    sd_files.write_safetensors(loras / "two.safetensors", shapes)
    return sd_files.options(models, lora_dir=str(loras))


MAKERS: Mapping[str, Callable[[Path, Path], dict[str, Any]]] = {
    "flux1": lambda folder, _: sd_families.flux1(folder),
    "klein": klein,
    "sd15": lambda folder, _: sd_families.sd15(folder),
}


class Studio:
    """A worker that paints, and what it painted before."""

    def __init__(self, worker: Launched) -> None:
        self._worker = worker
        self._painted: dict[str, Image.Image] = {}

    async def paint(self, **body: Any) -> Image.Image:
        """Paint a picture, whether it was painted before or not."""
        answer = await self._worker.post(GENERATIONS, PLAIN | body)
        raw = base64.b64decode(answer["data"][0]["b64_json"])
        return Image.open(io.BytesIO(raw)).convert("RGB")

    async def painted(self, **body: Any) -> Image.Image:
        """Give the picture of a request, which is painted once."""
        key = repr(sorted(body.items()))
        if key not in self._painted:
            self._painted[key] = await self.paint(**body)
        return self._painted[key]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FAMILIES)
async def studio(request: pytest.FixtureRequest, models: Path) -> AsyncIterator[Studio]:
    with tempfile.TemporaryDirectory() as folder:  # two of them are of 76 MB
        options = MAKERS[request.param](Path(folder), models)
        async with launched("sd", options) as worker:
            yield Studio(worker)


# a picture of two steps is painted over in one of them below half a strength, else in both
OVER: Change = {"image": RED, "strength": 0.4}
ANYWHERE: list[tuple[Change, Change]] = [
    ({}, {"seed": 8}),
    ({}, {"prompt": "a blue square"}),
    ({}, {"steps": 3}),
    ({}, {"cfg_scale": 3}),
    ({"cfg_scale": 3}, {"negative_prompt": "a blue square"}),
    ({}, {"sample_method": "lcm"}),
    ({"steps": 3}, {"scheduler": "karras"}),  # of two steps all schedulers make the same
    ({}, {"loras": ["one"]}),
    ({"loras": ["one"]}, {"loras": [{"name": "one", "weight": 0.3}]}),
    ({"loras": ["one"]}, {"loras": ["one", "two"]}),
    (OVER, {"image": BLUE}),
    (OVER, {"strength": 0.9}),
]
BY_REFERENCE: list[tuple[Change, Change]] = [
    ({}, {"image": RED}),
    ({"image": RED}, {"image": BLUE}),
    ({"image": RED}, {"image": [RED, BLUE]}),
]
CASES: Mapping[str, list[tuple[Change, Change]]] = {
    "flux1": [*ANYWHERE, *BY_REFERENCE, ({}, {"guidance_scale": 1}), ({}, {"flow_shift": 7})],
    "klein": [*ANYWHERE, *BY_REFERENCE],  # it reckons its shift by itself, from the size
    "sd15": [*ANYWHERE, ({}, {"clip_skip": 2}), ({}, {"guidance_scale": 2, "cfg_scale": None})],
}


def named(case: object) -> str | None:
    """Name a case by its fields, and not by whole pictures."""
    return "+".join(case) if isinstance(case, dict) else None


@pytest.mark.parametrize(
    ("studio", "ground", "change"),
    [(family, *case) for family in FAMILIES for case in CASES[family]],
    indirect=["studio"],
    scope="module",
    ids=named,
)
async def test_a_field_changes_the_picture(studio: Studio, ground: Change, change: Change) -> None:
    """Of two requests that differ in one field alone, the pixels differ."""
    without = await studio.painted(**ground)

    changed = await studio.painted(**ground | change)

    assert changed.size == without.size
    assert changed.tobytes() != without.tobytes()


def inside(block: object) -> Change:
    """Say it inside the prompt, and nowhere else."""
    text = f"a red circle <sd_cpp_extra_args>{json.dumps(block)}</sd_cpp_extra_args>"
    return {"prompt": text, "steps": None, "cfg_scale": None, "seed": None}


NOT_CFG: Change = {"cfg_scale": None}
KARRAS: Change = {"steps": 3, "sample_method": "lcm", "scheduler": "karras"}
OTHER_WORDS: list[tuple[Change, Change]] = [
    ({"steps": 3}, {"steps": None, "num_inference_steps": 3}),
    *(
        ({"cfg_scale": 3}, NOT_CFG | {name: 3})
        for name in ("guidance_scale", "guidance", "distilled_cfg_scale")
    ),
    *(
        ({"sample_method": "lcm"}, {name: value})
        for name, value in (
            ("sampler_name", "LCM"),
            ("sampler", "k_lcm"),
            ("sampler_index", "lcm"),
        )
    ),
    (KARRAS, {"steps": 3, "sampler_name": "LCM Karras"}),
    ({"loras": ["one"]}, {"lora": "one"}),
    ({"loras": ["one"]}, {"lora": {"path": "one.safetensors", "multiplier": 1}}),
    ({"loras": ["one"]}, {"prompt": "a red <lora:one> circle"}),
    (OVER, {"image": RED, "denoising_strength": 0.4}),
    ({"image": [RED]}, {"images": [{"image_url": RED}]}),
    (
        KARRAS | {"cfg_scale": 3, "negative_prompt": "a blue square", "seed": 9},
        inside(
            {
                "seed": 9,
                "negative_prompt": "a blue square",
                "sample_params": {
                    "sample_steps": 3,
                    "sample_method": "lcm",
                    "scheduler": "karras",
                    "guidance": {"txt_cfg": 3},
                },
            }
        ),
    ),
    (
        OVER | {"loras": ["one"]},
        inside(
            {
                "seed": 7,
                "init_image": RED,
                "strength": 0.4,
                "lora": [{"path": "one", "multiplier": 1}],
                "sample_params": {"sample_steps": 2, "guidance": {"txt_cfg": 1}},
            }
        ),
    ),
    ({"image": RED}, inside({"ref_images": [RED], "steps": 2, "cfg_scale": 1, "seed": 7})),
    ({"size": "96x64"}, inside({"width": 96, "height": 64, "steps": 2, "seed": 7})),
]


@pytest.mark.parametrize(
    ("studio", "ours", "theirs"),
    [("klein", *case) for case in OTHER_WORDS],
    indirect=["studio"],
    scope="module",
    ids=named,
)
async def test_other_words_mean_the_same(studio: Studio, ours: Change, theirs: Change) -> None:
    """A field under another name, or inside the prompt, makes the very same picture."""
    as_ours = await studio.painted(**ours)

    assert (await studio.painted(**theirs)).tobytes() == as_ours.tobytes()


async def test_the_same_request_gives_the_same_bytes(studio: Studio) -> None:
    """Whatever was painted before, LoRAs and pictures among it, leaves no trace."""
    first = await studio.painted()
    await studio.painted(loras=["one"])

    again = await studio.paint()

    assert again.tobytes() == first.tobytes()


@pytest.mark.parametrize("asked", [{"size": "128x64"}, {"size": "64x64", "height": 128}])
async def test_the_decoded_picture_has_the_asked_size(studio: Studio, asked: Change) -> None:
    """Width and height are not mixed up; they win over `size`."""
    picture = await studio.painted(steps=1, **asked)

    assert picture.size == ((128, 64) if "height" not in asked else (64, 128))


async def test_a_mask_keeps_what_is_outside(studio: Studio) -> None:
    """Outside of it no pixel changes; inside they do."""
    image = scene((64, 64), "blue")
    mask = Image.new("RGBA", image.size, (0, 0, 0, 255))
    left, right = (0, 0, 32, 64), (32, 0, 64, 64)
    mask.paste((0, 0, 0, 0), left)

    painted = await studio.paint(
        image=data_uri(encoded(image)), mask=data_uri(encoded(mask)), strength=1
    )

    assert painted.crop(right).tobytes() == image.crop(right).tobytes()
    assert difference(painted.crop(left), image.crop(left)) > 5
