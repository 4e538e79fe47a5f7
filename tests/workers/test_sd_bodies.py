"""What requests may say: every name of every field, JSON inside prompts, bounds; no engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.workers import sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.test_sd_plan import KLEIN, UNET, planned
from workers import pictures, wire
from workers.sd import a1111, answers, bodies, plan
from workers.sd.options import SdOptions

PICTURE = data_uri(encoded(sd_files.scene((96, 64), "blue")))


def extra(block: object, prompt: str = "a cat") -> str:
    return f"{prompt} <sd_cpp_extra_args>{json.dumps(block)}</sd_cpp_extra_args>"


def img2img(**body: Any) -> bodies.Asked:
    return a1111.img2img(json.dumps({"init_images": [PICTURE]} | body).encode())


@pytest.mark.parametrize(
    ("field", "names", "value", "meant"),
    [
        ("n", ["n", "batch_size"], 3, 3),
        ("steps", ["steps", "num_inference_steps"], "7", 7),
        ("guidance_scale", ["guidance_scale", "guidance", "distilled_cfg_scale"], 2, 2.0),
        (
            "sample_method",
            ["sample_method", "sampler_name", "sampler", "sampler_index"],
            "Euler a",
            "Euler a",
        ),
        ("strength", ["strength", "denoising_strength"], 0.5, 0.5),
        ("image", ["image", "images", "image[]"], "QQ==", ["QQ=="]),
        ("vae_tiling", ["vae_tiling"], "true", True),
        ("flow_shift", ["flow_shift"], 3, 3.0),
        ("clip_skip", ["clip_skip"], 2, 2),
    ],
)
def test_every_name_of_a_field(field: str, names: list[str], value: object, meant: object) -> None:
    """A field is read under each of its names, and a null counts as not given."""
    for name in names:
        body = bodies.ImageBody.model_validate({"prompt": "a", name: value})
        empty = bodies.ImageBody.model_validate({"prompt": "a", name: None})

        assert getattr(body, field) == meant
        assert getattr(empty, field) == bodies.ImageBody.model_fields[field].get_default(
            call_default_factory=True
        )


def test_json_inside_a_prompt_is_read() -> None:
    """The block is taken out of the prompt, and its nested names are ours."""
    block = {
        "seed": 5,
        "batch_count": 2,
        "sample_params": {
            "sample_steps": 9,
            "sample_method": "heun",
            "guidance": {"txt_cfg": 3.5, "distilled_guidance": 2},
        },
        "vae_tiling_params": {"enabled": True},
        "lora": [{"path": "x", "multiplier": 0.5}],
        "unknown": {"thing": 1},
    }
    body = bodies.ImageBody.model_validate({"prompt": extra(block)})

    assert (body.prompt, body.seed, body.n, body.steps) == ("a cat", 5, 2, 9)
    assert (body.sample_method, body.cfg_scale, body.guidance_scale) == ("heun", 3.5, 2)
    assert body.vae_tiling is True
    assert [(lora.name, lora.weight) for lora in body.loras] == [("x", 0.5)]


def test_fields_win_over_json_inside_a_prompt() -> None:
    """What stands at the top is meant, under whichever of its names."""
    block = {"seed": 5, "sample_params": {"sample_steps": 9, "sample_method": "heun"}}
    body = bodies.ImageBody.model_validate(
        {"prompt": extra(block), "num_inference_steps": 4, "sampler": "euler", "seed": None}
    )

    assert (body.steps, body.sample_method, body.seed) == (4, "euler", 5)


@pytest.mark.parametrize("block", ["{", "[1]", '{"sample_params": {"sample_steps": "many"}}'])
def test_broken_json_inside_a_prompt_is_told(block: str) -> None:
    """A block that cannot be read is a mistake, and is not painted."""
    raw = json.dumps({"prompt": f"a <sd_cpp_extra_args>{block}</sd_cpp_extra_args>"})

    with pytest.raises(wire.ApiError) as told:
        wire.parse_body(raw, bodies.ImageBody)
    assert told.value.status == 400


def test_a_sample_method_may_bring_its_scheduler() -> None:
    """`DPM++ 2M Karras` names two things; a scheduler that stands alone wins."""
    both = planned(KLEIN, sampler_name="DPM++ 2M Karras").job
    own = planned(KLEIN, sampler_name="DPM++ 2M Karras", scheduler="simple").job
    single = planned(KLEIN, sampler_name="Euler a").job

    assert (both.sample_method, both.scheduler) == ("dpm++2m", "karras")
    assert (own.sample_method, own.scheduler) == ("dpm++2m", "simple")
    assert (single.sample_method, single.scheduler) == ("euler_a", None)


def test_tiling_is_the_request_s_or_the_option_s() -> None:
    """A request may ask for tiles, or for none where the option has them."""
    tiled = replace(KLEIN, options=SdOptions(vae_tiling=True))

    asked = [planned(model).job.vae_tiling for model in (KLEIN, tiled)]
    told = [planned(KLEIN, vae_tiling=True), planned(tiled, vae_tiling=False)]

    assert asked == [False, True]
    assert [made.job.vae_tiling for made in told] == [True, False]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_pictures_of_any_format(kind: str) -> None:
    """A picture is edited whatever its format, turned upright, and answered in its size."""
    turned = Image.Exif()
    turned[pictures.EXIF_ORIENTATION] = 6
    how = {} if kind == "GIF" else {"exif": turned.tobytes()}
    raw = encoded(sd_files.scene((96, 64), "blue"), kind, **how)
    asked = bodies.Asked(bodies.ImageBody(prompt="a"), (raw,), None)

    made = plan.make(asked, UNET)

    assert made.answer_size == ((96, 64) if kind == "GIF" else (64, 96))
    assert made.job.init is not None
    middle = made.job.init.getpixel((made.job.width // 2, made.job.height // 2))
    assert middle[2] > 200
    assert middle[0] < 60


@pytest.mark.parametrize(
    ("options", "body", "images", "param"),
    [
        ({"max_prompt_chars": 3}, {"prompt": "four"}, 0, "prompt"),
        ({"max_prompt_chars": 3}, {"negative_prompt": "four"}, 0, "negative_prompt"),
        ({"max_images": 1}, {}, 2, "image"),
        ({"max_image_pixels": 4095}, {}, 1, "image"),
        ({"max_n": 2}, {"n": 3}, 0, "n"),
        ({"max_steps": 2}, {"steps": 3}, 0, "steps"),
        ({"max_pixels": 4096}, {"size": "64x80"}, 0, "size"),
        ({"max_pixels": 4096}, {"size": "64x64", "height": 80}, 0, "height"),
    ],
)
def test_bounds_are_the_options(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, int],
    body: dict[str, Any],
    images: int,
    param: str,
) -> None:
    """One more than swap.yaml allows is refused by the name of the field; as many is not."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the bound sets it
    model = replace(KLEIN, options=SdOptions.model_validate(options))
    looser = {name: value + 1 for name, value in options.items()}
    if "max_pixels" in options:
        looser = {"max_pixels": 64 * 80}
    shown = [sd_files.scene()] * images

    with pytest.raises(wire.ApiError) as told:
        planned(model, *shown, **body)
    assert (told.value.status, told.value.param) == (400, param)
    assert planned(replace(model, options=SdOptions.model_validate(looser)), *shown, **body)


