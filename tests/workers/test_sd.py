"""The sd worker over its socket, with the real engine and the tiny image model."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.launch import Launched, launched
from tests.workers.sd_files import SIDE_PX, difference, scene

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Launched]:
    """One worker for all tests here: none may leave a trace in it."""
    folder = tmp_path_factory.mktemp("loras")
    module = "diffusion_model.txt_in"
    sd_files.write_safetensors(
        folder / "strong.safetensors", sd_files.lora_shapes(module, 128, 32)
    )
    sd_files.write_safetensors(folder / "odd.safetensors", sd_files.lora_shapes(module, 128, 48))
    async with launched("sd", sd_files.options(models, lora_dir=str(folder))) as launch:
        yield launch


async def ask(
    worker: Launched, path: str = "/v1/images/generations", **body: Any
) -> dict[str, Any]:
    """Ask for pictures by JSON; gives the whole answer."""
    body = {"prompt": "a red circle", "seed": 7} | body
    return await worker.post(path, body)


def image_of(answer: dict[str, Any], number: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["data"][number]["b64_json"])))


def first(answer: dict[str, Any]) -> str:
    return answer["data"][0]["b64_json"]


def pixels(answer: dict[str, Any], number: int = 0) -> bytes:
    """Give what can be seen: the file also tells the settings, and differs for them alone."""
    return image_of(answer, number).tobytes()


async def refused(worker: Launched, path: str = "/v1/images/generations", **body: Any) -> dict:
    """Ask for what is refused; gives the error."""
    body = {"prompt": "a red circle"} | body
    return (await worker.post(path, body, status=400))["error"]


async def test_openai_client_gets_a_png_of_the_asked_size(worker: Launched) -> None:
    """The SDK's images.generate gives a PNG, with all of its fields tolerated."""
    answer = await worker.openai().images.generate(
        model="gpt-image-1",
        prompt="a red circle",
        size="96x64",
        n=1,
        quality="auto",
        background="auto",
        moderation="low",
        style=None,
        user="someone",
        response_format="b64_json",
    )

    image = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    assert (image.format, image.size) == ("PNG", (96, 64))
    assert answer.data[0].url is None
    assert answer.size == "96x64"


async def test_the_prompt_is_obeyed(worker: Launched) -> None:
    """A red circle is red in its middle, and white around."""
    image = image_of(await ask(worker, size="128x128", steps=8, seed=3))

    red, green, blue = image.getpixel((64, 64))
    assert red > 150
    assert max(green, blue) < 100
    assert min(image.getpixel((2, 2))) > 200


async def test_the_ready_line_tells_of_the_model(worker: Launched) -> None:
    """Facts name the family and its size, and progress was told before."""
    assert worker.facts["family"] == "flux2-klein"
    assert worker.facts["references"] is True
    assert worker.facts["size"] == "64x64"
    assert any(status.get("progress", 0) > 0 for status in worker.statuses)


async def test_the_same_seed_gives_the_same_bytes(worker: Launched) -> None:
    """A seed decides the picture, another seed gives another one."""
    one, same, other = [await ask(worker, seed=seed) for seed in (3, 3, 4)]

    assert first(one) == first(same)
    assert pixels(one) != pixels(other)


async def test_no_seed_is_random_and_told(worker: Launched) -> None:
    """Without a seed every picture is new, and can be made again by what the answer tells."""
    one, other = [await ask(worker, seed=None) for _ in range(2)]
    again = await ask(worker, seed=one["data"][0]["seed"])

    assert one["seed"] != other["seed"]
    assert first(one) == first(again)


async def test_an_ancestral_sampler_makes_noise(worker: Launched) -> None:
    """euler_a is not euler: its eta is the engine's own and not 0."""
    euler, ancestral = [
        await ask(worker, steps=4, sample_method=name) for name in ("euler", "euler_a")
    ]

    assert pixels(euler) != pixels(ancestral)


