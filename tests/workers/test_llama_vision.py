"""Vision of the llama worker, through both projectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from tests.workers import launch
from tests.workers.drawn import data_uri, encoded

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (20, 60, 220)}
N_CTX = 64
QUESTION = "What color is it?"


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


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
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
        (picture("red")[:202], "invalid_image"),
    ],
)
async def test_bad_pictures_are_refused(worker: launch.Launched, url: str, code: str) -> None:
    """What is no picture, or not in the request itself, is the client's mistake."""
    error = (await told(worker, shown(url), status=400))["error"]

    assert (error["code"], error["param"]) == (code, "messages.0.content")


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
