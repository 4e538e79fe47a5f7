"""How a request becomes a picture to paint: sizes, names and roles, without any engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.workers import sd_files
from tests.workers.drawn import encoded
from workers import pictures
from workers.files import Header
from workers.sd import bodies, checks, families, plan, samplers
from workers.sd.loras import weights_of
from workers.sd.options import SdOptions

KLEIN = plan.Model(
    SdOptions(), families.FLUX2_KLEIN, references=True, weights=weights_of(Header({}), [])
)
UNET = replace(KLEIN, family=families.SD1, references=False)
DEV = replace(KLEIN, family=families.FLUX_DEV, references=False)


def planned(
    model: plan.Model, *images: Image.Image, mask: Image.Image | None = None, **body: Any
) -> plan.Plan:
    asked = bodies.Asked(
        bodies.ImageBody.model_validate({"prompt": "a"} | body),
        tuple(encoded(image) for image in images),
        None if mask is None else encoded(mask),
    )
    return plan.make(asked, model)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({}, (1024, 1024)),
        ({"size": "auto"}, (1024, 1024)),
        ({"size": "512x768"}, (512, 768)),
        ({"size": "512x768", "width": 256}, (256, 768)),
        ({"size": "100X33"}, (112, 48)),
    ],
)
def test_sizes(body: dict[str, Any], size: tuple[int, int]) -> None:
    """`width` and `height` win over `size`; all are rounded up to what the engine paints."""
    made = planned(KLEIN, **body)

    assert (made.job.width, made.job.height) == size == made.answer_size


def test_a_large_photo_is_edited_smaller_and_answered_in_its_size() -> None:
    """The model paints about twice its usual area at most."""
    made = planned(UNET, sd_files.scene((3000, 2000)))

    assert made.answer_size == (3000, 2000)
    assert made.job.width * made.job.height < 2.2 * 512 * 512
    assert (made.job.width % 64, made.job.height % 64) == (0, 0)
    assert made.finished(Image.new("RGB", (640, 448))).size == (3000, 2000)


def test_guidance_scale_means_what_the_family_has() -> None:
    """It is the distilled guidance of FLUX.1-dev, and cfg elsewhere."""
    dev, klein = planned(DEV, guidance_scale=2.0), planned(KLEIN, guidance_scale=2.0)

    assert (dev.job.cfg_scale, dev.job.guidance) == (1.0, 2.0)
    assert (klein.job.cfg_scale, klein.job.guidance) == (2.0, None)


def test_defaults_come_from_options_then_family() -> None:
    """What a request leaves open is decided by swap.yaml, else by the family."""
    options = SdOptions.model_validate({"defaults": {"steps": 9, "negative_prompt": "ugly"}})

    made = planned(replace(UNET, options=options))

    assert (made.job.steps, made.job.negative_prompt) == (9, "ugly")
    assert made.job.cfg_scale == 7.0


def test_roles_of_pictures() -> None:
    """References where the model takes them; with strength or a mask the first is painted over."""
    one, two = sd_files.scene(), sd_files.scene(colour="blue")

    looked_at = planned(KLEIN, one, two).job
    painted_over = planned(KLEIN, one, two, strength=0.5).job
    masked = planned(KLEIN, one, two, mask=Image.new("L", (64, 64))).job
    unet = planned(UNET, one).job

    assert (looked_at.init, len(looked_at.references)) == (None, 2)
    assert painted_over.init is not None
    assert len(painted_over.references) == 1
    assert masked.mask is not None
    assert (masked.strength, len(masked.references)) == (1.0, 2)
    assert unet.init is not None
    assert (unet.strength, unet.references) == (0.75, ())


def test_a_mask_without_transparency_is_read_by_brightness() -> None:
    """White is painted anew, as other programs have it; transparent, as OpenAI has it."""
    bright = pictures.to_mask(Image.new("RGB", (1, 1), "white"))
    clear = pictures.to_mask(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))

    assert bright.getpixel((0, 0)) == clear.getpixel((0, 0)) == 255


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("Euler a", "euler_a"),
        ("k_euler_a", "euler_a"),
        ("DPM++ 2M", "dpm++2m"),
        ("DDIM", "ddim_trailing"),
        ("default", None),
        (None, None),
    ],
)
def test_sample_methods_by_other_names(name: str | None, engines: str | None) -> None:
    """What other programs call a sample method is known."""
    assert samplers.sample_method(name) == engines


def test_kontext_is_told_by_its_name() -> None:
    """FLUX Kontext has the tensors of FLUX.1-dev; the file's name or an option tells."""
    by_name = SdOptions(diffusion_model="flux1-kontext-dev-Q4.gguf")
    plain = SdOptions(diffusion_model="flux1-dev-Q4.gguf")
    by_option = SdOptions(diffusion_model="flux1-dev-Q4.gguf", references=True)

    found = [checks.references(o, families.FLUX_DEV) for o in (by_name, plain, by_option)]

    assert found == [True, False, True]


@pytest.mark.parametrize(
    "loras", ['[{"path": "a", "multiplier": 0.5}]', '{"name": "a", "scale": 0.5}']
)
def test_loras_as_text_of_a_form(loras: str) -> None:
    """A form can only send text, so JSON in it is read."""
    body = bodies.ImageBody.model_validate({"prompt": "a", "lora": loras})

    assert [(entry.name, entry.weight) for entry in body.loras] == [("a", 0.5)]
