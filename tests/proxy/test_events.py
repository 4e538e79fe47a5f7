"""The stream of events: its frames, what comes first, and what comes when."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.routes import events
from proxy.routes.feed import NEWS, Feed
from tests.proxy.served import Gate, Hotseat, first_event, served

CONFIG = """
models:
  a: {name: A, description: first, aliases: [aa], echo: {says: a is up}}
  b: {unlisted: true, echo: {}}
profiles: {night: {pins: {a: b}}}
peers: {far: {proxy: "http://127.0.0.1:9", models: [m]}}
"""
FRAME = re.compile(rb"event:message\ndata:(\{.*\})\n\n")
FIRST = ["logData", "logData", "modelStatus", "uiConfig", "profileChanged", "inflight"]


class Reader:
    """Reads events, one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def frame(self) -> bytes:
        lines = [await self._response.content.readline()]
        while lines[-1] != b"\n":
            assert lines[-1], "the stream ended"
            lines.append(await self._response.content.readline())
        return b"".join(lines)

    async def next(self) -> tuple[str, Any]:
        """Give the next event's type and data; comments are none."""
        while (frame := await self.frame()).startswith(b":"):
            pass
        found = FRAME.fullmatch(frame)
        assert found is not None, frame
        event = json.loads(found[1])
        assert event.keys() == {"type", "data"}
        return event["type"], json.loads(event["data"])

    async def until(self, kind: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """Read on to the first event of this type that fits."""
        while True:
            told, data = await self.next()
            if told == kind and fits(data):
                return data


@asynccontextmanager
async def reading(hotseat: Hotseat) -> AsyncIterator[Reader]:
    """Read the events for the length of the block; what is there at first is read already."""
    async with hotseat.session.get("/api/events") as response:
        reader = Reader(response)
        await reader.until("inflight")
        yield reader
        response.close()


def state_of(model: str, state: str) -> Callable[[list[Mapping[str, Any]]], bool]:
    return lambda models: {m["id"]: m["state"] for m in models}[model] == state


async def test_at_first_comes_all_that_is_known(tmp_path: Path) -> None:
    """In the order that readers expect, each as a frame of its own."""
    async with served(CONFIG, tmp_path) as hotseat:
        await hotseat.chat("a")
        async with hotseat.session.get("/api/events") as response:
            reader = Reader(response)
            told = [await reader.next() for _ in FIRST]
            response.close()
        headers = response.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert headers["X-Accel-Buffering"] == "no"
    assert [kind for kind, _ in told] == FIRST
    own, workers, models, ui, profile, inflight = [data for _, data in told]
    assert own["source"] == "proxy"
    assert " swap came=a" in own["data"]
    assert workers == {"source": "upstream", "data": "a is up\n"}
    assert models == [
        {
            "id": "a",
            "name": "A",
            "description": "first",
            "state": "ready",
            "unlisted": False,
            "peerID": "",
            "aliases": ["aa"],
            "capabilities": models[0]["capabilities"],
        },
        {**models[1], "id": "b", "state": "stopped", "unlisted": True},
        {**models[2], "id": "far/m", "peerID": "far"},
    ]
    assert ui == {"activity": {"session_id": ["X-Session-ID", "X-Litellm-Session-Id"]}}
    assert profile == {"active": None}
    assert inflight == {"operation": "snapshot", "requests": []}


async def test_a_models_states_are_told_as_they_change(tmp_path: Path) -> None:
    """Starting, ready, stopping, stopped; nobody has to ask."""
    async with served(CONFIG, tmp_path) as hotseat, reading(hotseat) as reader:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hotseat.chat("b"))
            for state in ("starting", "ready"):
                await reader.until("modelStatus", state_of("b", state))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hotseat.post("/api/models/unload/b"))
            for state in ("stopping", "stopped"):
                await reader.until("modelStatus", state_of("b", state))


async def test_log_lines_come_with_their_source(tmp_path: Path) -> None:
    """The proxy's own, and the workers'."""
    async with served(CONFIG, tmp_path) as hotseat, reading(hotseat) as reader:
        await hotseat.chat("a")
        own = await reader.until("logData", lambda data: " swap came=a" in data["data"])
        await hotseat.chat("a", says="hello")
        theirs = await reader.until("logData", lambda data: "hello" in data["data"])

    assert (own["source"], theirs["source"]) == ("proxy", "upstream")


async def test_a_request_is_told_from_its_begin_to_its_end(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """It comes, its answer grows, it goes, and there is an entry for it."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, reading(hotseat) as reader:
        switches = {"gate": str(held.path), "gate_after": 1, "tokens": 2}
        async with hotseat.stream("a", **switches) as stream:
            came = await reader.until("inflight")
            await first_event(stream)
            size = came["request"]["resp_bytes"]
            grown = await reader.until(
                "inflight", lambda data: data["request"]["resp_bytes"] > size
            )
            await held.reached()
            held.open()
            await stream.read()
            gone = await reader.until("inflight", lambda data: data["operation"] == "remove")
            ended = await reader.until("activity")

    number = came["request"]["id"]
    assert (came["operation"], came["request"]["model"]) == ("upsert", "a")
    assert (came["request"]["method"], came["request"]["remote_ip"]) == ("POST", "127.0.0.1")
    assert (grown["operation"], grown["request"]["id"]) == ("upsert", number)
    assert gone == {"operation": "remove", "id": number}
    assert ended == {"id": number}


async def test_a_reader_that_comes_late_hears_of_who_is_on_his_way(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """In the first snapshot."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        async with hotseat.session.get("/api/events") as response:
            snapshot = await Reader(response).until("inflight")
            response.close()
        held.open()

    assert [flight["model"] for flight in snapshot["requests"]] == ["a"]


async def test_the_active_profile_is_told(tmp_path: Path) -> None:
    """When it changes."""
    async with served(CONFIG, tmp_path) as hotseat, reading(hotseat) as reader:
        for name in ("night", None):
            async with hotseat.session.put("/api/profiles/active", json={"name": name}):
                pass
            assert await reader.until("profileChanged") == {"active": name}


async def test_readers_are_let_go_when_the_server_leaves(tmp_path: Path) -> None:
    """Their stream ends well, and nobody waits for them."""
    async with aiohttp.ClientSession() as session:
        async with served(CONFIG, tmp_path) as hotseat:
            response = await session.get(f"{hotseat.url}/api/events")
            reader = Reader(response)
            await reader.until("inflight")

        rest = await response.read()
    assert rest == b"" or rest.endswith(b"\n\n")


async def test_silence_is_broken_by_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those between give up on a connection that says nothing."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with served(CONFIG, tmp_path) as hotseat, reading(hotseat) as reader:
        assert await reader.frame() == b": \n\n"


def test_a_slow_listener_loses_the_oldest_and_blocks_nobody() -> None:
    """And it knows, so that it can be told anew."""
    feed = Feed()
    with feed.listening(lambda _: True) as slow, feed.listening(lambda _: True) as quick:
        for number in range(NEWS + 10):
            feed.tell("x", number)
            quick.take()

        assert [data for _, data in slow.take()] == list(range(10, NEWS + 10))
        assert (slow.has_lost, quick.has_lost) == (True, False)
    assert not feed.is_heard
