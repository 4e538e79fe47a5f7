"""The Florence-2 worker as its clients see it: a real process, a real model, a real socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import florence2_pictures as shown
from tests.workers import launch
from tests.workers.drawn import data_uri, encoded
from tests.workers.florence2_pictures import Shown

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

OPTIONS = {"n_threads": 1, "device": "cpu", "dtype": "float32"}
TEXT_PART = {"type": "text", "text": "describe this image"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path) -> AsyncIterator[launch.Launched]:
    options = OPTIONS | {"model": str(models / "florence2"), "max_pixels": 4_000_000}
    async with launch.launched("florence2", options) as ready:
        yield ready


async def describe(worker: launch.Launched, image: Image.Image | bytes, task: Any = None) -> Any:
    raw = image if isinstance(image, bytes) else encoded(image)
    body = {"model": "seer", "image": data_uri(raw), "task": task}
    async with worker.session.post("/v1/images/descriptions", json=body) as answer:
        return await answer.json() | {"status": answer.status}


async def chat(worker: launch.Launched, text: str, **more: Any) -> Any:
    return await worker.openai().chat.completions.create(
        model="seer", messages=[message(text, Shown())], **more
    )


def message(text: str, picture: Shown) -> Any:
    url = data_uri(encoded(picture.draw()))
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


async def test_facts_tell_device_and_number_type(worker: launch.Launched) -> None:
    """Ready comes after honest steps, with what was loaded and where."""
    assert worker.facts["device"] == "cpu"
    assert worker.facts["dtype"] == "float32"
    assert [s["state"] for s in worker.statuses[:2]] == ["checked", "imported"]
    assert worker.statuses[-2] == {"state": "loading", "progress": 1.0}


@pytest.mark.parametrize(
    "picture", [Shown(c, s) for c, s in itertools.product(shown.COLOURS, shown.SHAPES)], ids=str
)
async def test_caption_names_colour_and_shape(worker: launch.Launched, picture: Shown) -> None:
    """A description without a task is a caption, and nothing else is filled."""
    told = await describe(worker, picture.draw())

    assert told["caption"] == str(picture)
    assert (told["width"], told["height"], told["model"]) == (320, 320, "seer")
    unasked = ("detailed_caption", "tags", "objects", "ocr_text")
    assert [told[field] for field in unasked] == [None] * 4


async def test_all_tasks_share_one_request(worker: launch.Launched) -> None:
    """A list of tasks fills a field each."""
    picture = Shown("blue", "square", "bottom right")

    told = await describe(
        worker, picture.draw(), ["caption", "detailed_caption", "ocr", "objects", "tags"]
    )

    assert told["caption"] == "a blue square"
    assert "bottom right" in told["detailed_caption"]
    assert told["ocr_text"] == "BLUE SQUARE"
    assert told["tags"] == ["square"]
    assert [found["label"] for found in told["objects"]] == ["square"]
    assert (told["language"], told["confidence_kind"]) == ("en", "token_probability")
    assert told["ms"] > 0


async def test_text_in_the_picture_has_no_language(worker: launch.Launched) -> None:
    """The model does not say what language it read."""
    told = await describe(worker, Shown().draw(), "ocr")

    assert (told["ocr_text"], told["language"]) == ("RED CIRCLE", None)


@pytest.mark.parametrize("corner", shown.CORNERS)
@pytest.mark.parametrize("size", [(320, 320), (900, 300), (201, 700)])
async def test_boxes_are_pixels_of_the_picture_sent(
    worker: launch.Launched, corner: str, size: tuple[int, int]
) -> None:
    """A box lies on the shape to a hundredth of the side, whatever the picture's proportions."""
    picture = Shown(corner=corner)

    (found,) = (await describe(worker, picture.draw(*size), "objects"))["objects"]

    assert found["bbox"] == pytest.approx(picture.box(*size), abs=0.02 * max(size))
    assert 0.5 < found["confidence"] <= 1


@pytest.mark.parametrize("orientation", shown.ROTATED)
async def test_boxes_are_upright(worker: launch.Launched, orientation: int) -> None:
    """A turned JPEG is described as a viewer shows it."""
    picture, exif = Shown(corner="top right"), Image.Exif()
    exif[0x0112] = orientation
    stored = picture.draw(1600, 800).transpose(shown.ROTATED[orientation])

    told = await describe(worker, encoded(stored, "JPEG", exif=exif, quality=95), "objects")

    assert (told["width"], told["height"]) == (1600, 800)
    assert told["objects"][0]["bbox"] == pytest.approx(picture.box(1600, 800), abs=32)


