"""Questions of the proxy's own, asked in the course of a client's request."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.routes import aside, table
from tests.proxy.painted import until
from tests.proxy.served import Gate, served

CONFIG = """
apiKeys: [secret]
models:
  echo: {echo: {}}
  mirror: {echo: {tells: true}, useModelName: inside, filters: {setParams: {temperature: 0}}}
"""
KEY: dict[str, Any] = {
    "headers": {"Authorization": "Bearer secret", "X-Priority": "high", "Accept": "x/y"}
}


@pytest.fixture(autouse=True)
def _asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve one path more: it asks the model of the query what the body says, and tells it."""

    async def ask(request: web.Request) -> web.Response:
        document = await request.content.read()
        path, model = "/v1/chat/completions", request.query["model"]
        raw = await aside.ask(request, model, path, document, most_bytes=5000)
        return web.Response(body=raw, content_type="application/json")

    monkeypatch.setattr(table, "SELF", [*table.SELF, web.post("/ask", ask)])


def chat(**echo: Any) -> dict[str, Any]:
    return {"json": {"messages": [{"role": "user", "content": "who"}], "echo": echo}, **KEY}


async def test_the_answer_comes_back_to_who_asked(tmp_path: Path) -> None:
    """Whole; the worker's part in it has its line in the log, and its place in the activity."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post("/ask?model=echo", **chat())
        async with hotseat.session.get("/api/metrics/activity", **KEY) as response:
            acts = (await response.json())["data"]

    assert (answer.status, answer.text) == (200, "echo: who")
    told = [(act["model"], act["req_path"], act["resp_status_code"]) for act in acts]
    assert told == [("echo", "/v1/chat/completions", 200)]
    assert acts[0]["metadata"] == {"priority": "5"}


async def test_the_worker_hears_a_request_like_any_other(tmp_path: Path) -> None:
    """By its own name, with its filters, and without what the client said to us alone."""
    async with served(CONFIG, tmp_path) as hotseat:
        heard = (await hotseat.post("/ask?model=mirror", **chat())).body

    headers = {name.lower(): value for name, value in heard["headers"]}
    body = json.loads(base64.b64decode(heard["body"]))
    assert (heard["method"], heard["path"]) == ("POST", "/v1/chat/completions")
    assert (body["model"], body["temperature"]) == ("inside", 0)
    assert headers["content-type"] == "application/json"
    assert not {"authorization", "x-priority", "accept"} & headers.keys()


@pytest.mark.parametrize(
    ("echo", "status", "code"),
    [
        ({"status": 400}, 400, "told"),
        ({"status": 404}, 502, "aside_failed"),
        ({"status": 503}, 502, "aside_failed"),
        ({"tokens": 9000}, 502, "aside_failed"),
        ({"die_after": 0}, 502, "worker_died"),
    ],
    ids=["disliked", "unknown", "cannot", "too-long", "dies"],
)
async def test_an_answer_that_is_none_is_an_error_that_names_the_model(
    tmp_path: Path, echo: dict[str, Any], status: int, code: str
) -> None:
    """Only what it has against the question itself is the client's mistake."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post("/ask?model=echo", **chat(**echo))

    assert (answer.status, answer.error["code"]) == (status, code)
    assert "echo" in answer.error["message"]


async def test_a_session_in_letters_that_no_header_should_have(tmp_path: Path) -> None:
    """What cannot be passed on is left out; the question is asked all the same."""
    sessions = ("s-1", "s\u00e9ance")
    async with served(CONFIG, tmp_path) as hotseat:
        for session in sessions:
            headers = {**KEY["headers"], "X-Session-ID": session}
            answer = await hotseat.post("/ask?model=echo", **{**chat(), "headers": headers})
            assert answer.status == 200
        async with hotseat.session.get("/api/metrics/activity", **KEY) as response:
            acts = (await response.json())["data"]

    assert {act["metadata"].get("session_id") for act in acts} == {"s-1", None}


async def test_a_client_that_leaves_ends_the_question(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The worker hears of it too."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        hotseat.session.headers.update(KEY["headers"])
        asking = tasks.create_task(hotseat.post("/ask?model=echo", **chat(gate=str(held.path))))
        await held.reached()
        asking.cancel()
        counts = await until(hotseat, "/upstream/echo/counts", lambda told: told["cancelled"])
        flying = (await hotseat.get("/api/inflight")).body["requests"]
        held.open()

    assert (counts["cancelled"], counts["finished"]) == (1, 0)
    assert flying == []
