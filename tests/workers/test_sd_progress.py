"""Pictures under way: their events, their progress, and how they are interrupted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
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

GENERATIONS = "/v1/images/generations"
LONG = {"prompt": "a red circle", "seed": 1, "steps": 1000, "stream": True}
SHORT = {"prompt": "a red circle", "seed": 3, "steps": 8}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path) -> AsyncIterator[Launched]:
    async with launched("sd", sd_files.options(models)) as launch:
        yield launch


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Read the events of a stream; their names and their types must agree."""
    name = None
    async for line in answer.content:
        kind, _, value = line.decode().rstrip("\n").partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            event = json.loads(value)
            assert event.get("type") == name
            yield event
            name = None


async def streamed(worker: Launched, path: str = GENERATIONS, **body: Any) -> list[dict[str, Any]]:
    """Ask for a stream and read it to its end."""
    async with worker.session.post(path, json=SHORT | {"stream": True} | body) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        return [event async for event in events_of(answer)]


@contextlib.asynccontextmanager
async def long_picture(worker: Launched, job: str, **body: Any) -> AsyncIterator[Any]:
    """Have a long picture under way, past its first step; gives the rest of its events."""
    async with worker.session.post(
        GENERATIONS, json=LONG | body, headers={"X-Hotseat-Job": job}
    ) as answer:
        events = events_of(answer)
        assert (await anext(events))["type"] == "image_generation.progress"
        yield events


async def progress(worker: Launched, query: str = "") -> list[dict[str, Any]]:
    async with worker.session.get(f"/progress{query}") as answer:
        return (await answer.json())["jobs"]


async def interrupt(worker: Launched, body: dict[str, Any] | None = None) -> list[str]:
    return (await worker.post("/interrupt", body or {}))["interrupted"]


async def read_into(seen: list[dict[str, Any]], events: AsyncIterator[dict[str, Any]]) -> None:
    """Read to the end, whatever the end is."""
    async for event in events:
        seen.append(event)  # noqa: PERF401  # what came before a cut is wanted


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"].endswith(f".{kind}")]


def image_in(event: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(event["b64_json"])))


async def test_openai_client_reads_the_stream(worker: Launched) -> None:
    """The SDK's stream ends with the picture that a plain request gives."""
    plain = await worker.post(GENERATIONS, SHORT)
    stream = await worker.openai().images.generate(
        model="x",
        prompt="a red circle",
        stream=True,
        partial_images=2,
        extra_body={"seed": 3, "steps": 8},
    )
    events = [event async for event in stream]

    kinds = [event.type for event in events]
    assert kinds.count("image_generation.partial_image") == 2
    assert kinds[-1] == "image_generation.completed"
    assert plain["data"][0]["b64_json"] == events[-1].b64_json


async def test_steps_are_told_one_by_one(worker: Launched) -> None:
    """Each step is an event, with what is left of it in seconds."""
    told = of_kind(await streamed(worker, n=2), "progress")

    assert [(e["image"], e["step"]) for e in told if e["step"]] == [
        (image, step) for image in (1, 2) for step in range(1, 9)
    ]
    assert all((e["steps"], e["images"]) == (8, 2) for e in told)
    assert told[0]["eta_s"] is None
    assert told[-1]["eta_s"] == 0


async def test_previews_have_the_size_of_the_picture(worker: Launched) -> None:
    """Each preview is another one, in the size of the picture to come."""
    events = await streamed(worker, partial_images=3, size="96x64", steps=12)
    partials = of_kind(events, "partial_image")

    assert [event["partial_image_index"] for event in partials] == [0, 1, 2]
    assert {image_in(event).size for event in partials} == {(96, 64)}
    assert len({event["b64_json"] for event in partials}) == 3


async def test_a_tiny_autoencoder_shows_the_picture_to_come(models: Path) -> None:
    """Previews by `tae` resemble the picture, the more so the later they are."""
    async with launched("sd", sd_files.options(models, preview="tae")) as worker:
        events = await streamed(worker, partial_images=3, steps=8)
    shown = [image_in(event) for event in of_kind(events, "partial_image")]
    [painted] = [image_in(event) for event in of_kind(events, "completed")]

    early, _, late = [difference(image, painted) for image in shown]
    assert late < early
    assert late < difference(scene(colour="blue"), painted)


async def test_without_previews_there_is_progress_alone(models: Path) -> None:
    """`preview: none` costs nothing at all: a stream has steps and the picture."""
    async with launched("sd", sd_files.options(models, preview="none")) as worker:
        events = await streamed(worker, partial_images=3)

    assert {event["type"].partition(".")[2] for event in events} == {"progress", "completed"}


