"""openai-python, the real one: pictures in all the ways that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.clients.drawn import PNG, decoded, hole, is_kept_outside, opened, picture
from tests.proxy.painted import until
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
ASKED: dict[str, Any] = {"model": "painter", "prompt": "a red circle", "size": "64x64"}
SEEDED = {**ASKED, "extra_body": {"seed": 5}}
GENERATE_NULLS = (
    *("background", "moderation", "n", "output_compression", "output_format", "partial_images"),
    *("quality", "response_format", "size", "stream", "style"),
)
EDIT_NULLS = (
    *("background", "input_fidelity", "n", "output_compression", "output_format"),
    *("partial_images", "quality", "response_format", "size", "stream"),
)


@pytest_asyncio.fixture(loop_scope="module")
async def images(hotseat: Hotseat) -> openai.resources.AsyncImages:
    return hotseat.openai().images


@pytest.fixture
def patient(hotseat: Hotseat) -> Iterator[openai.OpenAI]:
    """Give a client that does not wait for events, and retries as it does by itself."""
    with openai.OpenAI(base_url=f"{hotseat.url}/v1", api_key="none") as client:
        yield client


async def test_who_blocks_gets_the_same_as_who_awaits(
    images: openai.resources.AsyncImages, patient: openai.OpenAI
) -> None:
    """A picture by its seed, whichever client asks; nothing is said of tokens."""
    awaited = await images.generate(**SEEDED)
    blocking = await asyncio.to_thread(patient.images.generate, **SEEDED)
    other = await images.generate(**ASKED, extra_body={"seed": 6})

    assert awaited.data[0].b64_json == blocking.data[0].b64_json != other.data[0].b64_json
    assert decoded(awaited.data[0].b64_json).size == (64, 64)
    assert (awaited.size, awaited.output_format) == ("64x64", "png")
    assert (awaited.created > 0, awaited.usage, awaited.data[0].url) == (True, None, None)


async def test_nulls_are_what_nobody_has_said(images: openai.resources.AsyncImages) -> None:
    """Every optional argument may be None, in JSON and in a form."""
    made = await images.generate(
        model="painter", prompt="x", **dict.fromkeys(GENERATE_NULLS), extra_body={"seed": 5}
    )
    edited = await images.edit(
        model="painter", prompt="x", image=picture(), **dict.fromkeys(EDIT_NULLS)
    )

    assert decoded(made.data[0].b64_json).size == (64, 64)
    assert decoded(edited.data[0].b64_json).size == (64, 64)


async def test_a_link_leads_to_the_picture(
    hotseat: Hotseat, images: openai.resources.AsyncImages
) -> None:
    """For who has no key and asks as a browser does."""
    linked = await images.generate(**SEEDED, n=2, response_format="url")
    found = []
    for one in linked.data:
        async with hotseat.session.get(one.url) as response:
            found.append((response.content_type, await response.read()))
    plain = await images.generate(**SEEDED)

    assert [(kind, raw[:8]) for kind, raw in found] == [("image/png", PNG)] * 2
    assert opened(found[0][1]).tobytes() == decoded(plain.data[0].b64_json).tobytes()
    assert [one.b64_json for one in linked.data] == [None, None]


async def test_a_stream_shows_the_picture_as_it_comes(
    images: openai.resources.AsyncImages,
) -> None:
    """As many looks as were asked for, in order, and the whole one at the end."""
    steps = {"seed": 5, "steps": 4}
    stream = await images.generate(**ASKED, stream=True, partial_images=2, extra_body=steps)
    events = [event async for event in stream]
    plain = await images.generate(**ASKED, extra_body=steps)

    shown = [one for one in events if one.type == "image_generation.partial_image"]
    last = events[-1]
    assert [one.partial_image_index for one in shown] == [0, 1]
    assert {decoded(one.b64_json).size for one in shown} == {(64, 64)}
    assert (last.type, last.size, last.usage) == ("image_generation.completed", "64x64", None)
    assert (last.b64_json, last.created_at > 0) == (plain.data[0].b64_json, True)


async def test_who_blocks_may_stream_too(patient: openai.OpenAI) -> None:
    """Edits as well, under names of their own."""

    def kinds() -> list[str]:
        with patient.images.edit(**ASKED, image=picture(), stream=True, partial_images=1) as all_:
            return [event.type for event in all_]

    told = await asyncio.to_thread(kinds)

    assert "image_edit.partial_image" in told
    assert told[-1] == "image_edit.completed"


async def test_who_has_seen_enough_closes_the_stream(
    hotseat: Hotseat, images: openai.resources.AsyncImages
) -> None:
    """Nobody paints on for nobody, and the next picture is the right one."""
    plain = await images.generate(**SEEDED)
    long = {"model": "painter", "prompt": "x", "size": "128x128", "extra_body": {"steps": 80}}
    async with await images.generate(**long, stream=True, partial_images=3) as stream:
        async for event in stream:
            if event.type == "image_generation.partial_image":
                break
    await until(hotseat, "/api/jobs", lambda told: not told["jobs"])
    after = await images.generate(**SEEDED)
    counts = (await hotseat.get("/upstream/painter/props")).body["pictures"]

    assert after.data[0].b64_json == plain.data[0].b64_json
    assert (counts["wanted"], counts["dropped"]) == (0, 1)


async def test_edits_take_a_picture_several_or_a_mask(
    images: openai.resources.AsyncImages,
) -> None:
    """`image`, `image[]` and `mask`: the last one in OpenAI's sense."""
    edit = {"model": "painter", "prompt": "a blue circle", "extra_body": {"seed": "5"}}
    one = await images.edit(**edit, image=("a.png", picture(64, 96), "image/png"))
    several = await images.edit(**edit, image=[picture(64, 96), picture(96, 64)])
    masked = await images.edit(**edit, image=picture(), mask=hole())

    assert decoded(one.data[0].b64_json).size == (64, 96)
    assert several.data[0].b64_json != one.data[0].b64_json
    assert is_kept_outside(opened(picture()), decoded(masked.data[0].b64_json))


async def test_variations_differ(images: openai.resources.AsyncImages) -> None:
    """From each other."""
    with pytest.warns(DeprecationWarning, match="deprecated"):  # openai's own models have none
        asking = images.create_variation(
            model="painter", image=picture(), n=2, response_format="b64_json"
        )
    varied = await asking

    first, second = (one.b64_json for one in varied.data)
    assert first != second


async def test_a_mistake_is_told_once(hotseat: Hotseat, patient: openai.OpenAI) -> None:
    """With what is wrong, and without another try."""

    async def count() -> int:
        told = await hotseat.get("/api/metrics/stats")
        requests: int = told.body["total_requests"]
        return requests

    before = await count()
    with pytest.raises(openai.BadRequestError) as caught:
        await asyncio.to_thread(patient.images.generate, **{**ASKED, "size": "banana"})
    tried = await count() - before
    with pytest.raises(openai.NotFoundError) as lost:
        await asyncio.to_thread(patient.images.generate, **{**ASKED, "model": "paintr"})

    assert (caught.value.param, caught.value.type) == ("size", "invalid_request_error")
    assert tried == 1
    assert lost.value.code == "model_not_found"
    assert "painter" in lost.value.message
