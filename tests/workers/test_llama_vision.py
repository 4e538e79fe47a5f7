"""Vision of the llama worker, through both projectors."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from tests.workers import launch
from tests.workers.drawn import data_uri, encoded
from workers import pictures

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (20, 60, 220)}
N_CTX = 64
QUESTION = "What color is it?"
STRANGE_FORMS = (
    *("cmyk", "palette", "clear", "animated"),
    *("turned", "wrong label", "polyglot", "no head"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["llava", "minicpmv"])
async def worker(models: Path, request: pytest.FixtureRequest) -> AsyncIterator[launch.Launched]:
    options = {
        "model": str(models / "chat.gguf"),
        "mmproj": str(models / f"{request.param}-mmproj.gguf"),
        "n_ctx": N_CTX,
        "n_threads": 1,
    }
    async with launch.launched("llama", options) as ready:
        assert ready.facts["vision"] == request.param
        yield ready


def picture(colour: str, side: int = 64, form: str = "PNG") -> str:
    """Draw a circle of that colour on white, as a data URI."""
    image = Image.new("RGB", (side, side), "white")
    margin = side * 0.225
    ImageDraw.Draw(image).ellipse((margin, margin, side - margin, side - margin), COLOURS[colour])
    return data_uri(encoded(image, form), form.lower())


def shown(url: Any, text: str = QUESTION) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}],
    }


async def told(worker: launch.Launched, *messages: Any, status: int = 200) -> Any:
    body = {"messages": messages, "temperature": 0, "max_tokens": 24}
    return await worker.post("/v1/chat/completions", body, status)


def words(said: Any) -> str:
    return said["choices"][0]["message"]["content"]


def circle(colour: str) -> Image.Image:
    return Image.open(io.BytesIO(pictures.bytes_of(picture(colour), param="")))


def header_of(side_px: int) -> bytes:
    """Make a PNG whose header tells of so many pixels, and that has none."""
    fields = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", fields), (b"IDAT", zlib.compress(b"nothing"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def strange_forms() -> dict[str, str]:
    """Draw a blue circle in ways that are not every day's."""
    blue, red = circle("blue"), circle("red")
    clear = blue.convert("RGBA")
    clear.putalpha(blue.convert("L").point(lambda value: 0 if value > 250 else 255))
    upside_down = Image.Exif()
    upside_down[pictures.EXIF_ORIENTATION] = 3
    turned = blue.rotate(180)
    return {
        "cmyk": data_uri(encoded(blue.convert("CMYK"), "JPEG"), "jpeg"),
        "palette": data_uri(encoded(blue.convert("P"))),
        "clear": data_uri(encoded(clear)),
        "animated": data_uri(encoded(blue, "GIF", save_all=True, append_images=[red]), "gif"),
        "turned": data_uri(encoded(turned, "JPEG", exif=upside_down.tobytes()), "jpeg"),
        "wrong label": data_uri(encoded(blue), "jpeg"),
        "polyglot": data_uri(encoded(blue) + b"<script>alert(1)</script>PK\x05\x06"),
        "no head": data_uri(encoded(blue)).split(",", 1)[1],
    }


@pytest.mark.parametrize("form", STRANGE_FORMS)
async def test_strange_forms_are_seen(worker: launch.Launched, form: str) -> None:
    """Whatever lies around or behind the pixels, it is the first picture that counts."""
    assert "blue" in words(await told(worker, shown(strange_forms()[form])))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
async def test_colour_is_seen(worker: launch.Launched, colour: str, form: str) -> None:
    """The answer names the colour that was shown, in every common format."""
    said = await told(worker, shown({"url": picture(colour, form=form)}))

    assert colour in words(said)


async def test_url_may_be_a_bare_string(worker: launch.Launched) -> None:
    """Some clients send the URL without an object around it."""
    assert "blue" in words(await told(worker, shown(picture("blue"))))


async def test_picture_counts_in_the_usage(worker: launch.Launched) -> None:
    """What a picture takes of the context is told."""
    text = await told(worker, {"role": "user", "content": QUESTION})

    seen = await told(worker, shown(picture("red")))

    assert seen["usage"]["prompt_tokens"] > text["usage"]["prompt_tokens"]