@pytest.mark.parametrize(("asked", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
async def test_output_formats(worker: Launched, asked: str, kind: str) -> None:
    """The picture comes in the asked format, and the answer names it."""
    answer = await ask(worker, output_format=asked, output_compression=80)

    assert kind == image_of(answer).format
    assert asked == answer["output_format"]


async def test_compression_makes_smaller_files(worker: Launched) -> None:
    """`output_compression` is the quality of JPEG and WebP."""
    small, large = [
        await ask(worker, output_format="jpeg", output_compression=quality) for quality in (5, 95)
    ]

    assert len(first(small)) < len(first(large))


async def test_url_is_a_data_url(worker: Launched) -> None:
    """`response_format: url` gives a data: URL and no b64_json beside it."""
    answer = await ask(worker, response_format="url")

    assert answer["data"][0]["url"].startswith("data:image/png;base64,")
    assert "b64_json" not in answer["data"][0]


async def test_a_png_tells_how_it_was_made(worker: Launched) -> None:
    """The text chunk has the prompt, the seed and the settings."""
    text = image_of(await ask(worker, seed=11, steps=3)).info["parameters"]

    assert text.startswith("a red circle\n")
    assert "Steps: 3" in text
    assert "Seed: 11" in text


async def test_n_pictures_differ(worker: Launched) -> None:
    """Two pictures of one request have two seeds."""
    answer = await ask(worker, n=2, seed=20)

    assert [entry["seed"] for entry in answer["data"]] == [20, 21]
    assert pixels(answer, 0) != pixels(answer, 1)


async def test_odd_sizes_are_rounded_up_and_told(worker: Launched) -> None:
    """The engine paints multiples of 16 only; the answer has the real size."""
    answer = await ask(worker, width=50, height=33)

    assert answer["size"] == "64x48"
    assert image_of(answer).size == (64, 48)


async def test_a_json_image_is_an_edit(worker: Launched) -> None:
    """An `image` in a generations request is a reference, and the answer has its size."""
    red, blue = [
        await ask(worker, image=data_uri(encoded(scene((70, 50), colour))))
        for colour in ("red", "blue")
    ]

    assert image_of(red).size == (70, 50)
    assert pixels(red) != pixels(blue)


async def test_references_change_the_picture(worker: Launched) -> None:
    """An edit looks at its picture: another picture, another answer."""
    client = worker.openai()
    answers = [
        await client.images.edit(
            model="x",
            image=("a.png", encoded(scene(colour=colour)), "image/png"),
            prompt="make it green",
            extra_body={"seed": "5", "steps": "2"},
        )
        for colour in ("red", "blue")
    ]

    assert answers[0].data[0].b64_json != answers[1].data[0].b64_json


async def test_several_references(worker: Launched) -> None:
    """The SDK sends a list as repeated `image[]`, and all of them are looked at."""
    one, two = encoded(scene()), encoded(scene(colour="blue"))
    client = worker.openai()
    alone, both = [
        await client.images.edit(model="x", image=images, prompt="a", extra_body={"seed": "5"})
        for images in ([one], [one, two])
    ]

    assert alone.data[0].b64_json != both.data[0].b64_json


async def test_strength_says_how_much_is_painted_anew(worker: Launched) -> None:
    """With little strength the answer stays nearer to the picture than with much."""
    image = scene()
    near, far = [
        image_of(
            await ask(
                worker, "/v1/images/edits", image=data_uri(encoded(image)), strength=s, steps=8
            )
        )
        for s in (0.05, 1.0)
    ]

    assert difference(near, image) < difference(far, image)


async def test_a_transparent_mask_is_painted_anew(worker: Launched) -> None:
    """OpenAI's masks: transparent changes, opaque stays."""
    image = scene((96, 64), "blue")
    mask = Image.new("RGBA", image.size, (0, 0, 0, 255))
    left_half = (0, 0, 48, 64)
    mask.paste((0, 0, 0, 0), left_half)
    answer = await worker.openai().images.edit(
        model="x",
        image=("a.png", encoded(image), "image/png"),
        mask=("m.png", encoded(mask), "image/png"),
        prompt="a red circle",
        extra_body={"seed": "5"},
    )

    painted = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    right_half = (48, 0, 96, 64)
    assert difference(painted.crop(right_half), image.crop(right_half)) < 1
    assert difference(painted.crop(left_half), image.crop(left_half)) > 5


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "LA", "1", "I;16"])
async def test_pictures_of_any_mode(worker: Launched, mode: str) -> None:
    """Grey, palette, CMYK and 16-bit pictures are edited like any other."""
    image = scene().convert("L").convert(mode) if mode != "P" else scene().quantize()
    raw = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    form = aiohttp.FormData({"prompt": "a red circle"})
    form.add_field("image", raw, filename="a", content_type="image/png")
    async with worker.session.post("/images/edits", data=form) as answer:
        assert answer.status == 200, await answer.text()
        assert image_of(await answer.json()).size == (SIDE_PX, SIDE_PX)


async def test_a_lora_changes_the_picture_and_is_gone_afterwards(worker: Launched) -> None:
    """The weights are as before after a LoRA was used, by field and by tag."""
    before = await ask(worker)
    by_field = await ask(worker, loras=[{"name": "strong", "weight": 0.5}])
    by_tag = await ask(worker, prompt="a red circle <lora:strong:0.5>")
    after = await ask(worker)

    assert first(before) == first(after)
    assert image_of(by_field).tobytes() == image_of(by_tag).tobytes()
    assert image_of(by_field).tobytes() != image_of(before).tobytes()