def test_resize_modes() -> None:
    """A picture of another aspect is stretched, cropped, or shown whole."""
    inits = {
        mode: plan.make(img2img(resize_mode=mode, width=64, height=64), UNET).job.init
        for mode in (0, 1, 2)
    }

    assert {init.size for init in inits.values()} == {(64, 64)}
    # the blue square lies in the middle half of the picture, and white around it
    assert [inits[mode].getpixel((14, 32))[0] for mode in (0, 1)] == [255, 0]
    above_the_whole = (32, 18)
    assert [inits[mode].getpixel(above_the_whole)[0] for mode in (0, 2)] == [0, 255]


@pytest.mark.parametrize(
    ("mask", "invert", "meant"),
    [
        (Image.new("L", (8, 8), 255), 0, 255),
        (Image.new("L", (8, 8), 255), 1, 0),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 0, 0),
        (Image.new("RGBA", (8, 8), (255, 255, 255, 255)), 0, 255),
    ],
)
def test_masks_of_a1111_are_not_openais(mask: Image.Image, invert: int, meant: int) -> None:
    """Here what is transparent stays, where OpenAI has it painted anew."""
    asked = img2img(mask=data_uri(encoded(mask)), mask_blur=0, inpainting_mask_invert=invert)

    painted = plan.make(asked, UNET).job.mask
    assert painted is not None
    assert painted.getpixel((0, 0)) == meant


def test_a_black_picture_is_warned_about() -> None:
    """An answer with nothing to see says so; others have no such field."""
    made = planned(KLEIN)
    body = bodies.ImageBody(prompt="a")
    black, fine = [
        answers.encode(image, body, made, 1)
        for image in (Image.new("RGB", (64, 64)), sd_files.scene())
    ]

    assert "black" in answers.answer(body, made, [fine, black])["warnings"][0]
    assert "warnings" not in answers.answer(body, made, [fine])


def test_a_variation_needs_no_words() -> None:
    """It paints anew over its picture, so that it stays alike."""
    body = bodies.VariationBody.model_validate({"n": "2"})
    raw = encoded(sd_files.scene())

    made = plan.make(bodies.Asked(body, (raw,), None), KLEIN)

    assert (made.job.prompt, len(made.seeds)) == ("", 2)
    assert made.job.init is not None
    assert 0 < made.job.strength < 1