async def test_forms_are_read_like_json(worker: launch.Launched) -> None:
    """An upload with repeated or comma-separated tasks gives the same fields."""
    form = aiohttp.FormData()
    form.add_field("image", encoded(Shown().draw()), filename="a.png")
    for task in ("caption", "tags, ocr"):
        form.add_field("task", task)

    async with worker.session.post("/images/descriptions", data=form) as answer:
        told = await answer.json()

    assert (told["caption"], told["tags"]) == ("a red circle", ["circle"])
    assert told["ocr_text"] == "RED CIRCLE"


@pytest.mark.parametrize(
    ("words", "heard"),
    [
        ("describe this image", "top left"),
        ("What is in this picture?", "a red circle"),
        ("<CAPTION>", "a red circle"),
        ("<image>\n<DETAILED_CAPTION>", "top left"),
        ("Describe it in detail, please.", "white"),
        ("read the text", "RED CIRCLE"),
        ("tags", "circle"),
        ("", "a red circle"),
        ("</s><loc_5> <image> caption <CAPTION>", "a red circle"),
    ],
)
async def test_chat_understands(worker: launch.Launched, words: str, heard: str) -> None:
    """Plain words and task tokens get prose; markup in words does no harm."""
    reply = await chat(worker, words)

    assert heard in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize(
    ("words", "key", "label"),
    [
        ("find the objects", "bboxes", "circle"),
        ("<OD>", "bboxes", "circle"),
        ("<OCR_WITH_REGION>", "quad_boxes", "RED"),
        ("<CAPTION_TO_PHRASE_GROUNDING>a red circle", "bboxes", "a red circle"),
        ("<OPEN_VOCABULARY_DETECTION>circle", "bboxes", "circle"),
    ],
)
async def test_chat_tells_boxes_as_json(
    worker: launch.Launched, words: str, key: str, label: str
) -> None:
    """Tasks about places answer with transformers' own names, in pixels."""
    told = json.loads((await chat(worker, words)).choices[0].message.content)

    assert label in told["labels"][0]
    assert told[key][0][:2] == pytest.approx(Shown().box(320, 320)[:2], abs=7)
    assert 0 < told["confidences"][0] <= 1


async def test_chat_streams_text_as_it_comes(worker: launch.Launched) -> None:
    """The pieces of a stream are words, then the reason to stop, then the usage."""
    events = await chat(worker, "<CAPTION>", stream=True, stream_options={"include_usage": True})

    chunks = [chunk async for chunk in events]

    pieces = [chunk.choices[0].delta.content for chunk in chunks[:-2]]
    assert "".join(pieces) == "a red circle"
    assert len(pieces) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > len(pieces)


async def test_a_stream_names_the_role_once(worker: launch.Launched) -> None:
    """The first delta says who speaks, the others only what."""
    chunks = [chunk async for chunk in await chat(worker, "<CAPTION>", stream=True)]
    roles = [chunk.choices[0].delta.role for chunk in chunks if chunk.choices]

    assert roles == ["assistant"] + [None] * (len(roles) - 1)


async def test_chat_streams_boxes_in_one_piece(worker: launch.Launched) -> None:
    """Half of a JSON text would be of no use."""
    chunks = [chunk async for chunk in await chat(worker, "<OD>", stream=True)]

    assert json.loads(chunks[0].choices[0].delta.content)["labels"] == ["circle"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]


async def test_a_cut_answer_says_length(worker: launch.Launched) -> None:
    """`max_tokens` bounds the answer and shows in the reason."""
    reply = await chat(worker, "<MORE_DETAILED_CAPTION>", max_tokens=4)

    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 4


async def test_clients_at_once_get_their_own_answers(worker: launch.Launched) -> None:
    """Requests share one engine and mix nothing up."""
    pictures = [Shown(c, s) for c, s in itertools.product(shown.COLOURS, shown.SHAPES)]

    told = await asyncio.gather(*(describe(worker, picture.draw()) for picture in pictures))

    assert [answer["caption"] for answer in told] == [str(picture) for picture in pictures]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
async def test_any_mode_of_png_is_read(worker: launch.Launched, mode: str) -> None:
    """Grey, palette, transparent and 16-bit pictures get an answer."""
    image = Shown().draw().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = image.convert("I").point(lambda value: value * 257).convert("I;16")

    assert (await describe(worker, encoded(image)))["status"] == 200


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (320, 320), "blue")]}),
    ],
)
async def test_the_first_frame_of_any_format(
    worker: launch.Launched, kind: str, how: dict[str, Any]
) -> None:
    """An animation counts as its first picture."""
    told = await describe(worker, encoded(Shown("green").draw(), kind, **how))

    assert told["caption"] == "a green circle"


