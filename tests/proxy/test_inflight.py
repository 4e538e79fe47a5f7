"""The requests that are on their way: who they are, and how one of them is ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.proxy.served import Gate, Hotseat, first_event, served


async def until_inflight(hotseat: Hotseat, count: int) -> list[dict[str, Any]]:
    """Ask until so many are; each question is a round trip, not a pause."""
    while True:
        flights: list[dict[str, Any]] = (await hotseat.get("/api/inflight")).body["requests"]
        if len(flights) == count:
            return flights


async def test_a_cancelled_request_gets_an_error(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Served or queued: JSON in words, never an empty answer; the worker's job ends."""
    held = gate()
    config = "models: {a: {concurrencyLimit: 1, echo: {}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        second = tasks.create_task(hotseat.chat("a"))
        flights = await until_inflight(hotseat, 2)
        for flight in reversed(flights):
            told = await hotseat.post(f"/api/inflight/{flight['id']}/cancel")
            assert (told.status, told.body) == (200, {"msg": "ok"})
        served_answer, queued_answer = await first, await second
        held.open()
        later = await hotseat.chat("a")
        entries = (await hotseat.get("/api/metrics/activity")).body["data"]

    for answer in (served_answer, queued_answer):
        assert (answer.status, answer.error["code"]) == (499, "cancelled")
    assert [(entry["method"], entry["model"]) for entry in flights] == [("POST", "a")] * 2
    assert later.status == 200
    assert [entry["resp_status_code"] for entry in entries] == [200, 499, 499]


async def test_a_cancelled_stream_looks_broken(tmp_path: Path) -> None:
    """An error event, then no clean end."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        async with hotseat.stream("a", hang_after=1, tokens=9) as stream:
            await first_event(stream)
            [flight] = await until_inflight(hotseat, 1)
            await hotseat.post(f"/api/inflight/{flight['id']}/cancel")
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
        assert (await hotseat.chat("a")).status == 200

    assert flight["resp_bytes"] > 0
    assert flight["resp_headers"]["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize("number", ["99", "x", "0", "-1", "9" * 40])
async def test_only_what_is_on_its_way_can_be_cancelled(tmp_path: Path, number: str) -> None:
    """Anything else is a 404."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        answer = await hotseat.post(f"/api/inflight/{number}/cancel")

    assert answer.status == 404
    assert "inflight request not found" in answer.error["message"]


async def test_keys_are_not_shown(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Of headers that let one in, only the names are."""
    held = gate()
    config = "{apiKeys: [sesame], models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        hotseat.session.headers["Authorization"] = "Bearer sesame"
        hotseat.session.headers["api-key"] = "sesame"
        asking = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        [flight] = await until_inflight(hotseat, 1)
        held.open()

    assert asking.result().status == 200
    assert flight["req_headers"]["Authorization"] == "[REDACTED]"
    assert "sesame" not in json.dumps(flight)
