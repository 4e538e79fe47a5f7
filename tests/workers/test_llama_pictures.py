"""Chats with several pictures: in any turn, kept from turn to turn, within the options' bounds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import launch, llava16, patched
from tests.workers.drawn import data_uri, encoded
from tests.workers.llama_talk import ask
from tests.workers.test_llama_vision import COLOURS, QUESTION, picture, shown, told, words
from workers.llama.formats import CHATML

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

PAIRS = [("red", "blue"), ("blue", "red"), ("green", "blue"), ("blue", "green")]
TILES_PX = [(96, 192), (192, 96), (192, 192), (96, 288), (288, 96)]


def options(models: Path, projector: str, **more: Any) -> dict[str, Any]:
    files = {"model": str(models / "chat.gguf"), "mmproj": str(models / f"{projector}.gguf")}
    return files | {"n_ctx": 512, "n_threads": 1} | more


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["llava", "minicpmv"])
async def worker(models: Path, request: pytest.FixtureRequest) -> AsyncIterator[launch.Launched]:
    async with launch.launched("llama", options(models, f"{request.param}-mmproj")) as ready:
        yield ready


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(models: Path) -> AsyncIterator[launch.Launched]:
    """Serve with low bounds, without a cache of pictures, with a template by its name."""
    bounds = {"max_image_pixels": 10_000, "max_images": 2, "max_request_pixels": 12_000}
    more = {"image_cache_mib": 0, "chat_template": "chatml", "n_ctx": 40}
    async with launch.launched("llama", options(models, "minicpmv-mmproj", **bounds, **more)) as w:
        yield w


def a_new_picture(side: int = 64) -> str:
    """Draw a red field that no other test has drawn."""
    red = (220, random.randrange(40), random.randrange(40))  # noqa: S311  # only to be new
    image = Image.new("RGB", (side, side), red)
    image.putpixel((0, 0), (random.randrange(256), random.randrange(256), 7))  # noqa: S311
    return data_uri(encoded(image))


def several(*urls: str, text: str = QUESTION, role: str = "user") -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


async def counts(worker: launch.Launched) -> tuple[int, int]:
    """Tell how many pictures were decoded, and how many slices encoded, so far."""
    async with worker.session.get("/props") as answer:
        found = (await answer.json())["counts"]
    return found["images_decoded"], found["slices_encoded"]


@pytest.mark.parametrize("colour", COLOURS)
async def test_openai_python_sees(worker: launch.Launched, colour: str) -> None:
    """The answer names the colour, and the usage tells what the picture took."""
    answer = await worker.openai().chat.completions.create(
        model="tiny", messages=[shown({"url": picture(colour)})], temperature=0
    )

    assert colour in answer.choices[0].message.content
    assert answer.usage.prompt_tokens_details.image_tokens == 1
    assert answer.usage.prompt_tokens > 1


@pytest.mark.parametrize("colour", COLOURS)
async def test_openai_python_sees_in_a_stream(worker: launch.Launched, colour: str) -> None:
    """A stream says the same word by word, and its last chunk has the same usage."""
    stream = await worker.openai().chat.completions.create(
        model="tiny",
        messages=[shown({"url": picture(colour)})],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert colour in text
    assert last.usage.prompt_tokens_details.image_tokens == 1


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_the_last_turn_is_answered(worker: launch.Launched, one: str, other: str) -> None:
    """Of pictures in several turns, the question is about the one that came with it."""
    turns = [shown(picture(one)), said(f"It is {one}."), shown(picture(other))]

    answer = await told(worker, *turns)

    assert other in words(answer)
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 2


async def test_pictures_of_one_turn_stand_in_their_order(worker: launch.Launched) -> None:
    """Two beside each other: the answer is one of the two, and another one if they change."""
    answers = [words(await told(worker, several(*map(picture, pair)))) for pair in PAIRS[:2]]

    assert answers[0] != answers[1]
    assert all("red" in answer or "blue" in answer for answer in answers)


@pytest.mark.parametrize("colour", ["red", "blue"])
async def test_a_tool_may_answer_with_a_picture(worker: launch.Launched, colour: str) -> None:
    """Pictures are read in the results of tools as they are in a user's turn."""
    result = several(picture(colour), role="tool") | {"tool_call_id": "call_1"}

    assert colour in words(await told(worker, *ask("Hi"), result))


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_a_picture_of_an_earlier_turn_is_in_the_prompt(
    worker: launch.Launched, role: str
) -> None:
    """Which one it was makes a difference to every later answer, whoever has shown it."""
    sure = []
    for colour in ("red", "blue"):
        turns = [several(picture(colour), role=role), *ask("Hello")]
        body = {"messages": turns, "temperature": 0, "max_tokens": 1, "logprobs": True}
        answer = await worker.post("/v1/chat/completions", body)
        sure.append(answer["choices"][0]["logprobs"]["content"][0]["logprob"])

    assert sure[0] != sure[1]


async def test_a_long_chat_encodes_each_picture_once(worker: launch.Launched) -> None:
    """The next turn finds the picture in the cache, and computes only what is new."""
    turns = [several(a_new_picture(side=200))]
    before = await counts(worker)
    first = await told(worker, *turns)
    slices = first["usage"]["prompt_tokens_details"]["image_tokens"]
    assert await counts(worker) == (before[0] + 1, before[1] + slices)

    second = await told(worker, *turns, said(words(first)), *ask("Hello"))

    assert await counts(worker) == (before[0] + 1, before[1] + slices)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"] - 1