@pytest.mark.parametrize("name", ["none", "../../image/loras/swap", "/etc/passwd"])
async def test_an_unknown_lora_is_404(worker: Launched, name: str) -> None:
    """Names outside the folder are as unknown as any; the error lists the known ones."""
    body = {"prompt": "a", "loras": [{"name": name}]}
    async with worker.session.post("/v1/images/generations", json=body) as answer:
        told = (await answer.json())["error"]

    assert (answer.status, told["code"]) == (404, "lora_not_found")
    assert "strong" in told["message"]


async def test_a_lora_of_another_model_is_refused(worker: Launched) -> None:
    """It would abort the engine, so it is held against the model before."""
    error = await refused(worker, lora="odd")

    assert error["code"] == "lora_mismatch"


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("prompt", ""),
        ("prompt", "   "),
        ("prompt", "x" * 8001),
        ("prompt", "a\0b"),
        ("prompt", 5),
        ("negative_prompt", "x" * 8001),
        ("n", 0),
        ("n", 11),
        ("n", "many"),
        ("size", "huge"),
        ("size", "8x8"),
        ("size", "99999x99999"),
        ("size", "4096x16"),
        ("width", -5),
        ("steps", 0),
        ("steps", 1001),
        ("cfg_scale", "NaN"),
        ("cfg_scale", -1),
        ("strength", 1.5),
        ("seed", -2),
        ("seed", 1 << 63),
        ("sample_method", "magic"),
        ("scheduler", "magic"),
        ("clip_skip", 99),
        ("output_format", "gif"),
        ("output_compression", 101),
        ("response_format", "carrier pigeon"),
        ("image", "https://example.com/a.png"),
        ("image", "data:image/png;base64,AAAA"),
        ("image", data_uri(encoded(Image.new("RGB", (1000, 10))))),
    ],
)
async def test_bad_parameters_are_400(worker: Launched, param: str, value: object) -> None:
    """Each wrong value is told under its name, and the worker lives on."""
    error = await refused(worker, **{param: value})

    assert param == error["param"]
    assert error["type"] == "invalid_request_error"
    assert worker.process.returncode is None


@pytest.mark.parametrize("prompt", ["a <lora:x:1>" * 17, "a <lora:x:9999>"])
async def test_tags_are_bounded_as_the_field_is(worker: Launched, prompt: str) -> None:
    """LoRA tags in the prompt may not be more, or weigh more, than entries of `loras` may."""
    error = await refused(worker, prompt=prompt)

    assert "at most" in error["message"]
    assert error["param"] == "loras"


async def test_unknown_samplers_are_answered_with_the_known(worker: Launched) -> None:
    """The error for an unknown name lists what may be asked for."""
    error = await refused(worker, sample_method="magic")

    assert "dpm++2m" in error["message"]


ODD_ENCODING = b"""--x\r
Content-Disposition: form-data; name="prompt"\r
Content-Transfer-Encoding: odd\r
\r
x\r
--x--\r
"""


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"{", "application/json"),
        (b'{"prompt": "\\ud800"}', "application/json"),
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"abc", "multipart/form-data"),
        (ODD_ENCODING, "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\xfe\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
async def test_broken_bodies_are_400(worker: Launched, raw: bytes, kind: str) -> None:
    """A body that cannot be read is the client's mistake."""
    headers = {"Content-Type": kind}
    async with worker.session.post("/v1/images/edits", data=raw, headers=headers) as answer:
        told = await answer.json()

    assert answer.status == 400, told


async def test_an_edit_needs_an_image(worker: Launched) -> None:
    """An edit without a picture says what to send."""
    with pytest.raises(openai.BadRequestError, match="needs a picture"):
        await worker.openai().post("/images/edits", body={"prompt": "a"}, cast_to=object)


async def test_a_mask_needs_an_image(worker: Launched) -> None:
    """A mask alone is refused rather than ignored."""
    error = await refused(worker, mask=data_uri(encoded(scene())))

    assert error["param"] == "image"


async def test_props_tell_what_may_be_asked_for(worker: Launched) -> None:
    """Sizes, samplers, schedulers, LoRAs and the family are listed."""
    async with worker.session.get("/props") as answer:
        props = await answer.json()

    assert props["family"] == "flux2-klein"
    assert props["size_multiple"] == 16
    assert props["loras"] == ["odd", "strong"]
    assert "euler_a" in props["sample_methods"]
    assert "karras" in props["schedulers"]


async def test_requests_take_turns(worker: Launched) -> None:
    """Several at once are painted one after the other, each the picture it would be alone."""
    alone = [first(await ask(worker, seed=seed)) for seed in range(3)]
    together = await asyncio.gather(*(ask(worker, seed=seed) for seed in range(3)))

    assert alone == [first(answer) for answer in together]