async def test_cmyk_is_read_in_true_colours(worker: launch.Launched) -> None:
    """A JPEG for print is no different."""
    told = await describe(worker, encoded(Shown().draw().convert("CMYK"), "JPEG", quality=95))

    assert told["caption"] == "a red circle"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_image"),
        (b"GIF89a nothing", 400, "invalid_image"),
        (encoded(Shown().draw())[:700], 400, "invalid_image"),
        (encoded(Shown().draw(), "JPEG")[:1500], 400, "invalid_image"),
        (shown.png_header(60_000, 60_000), 400, "image_too_large"),
        (shown.png_header(2_001, 2_000), 400, "image_too_large"),
    ],
    ids=["empty", "garbage", "cut PNG", "cut JPEG", "3.6 GP", "just too large"],
)
async def test_bad_pictures_are_refused(
    worker: launch.Launched, raw: bytes, status: int, code: str
) -> None:
    """What is no picture, or too large a one, is the client's mistake."""
    told = await describe(worker, raw)

    assert (told["status"], told["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"image": "http://example.com/a.png"}, "unsupported_image_url"),
        ({"image": "file:///etc/passwd"}, "unsupported_image_url"),
        ({"task": "caption"}, "missing_field"),
        ({"image": data_uri(encoded(Shown().draw())), "task": "poem"}, "unknown_task"),
        ({"image": data_uri(encoded(Shown().draw())), "task": []}, "invalid_value"),
        ({"image": data_uri(encoded(Shown().draw())), "task": [5]}, "invalid_value"),
    ],
)
async def test_bad_descriptions_are_refused(
    worker: launch.Launched, body: dict[str, Any], code: str
) -> None:
    """Each mistake has its code, and the message says what would be right."""
    error = (await worker.post("/v1/images/descriptions", body, status=400))["error"]

    assert error["code"] == code
    if code == "unknown_task":
        assert "use any of caption, detailed_caption, more_detailed_caption" in error["message"]


async def test_a_broken_form_is_refused(worker: launch.Launched) -> None:
    """A body that is not the form it claims to be is a 400."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with worker.session.post(
        "/v1/images/descriptions", data=b"nothing like a form", headers=headers
    ) as answer:
        assert answer.status == 400


IMAGE_PART = message("", Shown())["content"][1]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("describe this image", "one_image_needed"),
        ([TEXT_PART, IMAGE_PART, IMAGE_PART], "one_image_needed"),
        ([{"type": "text", "text": "<NOPE>"}, IMAGE_PART], "unknown_task"),
        ([{"type": "text", "text": "<OD> cars"}, IMAGE_PART], "invalid_value"),
        ([{"type": "text", "text": "<REGION_TO_OCR>here"}, IMAGE_PART], "invalid_value"),
        ([{"type": "text", "text": "x" * 20_001}, IMAGE_PART], "prompt_too_long"),
        (
            [
                {"type": "text", "text": "<OPEN_VOCABULARY_DETECTION>" + "red " * 1500},
                IMAGE_PART,
            ],
            "prompt_too_long",
        ),
        ([TEXT_PART, {"type": "input_audio", "input_audio": {}}], "invalid_value"),
        (
            [TEXT_PART, {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}],
            "unsupported_image_url",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_chats_are_refused(
    worker: launch.Launched, content: Any, code: str, *, stream: bool
) -> None:
    """A mistake is a plain 400 with its code, when a stream was asked for too."""
    messages: Any = [{"role": "user", "content": content}]

    with pytest.raises(openai.BadRequestError) as raised:
        await worker.openai().chat.completions.create(
            model="seer", messages=messages, stream=stream
        )

    assert raised.value.code == code


async def test_a_client_that_leaves_does_not_hold_the_others(worker: launch.Launched) -> None:
    """After streams that were dropped at their first word, the next answer is right."""
    client = worker.openai()
    for _ in range(3):
        events = await client.chat.completions.create(
            model="seer", messages=[message("<MORE_DETAILED_CAPTION>", Shown())], stream=True
        )
        await anext(aiter(events))
        await events.close()

    assert (await describe(worker, Shown("blue").draw()))["caption"] == "a blue circle"


async def test_sigterm_during_work_ends_the_process_well(models: Path, tmp_path: Path) -> None:
    """A worker told to stop exits 0, work or not; a repository's id finds the hub cache."""
    repository = tmp_path / "models--acme--tiny"
    shutil.copytree(models / "florence2", repository / "snapshots" / "c0ffee")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    options = OPTIONS | {"model": "acme/tiny"}
    async with launch.launched("florence2", options, {"HF_HUB_CACHE": str(tmp_path)}) as worker:
        events = await chat(worker, "<MORE_DETAILED_CAPTION>", stream=True)
        await anext(aiter(events))

        worker.process.send_signal(signal.SIGTERM)

        assert await worker.process.wait() == 0


async def test_damaged_files_fail_the_start_at_once(models: Path, tmp_path: Path) -> None:
    """What the checks find is told before anything is loaded."""
    shutil.copytree(models / "florence2", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()

    with pytest.raises(launch.StartFailed, match=r"tokenizer\.json") as raised:
        async with launch.launched("florence2", {"model": str(tmp_path / "model")}):
            pass

    assert raised.value.reason == "bad_file"
