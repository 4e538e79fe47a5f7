"""A model that only reads hears from Florence-2 what is in a picture: real engines and client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.proxy.served import Hotseat, served
from tests.workers.drawn import data_uri, encoded
from tests.workers.florence2_pictures import Shown

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CONFIG = """
vision_fallback: florence-2
models:
  reader: {{llama: {{model: {models}/chat.gguf, n_threads: 1, defaults: {{temperature: 0}}}}}}
  florence-2: {{florence2: {{model: {models}/florence2, n_threads: 1}}, pin: true}}
  echo: {{echo: {{}}, capabilities: [chat], vision_fallback: llava}}
  llava:
    llama:
      model: {models}/chat.gguf
      mmproj: {models}/llava-mmproj.gguf
      n_threads: 1
      defaults: {{temperature: 0}}
"""
QUESTION = {"type": "text", "text": "What is in this picture?"}


def turn(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [*parts]}]


async def described(hotseat: Hotseat, uri: str) -> str:
    """Ask the describer itself, and put it as the chat's model should hear it."""
    tasks = ["detailed_caption", "objects", "ocr"]
    body = {"model": "florence-2", "image": uri, "task": tasks}
    answer = await hotseat.post("/v1/images/descriptions", json=body)
    assert answer.status == 200, answer.body
    labels = dict.fromkeys(place["label"] for place in answer.body["objects"])
    found = f" Objects: {', '.join(labels)}." if labels else ""
    text = f' Text in it: "{answer.body["ocr_text"]}".' if answer.body["ocr_text"] else ""
    return f"[Picture 1: {answer.body['detailed_caption'].rstrip('.')}.{found}{text}]"


async def test_a_reader_hears_what_florence_sees(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine's prompt is, token for token, that of who types the description himself.

    So is its answer, streamed or whole; the pinned describer costs no swap, and is asked once.
    """
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    uri = data_uri(encoded(Shown("red", "square").draw()))
    shown = turn({"type": "image_url", "image_url": {"url": uri}}, QUESTION)
    async with served(CONFIG.format(models=models), tmp_path) as hotseat:
        words = await described(hotseat, uri)
        chats = hotseat.openai().chat.completions
        typed = turn({"type": "text", "text": words}, QUESTION)
        expected = await chats.create(model="reader", messages=typed, max_tokens=24)
        before = (await hotseat.get("/api/swaps")).body
        raw = await chats.with_raw_response.create(model="reader", messages=shown, max_tokens=24)
        events = await chats.with_raw_response.create(
            model="reader",
            messages=shown,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in events.parse()]
        after = (await hotseat.get("/api/swaps")).body

    answer = raw.parse()
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "a red square" in words
    assert answer.choices[0].message.content == said == expected.choices[0].message.content
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert chunks[-1].usage.prompt_tokens == expected.usage.prompt_tokens
    marks = [one.headers["X-Vision-Fallback"] for one in (raw, events)]
    assert marks == [f"florence-2; pictures=1; described={n}" for n in (1, 0)]
    assert after == before


async def test_a_chat_model_that_sees_may_lend_its_eyes(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without being pinned: it has its turn, and then the one who asked."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    uri = data_uri(encoded(Shown("red", "square").draw()))
    shown = turn({"type": "image_url", "image_url": {"url": uri}}, QUESTION)
    config = CONFIG.format(models=models).replace(", pin: true", "")
    async with served(config, tmp_path) as hotseat:
        chats = hotseat.openai().chat.completions
        raw = await chats.with_raw_response.create(model="echo", messages=shown)

    assert "[Picture 1: The picture shows a red square." in raw.parse().choices[0].message.content
    assert raw.headers["X-Vision-Fallback"] == "llava; pictures=1; described=1"
    assert raw.headers["X-Swap"] == "llava"