async def test_a_picture_at_another_place_is_not_encoded_again(worker: launch.Launched) -> None:
    """After other words the context is another one, but the encoding is the same."""
    url = a_new_picture(side=200)
    first = await told(worker, several(url))
    before = await counts(worker)

    again = await told(worker, *ask("Hello"), said("Hello!"), several(url, url))

    assert await counts(worker) == before
    image_tokens = [a["usage"]["prompt_tokens_details"]["image_tokens"] for a in (first, again)]
    assert image_tokens[1] == 2 * image_tokens[0]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] < 10


async def test_detail_bounds_how_closely_a_picture_is_looked_at(models: Path) -> None:
    """`low` shrinks it first, so that it takes less of the context; `auto` is `high`."""
    wide = data_uri(encoded(Image.new("RGB", (1536, 96), "red")))
    took = {}

    async with launch.launched("llama", options(models, "minicpmv-mmproj")) as worker:
        for detail in ("low", "high", "auto", None):
            answer = await told(worker, shown({"url": wide, "detail": detail}))
            took[detail] = answer["usage"]["prompt_tokens_details"]["image_tokens"]

    assert took["low"] < took["high"] == took["auto"] == took[None]


async def test_an_unknown_detail_is_refused(worker: launch.Launched) -> None:
    """The error names those that there are."""
    url = {"url": picture("red"), "detail": "utmost"}

    error = (await told(worker, shown(url), status=400))["error"]

    assert "auto, low, high" in error["message"]
    assert error["param"] == "messages.0.content"


@pytest.mark.parametrize(
    ("sides", "status", "code"),
    [
        ([110], 400, "image_too_large"),
        ([80, 90], 400, "image_too_large"),
        ([8, 8, 8], 400, "too_many_images"),
        ([96, 95], 400, "image_too_large"),
        ([20], 200, ""),
    ],
)
async def test_the_bounds_of_the_options_hold(
    strict: launch.Launched, sides: list[int], status: int, code: str
) -> None:
    """One picture, their number, and all of them together are bounded, each in its own words."""
    urls = [a_new_picture(side) for side in sides]

    answer = await told(strict, several(*urls), status=status)

    assert answer.get("error", {}).get("code", "") == code


async def test_a_picture_alone_may_be_too_long(strict: launch.Launched) -> None:
    """What does not fit into the context is refused with the numbers, before it is encoded."""
    wide = data_uri(encoded(Image.new("RGB", (900, 11), "red")))
    before = await counts(strict)

    error = (await told(strict, several(wide, text="x " * 9), status=400))["error"]

    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 40 tokens, but the prompt has at least" in error["message"]
    asked = {"image": wide, "language": "x " * 40}
    described = (await strict.post("/v1/images/descriptions", asked, 400))["error"]
    assert (described["code"], described["param"]) == ("context_length_exceeded", "image")
    assert (await counts(strict))[1] == before[1]
    assert "red" in words(await told(strict, shown(picture("red"))))


async def test_without_a_cache_the_answer_is_the_same(strict: launch.Launched) -> None:
    """A bound of 0 keeps no encoding: the next look is a new one, and sees the same."""
    assert "blue" in words(await told(strict, shown(picture("blue"))))
    assert "green" in words(await told(strict, shown(picture("green"))))
    before = await counts(strict)

    assert "blue" in words(await told(strict, shown(picture("blue"))))

    assert (await counts(strict))[0] == before[0] + 1


async def test_a_template_may_be_chosen_by_name(strict: launch.Launched) -> None:
    """It stands above the model's own."""
    async with strict.session.get("/props") as answer:
        assert (await answer.json())["chat_template"] == CHATML


@pytest.mark.parametrize("colour", ["green", "blue"])
async def test_tiles_are_looked_at_where_the_file_says_so(
    models: Path, tmp_path: Path, colour: str
) -> None:
    """LLaVA 1.6's projectors see a large picture as a whole and in tiles, a small one as 1.5's."""
    file = llava16.with_pinpoints(models / "llava-mmproj.gguf", tmp_path / "l.gguf", TILES_PX)
    given = options(models, "llava-mmproj") | {"mmproj": str(file)}
    took = []

    async with launch.launched("llama", given) as worker:
        for side in (64, 300):
            answer = await told(worker, shown(picture(colour, side)))
            assert colour in words(answer)
            took.append(answer["usage"]["prompt_tokens_details"]["image_tokens"])

    assert took == [1, 5]


async def test_a_found_picture_counts_as_a_computed_one(models: Path, tmp_path: Path) -> None:
    """A turn that goes on from a picture of several cells is answered as by a fresh worker."""
    file = patched.write_projector(tmp_path / "p.gguf")
    given = options(models, "llava-mmproj") | {"mmproj": str(file)}
    first = [shown(picture("green", 300))]
    turns = [*first, said("It is green."), shown(picture("blue", 300), "Describe the picture.")]
    body = {"messages": turns, "temperature": 0, "max_tokens": 1, "logprobs": True}
    answers, began = [], []

    for before in ([first], []):
        async with launch.launched("llama", given) as worker:
            began += [(await told(worker, *messages))["usage"] for messages in before]
            answers.append(await worker.post("/v1/chat/completions", body | {"top_logprobs": 20}))

    found, fresh = [
        {top["token"]: top["logprob"] for top in logprobs["top_logprobs"]}
        for a in answers
        for logprobs in a["choices"][0]["logprobs"]["content"]
    ]
    assert found == pytest.approx(fresh, abs=0.01)
    usages = [answer["usage"] for answer in answers]
    assert began[0]["prompt_tokens_details"]["image_tokens"] == patched.CELLS
    assert usages[0]["prompt_tokens"] == usages[1]["prompt_tokens"]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[0] >= began[0]["prompt_tokens"]
    assert cached[1] == 0
