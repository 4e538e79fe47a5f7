"""Descriptions through the proxy: the real Florence-2, pinned beside models that take turns."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.proxy.served import Hotseat, served
from tests.workers.drawn import data_uri, encoded
from tests.workers.florence2_pictures import Shown

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

CONFIG = """
models:
  big: {{echo: {{reply: I am big}}}}
  bigger: {{echo: {{reply: I am bigger}}}}
  florence-2:
    florence2: {{model: {models}/florence2, n_threads: 1}}
    pin: true
"""
PICTURES = [Shown("red"), Shown("green", "square"), Shown("blue"), Shown("blue", "square")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hotseat]:
    folder = tmp_path_factory.mktemp("descriptions")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_WAIT_POLICY", "PASSIVE")
        environment.setenv("XDG_STATE_HOME", str(folder))
        async with served(CONFIG.format(models=models), folder) as ready:
            yield ready


def raw(picture: Shown) -> bytes:
    return encoded(picture.draw())


async def test_openais_client_asks_for_a_batch(hotseat: Hotseat) -> None:
    """By its `post`, as it has no method for descriptions: JSON, and then a stream."""
    client = hotseat.openai()
    images = [data_uri(raw(picture)) for picture in PICTURES]
    body = {"model": "florence-2", "images": images, "task": "caption"}

    told: Any = await client.post("/images/descriptions", body=body, cast_to=object)
    stream = await client.post(
        "/images/descriptions",
        body={**body, "stream": True},
        cast_to=object,
        stream=True,
        stream_cls=openai.AsyncStream[Any],
    )
    events = [event async for event in stream]

    assert [entry["caption"] for entry in told["data"]] == [str(p) for p in PICTURES]
    captions = {event["index"]: event["caption"] for event in events[:-1]}
    assert [captions[index] for index in range(len(PICTURES))] == [str(p) for p in PICTURES]
    assert events[-1]["type"] == "image_descriptions.done"


async def test_curl_sends_a_form(hotseat: Hotseat, tmp_path: Path) -> None:
    """Two files of a form are a batch; all in one command."""
    words = list[str]()
    for number, picture in enumerate(PICTURES[:2]):
        (tmp_path / f"{number}.png").write_bytes(raw(picture))
        words += ["-F", f"image[]=@{tmp_path}/{number}.png"]
    words += ["-F", "model=florence-2", "-F", "task=caption,tags"]

    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", *words, f"{hotseat.url}/v1/images/descriptions"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    told = [(entry["caption"], entry["tags"]) for entry in json.loads(out)["data"]]
    assert told == [("a red circle", ["circle"]), ("a green square", ["square"])]


async def test_a_chat_with_a_tasks_token_is_as_it_was(hotseat: Hotseat) -> None:
    """Clients that know nothing of descriptions ask in a conversation."""
    parts = [
        {"type": "image_url", "image_url": {"url": data_uri(raw(PICTURES[1]))}},
        {"type": "text", "text": "<DETAILED_CAPTION>"},
    ]

    answer = await hotseat.openai().chat.completions.create(
        model="florence-2",
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item]  # plain dicts
    )

    text = answer.choices[0].message.content
    assert text == "a green square in the top left of the picture"


async def test_what_is_wrong_keeps_its_status(hotseat: Hotseat) -> None:
    """A mistake is a 4xx in words, and nobody is asked to try it again."""
    picture = base64.b64encode(raw(PICTURES[0])).decode()
    for body, status, code in (
        ({"image": picture, "task": "poem"}, 400, "unknown_task"),
        ({"image": picture, "task": "region_to_ocr"}, 400, "missing_field"),
        ({"image": "AAAA"}, 400, "invalid_image"),
        ({"images": ["AAAA", "AAAA"], "stream": True}, 400, "invalid_image"),
    ):
        whole = {"model": "florence-2", **body}
        answer = await hotseat.post("/v1/images/descriptions", json=whole)

        assert (answer.status, answer.error["code"]) == (status, code)


async def test_a_pinned_describer_costs_no_swap(hotseat: Hotseat) -> None:
    """Whoever sits beside it: nobody leaves for it, nor does it leave for anybody."""
    body = {"model": "florence-2", "image": data_uri(raw(PICTURES[2]))}
    await hotseat.post("/v1/images/descriptions", json=body)

    for model in ("big", "bigger", "big"):
        await hotseat.chat(model)
        before, swaps = await hotseat.running(), await hotseat.get("/api/swaps")
        told = await hotseat.post("/v1/images/descriptions", json=body)

        assert told.body["caption"] == "a blue circle"
        assert (await hotseat.get("/api/swaps")).body == swaps.body
        assert pids(await hotseat.running()) == pids(before)
        assert before.keys() == {"florence-2", model}


def pids(running: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {model: entry["pid"] for model, entry in running.items()}
