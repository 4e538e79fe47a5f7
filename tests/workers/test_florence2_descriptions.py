"""Descriptions by a real Florence-2 worker: all tasks, batches, streams, and odd pictures."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import florence2_pictures, launch
from tests.workers.drawn import data_uri, encoded
from tests.workers.florence2_pictures import Shown

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

PATH = "/v1/images/descriptions"
WHOLE = [0, 0, 320, 320]
PICTURES = [
    Shown("red", "circle", "top left"),
    Shown("green", "square", "bottom right"),
    Shown("blue", "circle", "top right"),
    Shown("blue", "square", "bottom left"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path) -> AsyncIterator[launch.Launched]:
    options = {"n_threads": 1, "device": "cpu", "dtype": "float32"}
    more = {"model": str(models / "florence2"), "max_new_tokens": 100}
    async with launch.launched("florence2", options | more) as ready:
        yield ready


def uri(picture: Shown, width: int = 320, height: int = 320) -> str:
    return data_uri(encoded(picture.draw(width, height)))


@pytest.mark.parametrize(
    ("task", "field", "told"),
    [
        ("caption", "caption", "a red circle"),
        ("detailed_caption", "detailed_caption", "a red circle in the top left of the picture"),
        (
            "more_detailed_caption",
            "more_detailed_caption",
            "The picture shows a red circle in the top left. The rest is white.",
        ),
        ("OCR", "ocr_text", "RED CIRCLE"),
        ("tags", "tags", ["circle"]),
    ],
)
async def test_words_of_a_picture(
    worker: launch.Launched, task: str, field: str, told: object
) -> None:
    """Each task fills its own field, and how sure the model was of a text."""
    answer = await worker.post(PATH, {"image": uri(Shown()), "task": task})

    assert answer[field] == told
    assert list(answer["confidences"]) == ([] if task == "tags" else [field])
    assert all(0.5 < sure <= 1 for sure in answer["confidences"].values())
    assert (answer["confidence_kind"], answer["cut"]) == ("token_probability", [])


@pytest.mark.parametrize(
    ("task", "field", "label"),
    [
        ("objects", "objects", "circle"),
        ("object_detection", "objects", "circle"),
        ("od", "objects", "circle"),
        ("dense_regions", "dense_regions", "red circle"),
        ("region_proposals", "region_proposals", ""),
        ("phrase_grounding", "phrase_grounding", "a red circle"),
        ("open_vocabulary", "open_vocabulary", "circle"),
    ],
)
async def test_places_in_a_picture(
    worker: launch.Launched, task: str, field: str, label: str
) -> None:
    """A box is in pixels of what was sent, with its label and a confidence."""
    text = "circle" if task == "open_vocabulary" else "a red circle"
    body = {"image": uri(Shown(), 900, 300), "task": task, "text": text}

    [place] = (await worker.post(PATH, body))[field]

    assert place["label"] == label
    assert place["bbox"] == pytest.approx(Shown().box(900, 300), abs=18)
    assert 0.5 < place["confidence"] <= 1


async def test_text_has_four_corners_and_a_box(worker: launch.Launched) -> None:
    """Text may lie aslant; the box is around its corners."""
    body = {"image": uri(Shown()), "task": "ocr_with_regions"}

    answer = await worker.post(PATH, body)

    [place] = answer["ocr_with_regions"]
    left, top, right, bottom = place["bbox"]
    assert place["label"] == "RED CIRCLE"
    assert place["quad"] == [left, top, right, top, right, bottom, left, bottom]
    assert answer["language"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"task": "referring_segmentation", "text": "a red circle"},
        {"task": "region_to_segmentation", "region": WHOLE},
        {
            "task": ["region_to_category", "region_to_description", "region_to_ocr"],
            "region": WHOLE,
        },
    ],
)
async def test_every_other_task_is_answered(worker: launch.Launched, body: Any) -> None:
    """The tiny model was not fitted to these: only that they go through can be seen."""
    answer = await worker.post(PATH, {"image": uri(Shown()), "max_tokens": 8, **body})

    tasks = body["task"] if isinstance(body["task"], list) else [body["task"]]
    assert [answer[task] is not None for task in tasks] == [True] * len(tasks)


async def test_a_cut_answer_is_named(worker: launch.Launched) -> None:
    """`max_tokens` bounds each answer; those that it cut are told."""
    body = {"image": uri(Shown()), "task": ["more_detailed_caption"], "max_tokens": 4}

    answer = await worker.post(PATH, body)

    assert answer["cut"] == ["more_detailed_caption"]
    assert "The picture shows".startswith(answer["more_detailed_caption"])


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"task": "phrase_grounding"}, "text", "missing_field"),
        ({"task": "open_vocabulary", "text": " "}, "text", "missing_field"),
        ({"task": "open_vocabulary", "text": "<loc_5>"}, "text", "invalid_value"),
        ({"task": "open_vocabulary", "text": "word " * 2000}, "text", "prompt_too_long"),
        ({"task": "open_vocabulary", "text": "x" * 20_001}, "text", "invalid_value"),
        ({"task": "region_to_ocr"}, "region", "missing_field"),
        ({"task": "region_to_ocr", "region": [320, 0, 400, 50]}, "region", "invalid_region"),
        ({"task": "region_to_ocr", "region": [9, 9, 5, 20]}, "region", "invalid_region"),
        ({"task": "region_to_ocr", "region": [1, 2, 3]}, "region.3", "missing_field"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ],
)
async def test_half_a_question_is_refused(
    worker: launch.Launched, body: dict[str, Any], param: str, code: str
) -> None:
    """What a task needs is asked for by the field's name."""
    told = await worker.post(PATH, {"image": uri(Shown()), **body}, status=400)

    assert (told["error"]["param"], told["error"]["code"]) == (param, code)