@pytest.mark.parametrize("wanted", [0, 3])
async def test_few_steps_have_few_previews(worker: Launched, wanted: int) -> None:
    """There is at most one preview for each step, and none unless asked for."""
    events = await streamed(worker, partial_images=wanted, steps=2)

    assert len(of_kind(events, "partial_image")) == min(wanted, 2)


async def test_edits_have_names_of_their_own(worker: Launched) -> None:
    """An edit streams `image_edit.*`, in the format that was asked for."""
    events = await streamed(
        worker,
        "/v1/images/edits",
        image=data_uri(encoded(scene((70, 50)))),
        output_format="jpeg",
        partial_images=1,
    )

    assert {event["type"].partition(".")[0] for event in events} == {"image_edit"}
    shown = [image_in(event) for event in events if "b64_json" in event]
    assert [(image.format, image.size) for image in shown] == [("JPEG", (70, 50))] * 2


async def test_what_is_wrong_is_told_before_the_stream(worker: Launched) -> None:
    """A bad request has its status, streamed or not."""
    told = await worker.post(GENERATIONS, SHORT | {"stream": True, "size": "huge"}, status=400)
    few = await worker.post(GENERATIONS, SHORT | {"stream": True, "partial_images": 4}, status=400)

    assert (told["error"]["param"], few["error"]["param"]) == ("size", "partial_images")


async def test_progress_names_the_job(worker: Launched) -> None:
    """Who gave the request its name can ask how far it is, and see it; idle, there is nothing."""
    async with long_picture(worker, "mine", n=2):
        [told] = await progress(worker)
        [shown] = await progress(worker, "?preview=1")
        await interrupt(worker)

    assert (told["id"], told["steps"], told["image"], told["images"]) == ("mine", 1000, 1, 2)
    assert "preview" not in told
    assert told["eta_s"] is None or told["eta_s"] > 0
    assert shown["step"] >= told["step"]
    assert await progress(worker) == []


async def test_a_preview_is_small(worker: Launched) -> None:
    """The preview of a job is a picture of its latents, an 8th of the size."""
    async with long_picture(worker, "seen", size="128x64") as events:
        await anext(events)
        [told] = await progress(worker, "?preview=1")
        await interrupt(worker)

    assert Image.open(io.BytesIO(base64.b64decode(told["preview"]))).size == (16, 8)


async def test_an_interrupted_stream_says_so_and_is_cut(worker: Launched) -> None:
    """The client of an interrupted stream reads an error, and no clean end."""
    async with long_picture(worker, "cut") as events:
        assert await interrupt(worker, {"job": "cut"}) == ["cut"]

        seen: list[dict[str, Any]] = []
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(seen, events)
    assert seen[-1]["error"]["code"] == "interrupted"


async def test_an_interrupt_meets_the_named_job_only(worker: Launched) -> None:
    """The one that waits behind it is painted as ever, and unknown names end nothing."""
    async with long_picture(worker, "first") as events, asyncio.TaskGroup() as tasks:
        behind = tasks.create_task(worker.post(GENERATIONS, SHORT))
        assert await interrupt(worker, {"job": "nobody"}) == []
        assert await interrupt(worker, {"job": "first"}) == ["first"]
        with contextlib.suppress(aiohttp.ClientPayloadError):
            assert len([event async for event in events]) < 1000

    assert len((await behind)["data"]) == 1


async def test_an_interrupted_request_is_409_and_not_to_be_sent_again(worker: Launched) -> None:
    """An interrupt without a name ends all; those that wait have no turn at all."""

    async def plain() -> tuple[int, str, str | None]:
        async with worker.session.post(GENERATIONS, json=SHORT) as answer:
            code = (await answer.json())["error"]["code"]
            return answer.status, code, answer.headers.get("x-should-retry")

    async with long_picture(worker, "first") as events, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(plain())
        while len(await progress(worker)) < 2:
            await anext(events)
        assert len(await interrupt(worker)) == 2

    assert await waiting == (409, "interrupted", "false")


async def test_who_leaves_a_stream_stops_the_engine(worker: Launched) -> None:
    """A stream that nobody reads any more is not painted to its end."""

    async def counts() -> dict[str, int]:
        async with worker.session.get("/props") as answer:
            return (await answer.json())["pictures"]

    before = await counts()
    async with long_picture(worker, "left"):
        pass
    await worker.post(GENERATIONS, SHORT)  # its turn comes when the other one has ended

    after = await counts()
    assert after == {
        "wanted": 0,
        "painted": before["painted"] + 1,
        "dropped": before["dropped"] + 1,
    }
