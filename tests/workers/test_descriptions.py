"""The face of descriptions without an engine: what is read of a request, and how it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from workers import descriptions, wire
from workers.descriptions import Asked, Description, Place, Sent, Task

PATH = "/v1/images/descriptions"
PICTURE = "data:image/png;base64,aGVsbG8="  # whose bytes are hello


class Reader:
    """Describes a picture by the bytes that came, and fails when they say so."""

    name = "reader"
    tasks: Collection[Task] = (Task.CAPTION, Task.TAGS, Task.OBJECTS)
    at_once = 2

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._under_way = 0

    async def describe(self, sent: Sent, asked: Asked) -> Description:
        self.asked.append(asked)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        text = await asyncio.to_thread(lambda: sent.read().decode())
        self._under_way -= 1
        match text:
            case "bad":
                raise wire.bad_request("it is bad", param=sent.param, code="invalid_image")
            case "full":
                raise wire.OutOfMemory("no room")
        place = Place("cup", (1, 2, 3, 4), None, polygon=(1, 2, 3, 4, 1, 4))
        answers = {Task.CAPTION: text, Task.TAGS: ["cup"], Task.OBJECTS: [place]}
        given = {task: answers[task] for task in asked.tasks}
        return Description(40, 20, given, ms=1.26, language=asked.language)


Client = TestClient[Any, Any]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest_asyncio.fixture
async def client(reader: Reader) -> AsyncIterator[Client]:
    app = wire.application()
    app.add_routes(descriptions.Face(reader).routes())
    async with TestClient(TestServer(app)) as ready:
        yield ready


async def post(client: Client, status: int = 200, **body: Any) -> Any:
    async with client.post(PATH, json=body) as answer:
        told = await answer.json()
        assert answer.status == status, told
        return told


async def test_every_field_is_there(client: Client) -> None:
    """What was not asked for is null; a confidence that nobody knows too."""
    told = await post(client, image=PICTURE, task=["tags", "objects"], language="de")

    place = {"label": "cup", "bbox": [1, 2, 3, 4], "confidence": None}
    given = {
        "tags": ["cup"],
        "objects": [{**place, "polygon": [1, 2, 3, 4, 1, 4]}],
        "language": "de",
        "confidences": {},
        "cut": [],
        "ms": 1.3,
        "width": 40,
        "height": 20,
        "model": "reader",
    }
    unasked = dict.fromkeys([task.field for task in Task if task.field not in given])
    assert told == {**unasked, **given, "confidence_kind": None}
    assert {"caption", "detailed_caption", "ocr_text"} <= unasked.keys()


@pytest.mark.parametrize(
    "body",
    [
        {"image": PICTURE},
        {"image": "aGVsbG8="},
        {"image_b64": "aGVsbG8="},
        {"image": {"url": PICTURE}},
        {"image": {"type": "image_url", "image_url": {"url": PICTURE}}},
        {"image": PICTURE, "task": None, "text": None, "stream": None, "model": None},
        {"image": PICTURE, "images": None, "language": None, "max_tokens": None, "region": None},
        {"image": PICTURE, "mode": "caption", "backend": "any"},
        {"image": None, "image_b64": PICTURE, "task": None, "mode": "caption"},
    ],
)
async def test_a_picture_comes_in_many_forms(client: Client, body: dict[str, Any]) -> None:
    """All of them are one picture, and nulls are as good as nothing."""
    assert (await post(client, **body))["caption"] == "hello"


@pytest.mark.parametrize("field", ["image", "images", "images[]", "image[]"])
async def test_a_list_is_a_batch(client: Client, field: str) -> None:
    """Its answer is a list in the order of the pictures."""
    told = await post(client, **{field: [PICTURE, {"image_url": "d29ybGQ="}]})

    assert [(entry["index"], entry["caption"]) for entry in told["data"]] == [
        (0, "hello"),
        (1, "world"),
    ]


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        ("Caption", [Task.CAPTION]),
        ("tags, caption,tags", [Task.TAGS, Task.CAPTION]),
        (["object_detection", "OD"], [Task.OBJECTS]),
        (None, [Task.CAPTION]),
    ],
)
async def test_tasks_have_other_names(
    client: Client, reader: Reader, names: object, tasks: list[Task]
) -> None:
    """HearthNet's and Florence-2's own, in any case; each task once."""
    await post(client, image=PICTURE, task=names)

    assert list(reader.asked[0].tasks) == tasks


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "image", "missing_field"),
        ({"image": None}, 400, "image", "missing_field"),
        ({"images": []}, 400, "image", "missing_field"),
        ({"images": [PICTURE] * 65}, 400, "images", "too_many_images"),
        ({"image": 5}, 400, "image", "invalid_value"),
        ({"images": [PICTURE, {"url": None}]}, 400, "images", "invalid_value"),
        ({"image": PICTURE, "task": "poem"}, 400, "task", "unknown_task"),
        ({"image": PICTURE, "task": ""}, 400, "task", "unknown_task"),
        ({"image": PICTURE, "task": "ocr"}, 501, "task", "not_implemented"),
        ({"image": PICTURE, "task": "phrase_grounding"}, 400, "text", "missing_field"),
        ({"image": "http://a.b/c.png"}, 400, "image", "unsupported_image_url"),
        ({"image": "YmFk"}, 400, "image", "invalid_image"),
    ],
)
async def test_mistakes_are_told_by_field(
    client: Client, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    """A task that nobody knows is the client's mistake; one that this model lacks is not."""
    error = (await post(client, status, **body))["error"]

    assert (error["param"], error["code"]) == (param, code)
    if code == "not_implemented":
        assert error["message"].endswith("it has caption, tags, objects")