async def test_a_batch_is_answered_in_its_order(worker: launch.Launched) -> None:
    """As one by one, with an index each; a list of one is a list too."""
    tasks = ["caption", "objects", "ocr"]
    alone = [await worker.post(PATH, {"image": uri(p), "task": tasks}) for p in PICTURES]

    together = await worker.post(PATH, {"images": [uri(p) for p in PICTURES], "task": tasks})
    single = await worker.post(PATH, {"image": [uri(PICTURES[0])], "task": tasks})

    assert [entry.pop("index") for entry in together["data"]] == [0, 1, 2, 3]
    assert [without_pace(e) for e in together["data"]] == [without_pace(e) for e in alone]
    assert len(single["data"]) == 1


def without_pace(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out how long it took, and of the confidences what rounding makes of them."""
    sure = {name: round(value, 2) for name, value in entry["confidences"].items()}
    places = [{**place, "confidence": round(place["confidence"], 2)} for place in entry["objects"]]
    return {**entry, "ms": None, "confidences": sure, "objects": places}


async def test_many_clients_and_batches_mix_nothing_up(worker: launch.Launched) -> None:
    """Different questions at once, answered together: everybody gets his own."""
    caption = {"images": [uri(p) for p in PICTURES]}
    ocr = [{"image": uri(p), "task": "ocr"} for p in PICTURES]

    batch, *read = await asyncio.gather(*(worker.post(PATH, body) for body in (caption, *ocr)))

    assert [entry["caption"] for entry in batch["data"]] == [str(p) for p in PICTURES]
    words = [f"{p.colour} {p.shape}".upper() for p in PICTURES]
    assert [answer["ocr_text"] for answer in read] == words


async def test_one_bad_picture_spoils_no_batch(worker: launch.Launched) -> None:
    """It has an error of its own at its place."""
    bad = "data:image/png;base64,AAAA"

    told = await worker.post(PATH, {"images": [uri(PICTURES[0]), bad, uri(PICTURES[1])]})

    first, second, third = told["data"]
    assert (first["caption"], third["caption"]) == ("a red circle", "a green square")
    assert (second["index"], second["error"]["code"]) == (1, "invalid_image")
    assert second["error"]["param"] == "images.1"


async def test_a_stream_tells_each_picture_as_it_is_ready(worker: launch.Launched) -> None:
    """Named events, one for each picture; a bad one does not look like the stream's end."""
    bad = "data:image/png;base64,AAAA"
    body = {"images": [bad, *(uri(p) for p in PICTURES)], "stream": True}

    async with worker.session.post(PATH, json=body) as answer:
        assert answer.content_type == "text/event-stream"
        *frames, done, end = (await answer.text()).strip().split("\n\n")

    events = [json.loads(frame.partition("data: ")[2]) for frame in frames]
    captions = {e["index"]: e["caption"] for e in events if e["type"].endswith(".completed")}
    assert captions == {n: str(p) for n, p in enumerate(PICTURES, 1)}
    [failed] = [e for e in events if e["type"] == "image_description.failed"]
    assert (failed["index"], failed["failure"]["code"]) == (0, "invalid_image")
    assert "error" not in failed
    counts = json.loads(done.partition("data: ")[2])
    assert (counts["count"], counts["failed"]) == (5, 1)
    assert done.startswith("event: image_descriptions.done\n")
    assert end == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_but_bad_pictures_is_a_bad_request(
    worker: launch.Launched, *, stream: bool
) -> None:
    """When a stream was asked for too."""
    body = {"images": ["AAAA", "BBBB"], "stream": stream}

    error = (await worker.post(PATH, body, status=400))["error"]

    assert (error["code"], error["param"]) == ("invalid_image", "images.0")
    assert "none of the 2 pictures" in error["message"]


async def test_a_form_of_several_files_is_a_batch(worker: launch.Launched) -> None:
    """As curl -F sends it, and openai-python with `image[]`."""
    form = aiohttp.FormData()
    for number, picture in enumerate(PICTURES):
        form.add_field("image[]", encoded(picture.draw()), filename=f"{number}.png")
    form.add_field("task", "region_to_category,caption")
    form.add_field("region", "10, 10, 300, 300")
    form.add_field("max_tokens", "20")

    async with worker.session.post(PATH, data=form) as answer:
        told = await answer.json()

    assert [entry["caption"] for entry in told["data"]] == [str(p) for p in PICTURES]


async def test_a_client_that_leaves_a_batch_frees_the_engine(worker: launch.Launched) -> None:
    """After streams that were dropped at their first picture, the next answer is right."""
    body = {"images": [uri(p) for p in PICTURES * 8], "task": "more_detailed_caption"}
    for _ in range(2):
        async with worker.session.post(PATH, json={**body, "stream": True}) as answer:
            await answer.content.readline()
            answer.close()

    told = await worker.post(PATH, {"image": uri(PICTURES[3])})

    assert told["caption"] == "a blue square"


def zipped_png() -> bytes:
    """Make a file that is a PNG from its start and a ZIP archive from its end."""
    file = io.BytesIO(encoded(Shown().draw()))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x.html", "<script>alert(1)</script>")
    return file.getvalue()


async def test_a_file_of_two_kinds_is_only_its_picture(worker: launch.Launched) -> None:
    """What hangs behind a picture is never looked at."""
    told = await worker.post(PATH, {"image": data_uri(zipped_png())})

    assert told["caption"] == "a red circle"


@pytest.mark.parametrize(
    "raw",
    [b"%PDF-1.4\n" + encoded(Shown().draw()), b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"P6"],
    ids=["PDF before PNG", "SVG", "header alone"],
)
async def test_what_begins_as_no_picture_is_none(worker: launch.Launched, raw: bytes) -> None:
    """Each is a 400 that says what to send."""
    error = (await worker.post(PATH, {"image": data_uri(raw)}, status=400))["error"]

    assert error["code"] in ("invalid_image", "unsupported_image_format")
    assert "PNG" in error["message"]


async def test_many_large_pictures_take_the_room_of_one(worker: launch.Launched) -> None:
    """Four of 20 megapixels in two requests hardly raise the peak that one has made."""
    decoded_bytes = 5000 * 4000 * 3
    large = data_uri(encoded(Image.new("RGB", (5000, 4000), "white")))
    await worker.post(PATH, {"image": large})
    one_bytes = peak_bytes(worker)

    bodies = [{"images": [large] * 2, "task": task} for task in ("caption", "ocr")]
    told = await asyncio.gather(*(worker.post(PATH, body) for body in bodies))

    assert [entry["width"] for batch in told for entry in batch["data"]] == [5000] * 4
    assert peak_bytes(worker) < one_bytes + decoded_bytes // 2


def peak_bytes(worker: launch.Launched) -> int:
    """Read the most that the worker has ever held."""
    told = Path(f"/proc/{worker.process.pid}/status").read_text()
    return 1024 * int(told.partition("VmHWM:")[2].split()[0])


async def test_a_promise_of_many_pixels_is_refused_from_its_head(worker: launch.Launched) -> None:
    """60 000 by 60 000 in a few bytes: nothing of it is decoded."""
    raw = florence2_pictures.png_header(60_000, 60_000)

    told = await worker.post(PATH, {"image": data_uri(raw)}, status=400)

    assert told["error"]["code"] == "image_too_large"
