"""What was asked and what came of it: the list, its pages, its sums."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.proxy.scripted import command
from tests.proxy.served import Hotseat, first_event, served

CONFIG = f"""
metricsMaxInMemory: 30
models:
  a: {{echo: {{}}}}
  b: {{cmd: {command()}}}
"""
MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy, which has served 12 requests of a and 3 of b."""
    async with served(CONFIG, tmp_path_factory.mktemp("activity")) as one:
        for number in range(12):
            await one.chat("a", f"question {number}", status=400 if number == 5 else 200)
        for number in (1, 2, 3):
            usage = {"prompt_tokens": 10 * number, "completion_tokens": number}
            timings = {"prompt_n": 10 * number, "prompt_per_second": 100.0 * number}
            await scripted(one, json.dumps({"usage": usage, "timings": timings}))
        yield one


async def scripted(hotseat: Hotseat, answer: str, kind: str = "application/json") -> None:
    body = {"model": "b", "answer": answer, "content_type": kind}
    async with hotseat.session.post("/v1/chat/completions", json=body) as response:
        await response.read()


async def listed(hotseat: Hotseat, query: str = "") -> dict[str, Any]:
    answer = await hotseat.get(f"/api/metrics/activity{query}")
    assert answer.status == 200
    page: dict[str, Any] = answer.body
    return page


def ids(page: dict[str, Any]) -> list[int]:
    return [entry["id"] for entry in page["data"]]


async def test_a_compressed_answer_tells_its_tokens_too(tmp_path: Path) -> None:
    """It goes on as it came; the count is read on the way."""
    answer = json.dumps({"usage": {"prompt_tokens": 7}, "text": "x" * 20_000})
    async with served(f"models: {{b: {{cmd: {command()}}}}}", tmp_path) as one:
        body = {"model": "b", "answer": answer, "is_zipped": True}
        async with one.session.post("/v1/chat/completions", json=body) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert await response.text() == answer
        [entry] = (await listed(one))["data"]

    assert entry["tokens"]["input_tokens"] == 7


@MODULE
async def test_each_request_has_an_entry(hotseat: Hotseat) -> None:
    """The newest first, with what is known of it."""
    page = await listed(hotseat)
    newest, refused = page["data"][0], page["data"][9]

    assert (page["page"], page["limit"], page["total"], page["total_pages"]) == (1, 25, 15, 1)
    assert ids(page) == list(range(15, 0, -1))
    assert newest["model"] == "b"
    assert newest["req_path"] == "/v1/chat/completions"
    assert newest["resp_status_code"] == 200
    assert newest["resp_content_type"] == "application/json"
    assert newest["tokens"] == {
        "cache_tokens": -1,
        "draft_tokens": -1,
        "draft_acc_tokens": -1,
        "input_tokens": 30,
        "output_tokens": 3,
        "prompt_per_second": 300.0,
        "tokens_per_second": -1,
    }
    assert newest["duration_ms"] >= 0
    assert newest["has_capture"] is False
    assert "error_msg" not in newest
    assert (refused["id"], refused["resp_status_code"]) == (6, 400)


@MODULE
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?limit=2", [15, 14]),
        ("?limit=2&page=3", [11, 10]),
        ("?limit=4&page=9", []),
        ("?order=asc&limit=3", [1, 2, 3]),
        ("?model=b", [15, 14, 13]),
        ("?model=b&model=a&limit=1", [15]),
        ("?model=nope", []),
        ("?min_id=14", [15, 14]),
        ("?max_id=2", [2, 1]),
        ("?min_id=3&max_id=4", [4, 3]),
        ("?sort=prompt&limit=2", [15, 14]),
        ("?sort=prompt_speed&order=asc&model=b", [13, 14, 15]),
        ("?sort=resp_status_code&limit=1", [6]),
        ("?start=2000-01-01T00:00:00Z&end=2999-01-01T00:00:00%2B02:00&limit=1", [15]),
        ("?start=2999-01-01T00:00:00Z", []),
        ("?end=2000-01-01T00:00:00Z", []),
    ],
)
async def test_the_list_is_asked_for_in_parts(
    hotseat: Hotseat, query: str, found: list[int]
) -> None:
    """By model, time and id, sorted, page by page."""
    assert ids(await listed(hotseat, query)) == found


