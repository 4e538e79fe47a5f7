"""The main job: real engines behind one endpoint, driven by the real openai client."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai
import psutil
import pytest

from tests.proxy.painted import PAINTER
from tests.proxy.served import Hotseat, served, workers_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

CONFIG = (
    PAINTER
    + """
models:
  chat:
    llama: {{model: {models}/chat.gguf, n_threads: 1, defaults: {{temperature: 0}}}}
  llava:
    llama:
      model: {models}/chat.gguf
      mmproj: {models}/llava-mmproj.gguf
      n_threads: 1
      defaults: {{temperature: 0}}
  minicpm-v:
    llama:
      model: {models}/chat.gguf
      mmproj: {models}/minicpmv-mmproj.gguf
      n_threads: 1
      defaults: {{temperature: 0}}
  painter:
    aliases: [gpt-image-1]
    sd:
      <<: *painter
      defaults: {{width: 64, height: 64, steps: 4}}
  florence-2:
    florence2: {{model: {models}/florence2, n_threads: 1}}
  embed:
    llama: {{model: {models}/embed.gguf, embedding: true, n_threads: 1}}
"""
)


@pytest.fixture
def config(models: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the config of all engines; threads that wait must not spin on two busy cores."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return CONFIG.format(models=models)


def see(picture: str, text: str) -> list[dict[str, object]]:
    uri = f"data:image/png;base64,{picture}"
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


class Client:
    """Asks each kind of question once, and says whether the answer was right."""

    def __init__(self, client: openai.AsyncOpenAI, picture: str) -> None:
        self._client = client
        self._picture = picture  # a red circle

    async def chat(self) -> bool:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = await self._client.chat.completions.create(model="chat", messages=question)
        return "Paris" in answer.choices[0].message.content

    async def stream(self) -> bool:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        chunks = await self._client.chat.completions.create(
            model="chat", messages=question, stream=True
        )
        text = [c.choices[0].delta.content or "" async for c in chunks if c.choices]
        return "Paris" in "".join(text)

    async def paint(self) -> bool:
        answer = await self._client.images.generate(model="gpt-image-1", prompt="a red circle")
        return base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG")

    async def caption(self) -> bool:
        return await self._see("florence-2", "<CAPTION>")

    async def llava(self) -> bool:
        return await self._see("llava", "What is in this picture?")

    async def minicpm(self) -> bool:
        return await self._see("minicpm-v", "What is in this picture?")

    async def _see(self, model: str, text: str) -> bool:
        messages = see(self._picture, text)
        answer = await self._client.chat.completions.create(model=model, messages=messages)
        return "red circle" in answer.choices[0].message.content

    async def embed(self) -> bool:
        answer = await self._client.embeddings.create(model="embed", input=["a red circle"])
        return abs(sum(x * x for x in answer.data[0].embedding) - 1) < 1e-3

    @property
    def all(self) -> list[Callable[[], Awaitable[bool]]]:
        return [
            *(self.chat, self.stream, self.paint, self.caption),
            *(self.llava, self.minicpm, self.embed),
        ]


async def painted(hotseat: Hotseat) -> str:
    """Let the painter paint the red circle that the others are asked about."""
    client = hotseat.openai()
    answer = await client.images.generate(
        model="painter", prompt="a red circle", size="128x128", extra_body={"steps": 4, "seed": 1}
    )
    return answer.data[0].b64_json


async def test_each_engine_in_turn(config: str, tmp_path: Path) -> None:
    """Chat, paint, caption what was painted, embed, chat again: each answer is right."""
    async with served(config, tmp_path) as hotseat:
        client = Client(hotseat.openai(), await painted(hotseat))

        for ask in (client.chat, client.paint, client.caption, client.embed, client.stream):
            assert await ask(), ask.__name__
            assert len(workers_of(os.getpid())) == 1


async def test_a_streamed_chat_shows_its_tokens(config: str, tmp_path: Path) -> None:
    """The list of activity has how many there were and how fast they came, though none asked."""
    async with served(config, tmp_path) as hotseat:
        assert await Client(hotseat.openai(), "").stream()

        [entry] = (await hotseat.get("/api/metrics/activity")).body["data"]

    tokens = entry["tokens"]
    assert tokens["input_tokens"] > 0
    assert tokens["output_tokens"] > 0
    assert tokens["prompt_per_second"] > 0
    assert tokens["tokens_per_second"] > 0


async def test_what_curl_sends_is_read_as_json(config: str, tmp_path: Path) -> None:
    """`curl -d` calls its JSON a form; every engine takes it for what it is."""
    bodies = {
        "chat/completions": '{"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}',
        "embeddings": '{"model": "embed", "input": "x"}',
        "images/generations": '{"model": "painter", "prompt": "red", "steps": 1}',
        "images/edits": '{"model": "painter", "prompt": "red", "steps": 1, "image": "%s"}',
        "images/descriptions": '{"model": "florence-2", "image": "%s"}',
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with served(config, tmp_path) as hotseat:
        picture = await painted(hotseat)
        for path, body in bodies.items():
            text = body.replace("%s", picture)
            answer = await hotseat.post(f"/v1/{path}", data=text, headers=headers)

            assert answer.status == 200, (path, answer.body)


class Watch:
    """Counts loaded workers in the process table, over and over, while others work.

    A worker renames its process before it loads. Two were there at once if both were seen, and
    both still were afterwards.
    """

    def __init__(self) -> None:
        self.most = 0
        self.seen: set[str] = set()

    async def look(self) -> None:
        me = psutil.Process()
        while True:
            loaded = await asyncio.to_thread(lambda: [c for c in me.children() if is_loaded(c)])
            still = [child for child in loaded if is_loaded(child)]
            self.most = max(self.most, len(still))
            self.seen |= {child.name() for child in still if is_loaded(child)}


def is_loaded(process: psutil.Process) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.name().startswith("hotseat-")
    except psutil.NoSuchProcess:
        return False


async def test_fifty_requests_of_five_clients_in_random_order(config: str, tmp_path: Path) -> None:
    """All are answered rightly, and never does a second loaded worker live."""
    rng = random.Random(7)  # noqa: S311  # an order, not a secret
    async with served(config, tmp_path) as hotseat:
        picture = await painted(hotseat)
        clients = [Client(hotseat.openai(), picture) for _ in range(5)]
        watch = Watch()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch.look())
            orders = [rng.choices(client.all, k=10) for client in clients]
            jobs = [tasks.create_task(in_order(order)) for order in orders]
            right = [await job for job in jobs]
            watching.cancel()

        assert right == [[True] * 10] * 5
        assert watch.most == 1
        assert len(watch.seen) == 3


async def in_order(asks: list[Callable[[], Awaitable[bool]]]) -> list[bool]:
    return [await ask() for ask in asks]
