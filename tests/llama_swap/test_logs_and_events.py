"""What is said while it works: logs, events, activity, requests in flight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import house
from tests.proxy.served import Gate, Hotseat, served

CONFIG = """
groups: {all: {swap: false, members: [a, b]}}
ui: {activity: {session_id: [X-My-Session]}}
models:
  a: {cmd: "ECHO --reply a --says 'a is up'", aliases: [al]}
  b: {cmd: "ECHO --reply b --says 'b is up'"}
  never: {cmd: "ECHO", unlisted: true, description: rests}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve two models that have said something."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("logs")) as one:
        await one.chat("a")
        await one.chat("b")
        yield one


async def test_logs_have_all_that_was_said(hotseat: Hotseat) -> None:
    """The proxy's lines and the workers', as plain text, also to a browser."""
    async with hotseat.session.get("/logs", headers={"Accept": "text/html"}) as answer:
        text = await answer.text()

        assert answer.content_type == "text/plain"
        assert "a is up" in text
        assert "swap came=b" in text


@pytest.mark.parametrize(
    ("source", "has", "has_not"),
    [
        ("", "a is up", None),
        ("/proxy", "swap came=a", "a is up"),
        ("/upstream", "b is up", "swap came="),
        ("/a", "a is up", "b is up"),
    ],
)
async def test_one_source_can_be_followed(
    hotseat: Hotseat, source: str, has: str, has_not: str | None
) -> None:
    """What was said before comes first, then what is being said."""
    async with hotseat.session.get(f"/logs/stream{source}") as stream:
        await hotseat.chat("a", says="the last of a")
        await hotseat.chat("b", says="the last of b")
        text = b""
        end = b"model=b" if source == "/proxy" else b"the last of a"
        while end not in text or has.encode() not in text:
            text += await stream.content.readany()

        assert stream.headers["X-Content-Type-Options"] == "nosniff"
        assert has_not is None or has_not.encode() not in text


async def test_history_can_be_left_out(hotseat: Hotseat) -> None:
    """Only what is said from now on."""
    async with hotseat.session.get("/logs/stream/a?no-history") as stream:
        await hotseat.chat("a", says="from now on")

        assert await stream.content.readline() == b"from now on\n"


async def test_an_unknown_source_is_told(hotseat: Hotseat) -> None:
    """With what there is."""
    answer = await hotseat.get("/logs/stream/zz")

    assert answer.status == 400
    assert "proxy" in answer.error["message"]


class Events:
    """What /api/events says, one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self, kind: str, with_text: str = "") -> Any:
        """Give the next event of this kind whose data has that text."""
        async for line in self._response.content:
            if line.startswith(b"data:"):
                event = json.loads(line.removeprefix(b"data:"))
                if event["type"] == kind and with_text in event["data"]:
                    return json.loads(event["data"])
        raise AssertionError(f"the events ended without {kind}")


@asynccontextmanager
async def listening(hotseat: Hotseat) -> AsyncIterator[Events]:
    async with hotseat.session.get("/api/events") as response:
        assert response.content_type == "text/event-stream"
        yield Events(response)


async def test_events_begin_with_how_things_stand(hotseat: Hotseat) -> None:
    """The kept lines of both logs, the models, the page's settings, the profile, who is served."""
    async with listening(hotseat) as events:
        proxy = await events.next("logData", "swap came=")
        workers = await events.next("logData", "a is up")
        models = {model["id"]: model for model in await events.next("modelStatus")}

        assert (proxy["source"], workers["source"]) == ("proxy", "upstream")
        assert models["a"]["state"] == "ready"
        assert models["a"]["aliases"] == ["al"]
        assert (models["never"]["state"], models["never"]["unlisted"]) == ("stopped", True)
        assert (await events.next("uiConfig"))["activity"]["session_id"] == ["X-My-Session"]
        assert (await events.next("profileChanged"))["active"] is None
        assert (await events.next("inflight"))["operation"] == "snapshot"


async def test_events_tell_of_models_that_come_and_go(hotseat: Hotseat) -> None:
    """Every change of a state is one."""

    async def state() -> str:
        models = await events.next("modelStatus")
        return next(str(model["state"]) for model in models if model["id"] == "a")

    await hotseat.chat("a")
    async with listening(hotseat) as events:
        first = await state()
        await hotseat.post("/api/models/unload/a")
        seen = [first]
        while seen[-1] != "stopped":
            seen.append(await state())
        await hotseat.chat("a")
        while seen[-1] != "ready":
            seen.append(await state())

    assert seen[0] == "ready"
    assert set(seen) == {"ready", "stopping", "stopped", "starting"}


