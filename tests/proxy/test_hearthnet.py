"""HearthNet's client: a kind of picture part of its own, no /v1, and no patience with silence."""

from __future__ import annotations

import asyncio
import json
from asyncio import TaskGroup
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from tests.proxy.describer import picture, uri
from tests.proxy.served import Gate, Hotseat, served
from tests.proxy.test_sight import image_url, stored
from tests.proxy.test_sight_words import CONFIG

SILENCE_S = 1.0  # of 60: times here are a fraction of its own, and of ours
NOTES = "waitingNotes: 100ms\n"


class Hearth:
    """Speaks as its backend for OpenAI's servers does: chats alone, and nothing else of them."""

    def __init__(self, hotseat: Hotseat, **echo: str) -> None:
        self._echo = {"echo": echo} if echo else {}  # switches of the worker
        self._client = httpx2.AsyncClient(base_url=hotseat.url, timeout=SILENCE_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def chat(self, model: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        response = await self._client.post(
            "/chat/completions", json={**_body(model, messages), **self._echo}
        )
        told = response.raise_for_status().json()
        usage = told.get("usage", {})
        return {
            "text": told["choices"][0]["message"]["content"],
            "tokens_in": usage.get("prompt_tokens", 0),
            "tokens_out": usage.get("completion_tokens", 0),
        }

    async def stream(self, model: str, messages: Sequence[Mapping[str, Any]]) -> str:
        body = {**_body(model, messages), "stream": True}
        async with self._client.stream("POST", "/chat/completions", json=body) as response:
            response.raise_for_status()
            lines = [line async for line in response.aiter_lines()]
        return "".join(_words(lines))


def _body(model: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "model": model,
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 64,
        "stream": False,
    }


def _words(lines: Sequence[str]) -> Iterator[str]:
    """Read what begins as an event does; what cannot be read is passed by, as it does it."""
    for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            return
        try:
            yield json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        except (ValueError, LookupError):
            continue


def turn(*parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}]


async def test_it_chats_at_the_root(tmp_path: Path) -> None:
    """Whole answers with their counts, and streams."""
    messages = [{"role": "user", "content": "good evening"}]
    async with served(CONFIG, tmp_path) as hotseat, Hearth(hotseat) as hearth:
        await hotseat.chat("loud")
        whole = await hearth.chat("loud", messages)
        stream = await hearth.stream("loud", messages)

    assert whole == {"text": "echo: good evening", "tokens_in": 1, "tokens_out": 1}
    assert stream.replace(" ", "") == "echo:goodevening"


async def test_its_pictures_are_found_by_what_they_hold(tmp_path: Path) -> None:
    """Its parts name a picture that was sent earlier; a model that sees gets the picture."""
    raw = picture(caption="x")
    async with served(CONFIG + "  ears: {echo: {}}\n", tmp_path) as hotseat:
        name = await stored(hotseat, raw)
        async with Hearth(hotseat) as hearth:
            await hotseat.chat("ears")
            told = await hearth.chat("ears", turn({"type": "image", "image_cid": name}))

    assert told["text"] == f"echo: {turn(image_url(uri(raw)))[0]['content']}"


async def test_it_hears_something_while_a_model_loads(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A stream of it outlives a load that is longer than its patience with silence."""
    wait = gate()
    config = f"{NOTES}models: {{slow: {{echo: {{load_gate: '{wait.path}'}}}}}}"
    async with (
        served(config, tmp_path) as hotseat,
        Hearth(hotseat) as hearth,
        TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hearth.stream("slow", turn({"type": "text", "text": "hi"})))
        await wait.reached()
        await asyncio.wait({asked}, timeout=1.5 * SILENCE_S)  # what it would not bear in silence
        assert not asked.done()
        wait.open()

    assert "hi" in asked.result()


@pytest.mark.parametrize("place", ["load_gate", "gate"])
async def test_it_waits_for_a_whole_answer(
    tmp_path: Path, gate: Callable[[], Gate], place: str
) -> None:
    """Without a stream too, whether it is the load that takes long or the answer."""
    wait = gate()
    at_load = f"load_gate: '{wait.path}'" if place == "load_gate" else ""
    config = f"{NOTES}models: {{slow: {{echo: {{{at_load}}}}}}}"
    said = turn({"type": "text", "text": "hi"})
    async with (
        served(config, tmp_path) as hotseat,
        Hearth(hotseat, **({} if at_load else {"gate": str(wait.path)})) as hearth,
        TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hearth.chat("slow", said))
        await wait.reached()
        await asyncio.wait({asked}, timeout=1.5 * SILENCE_S)  # what it would not bear in silence
        assert not asked.done()
        wait.open()

    assert "hi" in asked.result()["text"]


async def test_it_hears_something_while_its_pictures_are_described(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Likewise before its model's turn: by then nothing was loaded for it at all."""
    wait = gate()
    part = image_url(uri(picture(caption="a cow", gate=str(wait.path))))
    config = NOTES + CONFIG
    async with (
        served(config, tmp_path) as hotseat,
        Hearth(hotseat) as hearth,
        TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hearth.stream("loud", turn(part)))
        await wait.reached()
        await asyncio.wait({asked}, timeout=1.5 * SILENCE_S)  # what it would not bear in silence
        assert not asked.done()
        assert list(await hotseat.running()) == ["eyes"]
        wait.open()

    assert "cow" in asked.result()