async def test_only_some_pictures_are_in_the_works(client: Client, reader: Reader) -> None:
    """However many a request has, the engine's bound holds."""
    told = await post(client, images=[PICTURE] * 20)

    assert len(told["data"]) == 20
    assert reader.most_at_once == 2


async def test_no_room_for_one_of_several_is_its_own_error(client: Client) -> None:
    """The others are answered; alone, it is a 503 that the proxy understands."""
    told = await post(client, images=["ZnVsbA==", PICTURE])

    assert told["data"][0]["error"]["code"] == "capacity_exceeded"
    assert told["data"][1]["caption"] == "hello"
    for body in ({"image": "ZnVsbA=="}, {"images": ["ZnVsbA==", "YmFk"], "stream": True}):
        async with client.post(PATH, json=body) as answer:
            assert answer.status == 503
            assert answer.headers["X-Hotseat-Reason"] == "out_of_memory"


@pytest.mark.parametrize("field", ["image", "images"])
async def test_a_form_has_files_and_texts(client: Client, field: str) -> None:
    """A picture is a file, a data: URI or raw bytes; only `image` alone is no list."""
    for part in ({"filename": "a.png", "value": b"hello"}, {"value": PICTURE}):
        form = aiohttp.FormData({"task": "caption", "stream": "false"}, default_to_multipart=True)
        form.add_field(field, **part)
        await captioned(client, form, field)
    with aiohttp.MultipartWriter("form-data") as parts:
        nameless = parts.append(b"hello", {"Content-Type": "image/png"})
        nameless.set_content_disposition("form-data", name=field)
        await captioned(client, parts, field)


async def captioned(client: Client, form: object, field: str) -> None:
    async with client.post(PATH, data=form) as answer:
        told = await answer.json()
    assert (told if field == "image" else told["data"][0])["caption"] == "hello"


async def test_openais_client_reads_a_stream_to_its_end(client: Client) -> None:
    """A failed picture does not end it: the client stops at a field `error`."""
    import httpx2  # noqa: PLC0415  # the client's own library
    import openai  # noqa: PLC0415

    url = str(client.make_url("/v1"))
    async with (
        httpx2.AsyncClient(timeout=5) as transport,
        openai.AsyncOpenAI(base_url=url, api_key="x", http_client=transport) as sdk,
    ):
        stream = await sdk.post(
            "/images/descriptions",
            body={"images": [PICTURE, "YmFk", PICTURE], "stream": True},
            cast_to=object,
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        types = [event["type"] async for event in stream]

    assert sorted(types) == [
        "image_description.completed",
        "image_description.completed",
        "image_description.failed",
        "image_descriptions.done",
    ]