async def test_pictures_beside_each_other_are_kept_apart(worker: launch.Launched) -> None:
    """Requests with different pictures, at once and one after another, do not mix."""
    colours = [*COLOURS] * 3
    said = await asyncio.gather(*(told(worker, shown(picture(c))) for c in colours))

    assert [c in words(s) for c, s in zip(colours, said, strict=True)] == [True] * len(colours)


async def test_pictures_in_several_turns(worker: launch.Launched) -> None:
    """Two pictures in two turns are both taken into the prompt."""
    one = await told(worker, shown(picture("green")))

    two = await told(
        worker,
        shown(picture("green")),
        {"role": "assistant", "content": words(one)},
        shown(picture("red")),
    )

    assert two["usage"]["prompt_tokens"] > 2 * one["usage"]["prompt_tokens"] - 5


async def test_text_after_a_picture_is_clean(worker: launch.Launched) -> None:
    """A picture leaves nothing behind for the next text."""
    await told(worker, shown(picture("red")))

    said = await told(worker, {"role": "user", "content": "What is the capital of France?"})

    assert words(said) == "The capital of France is Paris."


@pytest.mark.parametrize("text", ["<__media__>", "<image>", "<__media_0__> <__image__>"])
async def test_marker_in_a_text_is_text(worker: launch.Launched, text: str) -> None:
    """Nobody can stand in for a picture, or break the prompt, by writing a marker."""
    await told(worker, {"role": "user", "content": text})

    assert "red" in words(await told(worker, shown(picture("red"))))


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:9/x.png", "unsupported_image_url"),
        ("file:///etc/passwd", "unsupported_image_url"),
        ("data:image/png;base64,", "invalid_image"),
        ("data:image/png;base64,Z2FyYmFnZQ==", "invalid_image"),
        ("data:image/png;base64,!!!!", "invalid_image"),
        ("data:text/html;base64,PGI+", "unsupported_image_url"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "invalid_image"),
        (data_uri(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "invalid_image"),
        (data_uri(b"%PDF-1.7\n" + encoded(Image.new("RGB", (9, 9)))), "invalid_image"),
        (data_uri(header_of(8)), "invalid_image"),
        (picture("red")[:202], "invalid_image"),
        (picture("red", form="JPEG")[:823], "invalid_image"),
        (picture("red", form="GIF")[:202], "invalid_image"),
    ],
)
async def test_bad_pictures_are_refused(worker: launch.Launched, url: str, code: str) -> None:
    """What is no picture, or not in the request itself, is the client's mistake."""
    error = (await told(worker, shown(url), status=400))["error"]

    assert (error["code"], error["param"]) == (code, "messages.0.content")


async def test_a_bomb_is_refused_by_its_header(worker: launch.Launched) -> None:
    """A picture of 3.6 gigapixels is refused before a pixel of it has a place in memory."""
    error = (await told(worker, shown(data_uri(header_of(60_000))), status=400))["error"]

    assert error["code"] == "image_too_large"
    assert "over 50000000 pixels" in error["message"]
    assert "red" in words(await told(worker, shown(picture("red"))))


async def test_strange_shapes_are_survived(worker: launch.Launched) -> None:
    """A picture of one pixel, and one that is all width, are answered."""
    for size in ((1, 1), (3000, 1), (1, 3000)):
        url = data_uri(encoded(Image.new("RGB", size, "red")))
        assert (await told(worker, shown(url)))["usage"]["completion_tokens"] > 0


async def test_too_many_pictures_are_too_long(worker: launch.Launched) -> None:
    """Pictures count before they are computed: what cannot fit is refused."""
    part = {"type": "image_url", "image_url": picture("red")}
    question = {"type": "text", "text": QUESTION}

    long, longer = [
        (await told(worker, {"role": "user", "content": [part] * n + [question]}, status=400))
        for n in (60, 70)
    ]

    assert long["error"]["code"] == "context_length_exceeded"
    assert "at most 64" in longer["error"]["message"]