@MODULE
async def test_pages_are_counted(hotseat: Hotseat) -> None:
    """The last one may be short."""
    page = await listed(hotseat, "?limit=4&page=4")

    assert (page["total"], page["total_pages"], ids(page)) == (15, 4, [3, 2, 1])


@MODULE
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?limit=x", "invalid limit"),
        ("?limit=0", "limit must be between 1 and 999"),
        ("?limit=1000", "limit must be between 1 and 999"),
        ("?page=0", "page must be >= 1"),
        ("?page=-1", "page must be >= 1"),
        ("?sort=colour", "invalid sort column"),
        ("?order=up", "order must be asc or desc"),
        ("?start=yesterday", "invalid 'start' timestamp, use RFC3339 format"),
        ("?end=2026-01-01T00:00:00", "invalid 'end' timestamp, use RFC3339 format"),
        ("?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start must be before end"),
        ("?min_id=0", "min_id must be >= 1"),
        ("?max_id=0", "max_id must be >= 1"),
        ("?min_id=3&max_id=2", "min_id must be <= max_id"),
        ("?min_id=9999999999999999999999", "invalid min_id"),
    ],
)
async def test_a_query_that_will_not_do_is_told_so(
    hotseat: Hotseat, query: str, told: str
) -> None:
    """As a 400 that names the part."""
    answer = await hotseat.get(f"/api/metrics/activity{query}")

    assert answer.status == 400
    assert told in answer.error["message"]


@MODULE
async def test_sums(hotseat: Hotseat) -> None:
    """Of one model or of all; histograms only of speeds that somebody has told."""
    every = (await hotseat.get("/api/metrics/stats")).body
    b = (await hotseat.get("/api/metrics/stats?model=b")).body

    assert every["total_requests"] == 15
    assert b["total_requests"] == 3
    assert (b["total_input_tokens"], b["total_output_tokens"]) == (60, 6)
    assert b["total_cache_tokens"] == 0
    assert b["gen_histogram"] is None
    speeds = b["prompt_histogram"]
    assert (speeds["min"], speeds["max"], speeds["p50"], speeds["p99"]) == (100, 300, 200, 300)
    assert sum(speeds["bins"]) == 3


async def test_no_more_are_kept_than_the_config_says(tmp_path: Path) -> None:
    """The oldest go."""
    async with served("{metricsMaxInMemory: 3, models: {a: {echo: {}}}}", tmp_path) as hotseat:
        for _ in range(5):
            await hotseat.chat("a")

        assert ids(await listed(hotseat)) == [5, 4, 3]


async def test_broken_and_refused_requests_say_why(tmp_path: Path) -> None:
    """A worker that dies before its answer, and one that dies in its middle."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        await hotseat.chat("a", die_after=0)
        async with hotseat.stream("a", die_after=1, tokens=9) as stream:
            await first_event(stream)
            await hotseat.log_line("answer_cut")
        cut, died = (await listed(hotseat))["data"]

    assert (died["resp_status_code"], "went away" in died["error_msg"]) == (502, True)
    assert (cut["resp_status_code"], cut["error_msg"] != "") == (200, True)


async def test_more_is_kept_with_a_request(tmp_path: Path) -> None:
    """Its session, by the first header that ui.activity.session_id names; selector, priority."""
    config = "{selectors: {s: {strategy: pin, targets: [a]}}, models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat:
        headers = {"X-Litellm-Session-Id": "s1"}
        body = {"model": "s", "messages": [], "priority": 3}
        await hotseat.post("/v1/chat/completions", json=body, headers=headers)
        [entry] = (await listed(hotseat))["data"]

    assert entry["model"] == "a"
    assert entry["metadata"] == {"session_id": "s1", "priority": "3", "selector": "s"}