async def test_events_tell_of_requests(hotseat: Hotseat, gate: Callable[[], Gate]) -> None:
    """Who is served now, with method, path and model; and when it is over, an activity."""
    held = gate()
    async with listening(hotseat) as events, asyncio.TaskGroup() as tasks:
        await events.next("inflight", "snapshot")
        answer = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        came = (await events.next("inflight", "upsert"))["request"]
        await held.reached()
        held.open()
        left = await events.next("inflight", "remove")
        activity = await events.next("activity")
        await answer

        assert (came["model"], came["method"]) == ("a", "POST")
        assert came["req_path"] == "/v1/chat/completions"
        assert left["id"] == came["id"]
        assert isinstance(activity["id"], int)


async def test_a_request_in_flight_can_be_cancelled(
    hotseat: Hotseat, gate: Callable[[], Gate]
) -> None:
    """Its client gets an error in JSON, its worker is told; a second time there is nothing."""
    held = gate()
    async with listening(hotseat) as events, asyncio.TaskGroup() as tasks:
        await events.next("inflight", "snapshot")
        cancelled = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        number = (await events.next("inflight", "upsert"))["request"]["id"]
        await held.reached()
        answer = await hotseat.post(f"/api/inflight/{number}/cancel")
        again = await hotseat.post(f"/api/inflight/{number}/cancel")

        assert (answer.status, answer.body) == (200, {"msg": "ok"})
        assert again.status == 404
        assert (await cancelled).status >= 400
        assert (await cancelled).error["message"]


async def test_activity_lists_what_was_served(hotseat: Hotseat) -> None:
    """The latest first, page by page, with tokens and times."""
    await hotseat.chat("a")
    await hotseat.chat("b")
    page = (await hotseat.get("/api/metrics/activity?limit=2")).body
    last = page["data"][0]

    assert (page["page"], page["limit"]) == (1, 2)
    assert page["total"] >= len(page["data"]) == 2
    assert (last["model"], last["req_path"]) == ("b", "/v1/chat/completions")
    assert last["resp_status_code"] == 200
    assert last["tokens"]["input_tokens"] == 1
    assert last["tokens"]["output_tokens"] == 1
    assert last["duration_ms"] >= 0
    assert last["id"] > page["data"][1]["id"]


async def test_activity_tells_whose_session_it_was(hotseat: Hotseat) -> None:
    """By the header that ui.activity.session_id names."""
    body = {"model": "b", "messages": []}
    headers = {"X-My-Session": "s-1"}
    await hotseat.post("/v1/chat/completions", json=body, headers=headers)
    page = (await hotseat.get("/api/metrics/activity?limit=1")).body

    assert page["data"][0]["metadata"]["session_id"] == "s-1"


async def test_activity_can_be_narrowed_and_sorted(hotseat: Hotseat) -> None:
    """By model, by id, in any order."""
    await hotseat.chat("a")
    await hotseat.chat("b")
    only = (await hotseat.get("/api/metrics/activity?model=a&sort=id&order=asc")).body["data"]
    ids = [entry["id"] for entry in only]
    later = await hotseat.get(f"/api/metrics/activity?min_id={ids[-1] + 1}")

    assert {entry["model"] for entry in only} == {"a"}
    assert ids == sorted(ids)
    assert all(entry["id"] > ids[-1] for entry in later.body["data"])


WRONG = {
    "limit=0": "limit must be between 1 and 999",
    "limit=1000": "limit must be between 1 and 999",
    "limit=x": "invalid limit",
    "page=0": "page must be >= 1",
    "sort=colour": "invalid sort column",
    "order=up": "order must be asc or desc",
    "start=yesterday": "start",
    "start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z": "start must be before end",
    "min_id=0": "min_id must be >= 1",
    "min_id=5&max_id=4": "min_id must be <= max_id",
}


@pytest.mark.parametrize("query", WRONG)
async def test_a_wrong_question_about_activity_is_told(hotseat: Hotseat, query: str) -> None:
    """In the words that its clients know."""
    answer = await hotseat.get(f"/api/metrics/activity?{query}")

    assert answer.status == 400
    assert WRONG[query] in answer.error["message"]


async def test_stats_sum_it_up(hotseat: Hotseat) -> None:
    """Of all models, or of one."""
    await hotseat.chat("a")
    everything = (await hotseat.get("/api/metrics/stats")).body
    nothing = (await hotseat.get("/api/metrics/stats?model=never")).body

    assert everything["total_requests"] >= 1
    assert everything["total_input_tokens"] >= 1
    assert nothing["total_requests"] == 0
