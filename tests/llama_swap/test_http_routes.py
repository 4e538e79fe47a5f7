"""Which paths lead to a model, where its name is looked for, and what arrives there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import house, told
from tests.proxy.served import Hotseat, served

CONFIG = """
routes: [/tokenize, /own/]
groups: {both: {swap: false, members: [a, b]}}
"""
BY_BODY = [
    *("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages"),
    *("/v1/messages/count_tokens", "/v1/embeddings", "/v1/rerank", "/v1/reranking", "/rerank"),
    *("/reranking", "/infill", "/completion", "/v1/audio/speech", "/v1/audio/voices"),
    *("/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"),
    *("/v1/videos", "/v1/moderations", "/sdapi/v1/interrogate", "/tokenize", "/own/thing"),
]
SHORTENED = {
    "/v/chat/completions": "/chat/completions",
    "/v/responses": "/responses",
    "/v/completions": "/completions",
    "/v/messages": "/messages",
    "/v/messages/count_tokens": "/messages/count_tokens",
    "/v/embeddings": "/embeddings",
    "/v/rerank": "/rerank",
    "/v/reranking": "/reranking",
    "/audioapi/v1/tasks/run": "/v1/tasks/run",
}
BY_FORM = ["/v1/audio/transcriptions", "/v1/images/edits", "/v1/images/variations"]
BY_QUERY = ["/v1/audio/voices", "/sdapi/v1/loras", "/props"]
CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve two models side by side that tell what arrived."""
    config = house(CONFIG, a="--tells", b="--tells")
    async with served(config, tmp_path_factory.mktemp("routes")) as one:
        yield one


@pytest.mark.parametrize("path", BY_BODY)
async def test_a_post_goes_to_the_model_of_its_body(hotseat: Hotseat, path: str) -> None:
    """The path and the body arrive as they are, be the path known or only plainly a model's."""
    body = {"model": "b", "messages": [], "input": "x"}
    seen = await told(hotseat, f"{path}?q=1%20x", json=body)

    assert (seen.reply, seen.method, seen.path) == ("b", "POST", f"{path}?q=1%20x")
    assert seen.json == body


@pytest.mark.parametrize("path", SHORTENED)
async def test_a_prefix_that_is_ours_is_taken_off(hotseat: Hotseat, path: str) -> None:
    """/v/… is for workers whose API has no version in its paths, /audioapi for others."""
    seen = await told(hotseat, f"{path}?q=1", json={"model": "b", "messages": []})

    assert (seen.reply, seen.path) == ("b", f"{SHORTENED[path]}?q=1")


@pytest.mark.parametrize("path", BY_FORM)
async def test_a_form_goes_to_the_model_of_its_field(hotseat: Hotseat, path: str) -> None:
    """The field may stand behind a file."""
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
    form.add_field("model", "b")
    seen = await told(hotseat, path, data=form)

    assert (seen.reply, seen.path) == ("b", path)
    assert b"audio/wav" in seen.body


@pytest.mark.parametrize("path", BY_QUERY)
async def test_a_get_goes_to_the_model_of_its_query(hotseat: Hotseat, path: str) -> None:
    """The query stays whole."""
    seen = await told(hotseat, f"{path}?model=b&x=1", method="GET")

    assert (seen.reply, seen.method, seen.path) == ("b", "GET", f"{path}?model=b&x=1")


async def test_a_urlencoded_form_may_name_the_model(hotseat: Hotseat) -> None:
    """As llama-swap reads whatever is neither JSON nor multipart."""
    seen = await told(hotseat, "/v1/audio/speech", data={"model": "b", "input": "x"})

    assert (seen.reply, seen.body) == ("b", b"model=b&input=x")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/json", None])
async def test_json_is_json_by_any_name(hotseat: Hotseat, content_type: str | None) -> None:
    """Unlike with llama-swap, curl's default and a missing type do no harm."""
    headers = {"Content-Type": content_type} if content_type else {}
    skipped = [] if content_type else ["Content-Type"]
    seen = await told(
        hotseat,
        CHAT,
        data=b'{"model": "b", "messages": []}',
        headers=headers,
        skip_auto_headers=skipped,
    )

    assert seen.reply == "b"


REFUSED = {
    "unknown model": (CHAT, {"json": {"model": "zz"}}, 404, "model_not_found"),
    "no model": (CHAT, {"json": {"messages": []}}, 400, "missing_model"),
    "bad JSON": (CHAT, {"data": b'{"model": "b"'}, 400, "invalid_json"),
    "unknown model in a form": ("/v1/images/edits", {"data": {"model": "zz"}}, 404, None),
    "unknown path": ("/nothing/here", {"json": {"model": "b"}}, 404, "not_found"),
    "wrong method": ("/running", {"json": {}}, 405, "method_not_allowed"),
}


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "text/html"])
@pytest.mark.parametrize("case", REFUSED)
async def test_errors_are_always_json(hotseat: Hotseat, case: str, accept: str) -> None:
    """Whatever the client says that it accepts, and on every path."""
    path, more, status, code = REFUSED[case]
    answer = await hotseat.post(path, headers={"Accept": accept}, **more)

    assert answer.status == status
    assert answer.error["code"] == code or code is None
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/v1/audio/voices", "/props"])
async def test_a_get_that_names_no_model_is_refused(hotseat: Hotseat, path: str) -> None:
    """There is nobody to ask; /sdapi/v1/loras alone is for the current checkpoint then."""
    answer = await hotseat.get(path)

    assert (answer.status, answer.error["code"]) == (400, "missing_model")


async def test_head_is_answered_where_get_is(hotseat: Hotseat) -> None:
    """The head alone, for what looks whether we live."""
    async with hotseat.session.head("/health") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_a_preflight_is_allowed_anywhere(hotseat: Hotseat) -> None:
    """Without asked headers the usual ones are allowed, for a day."""
    async with hotseat.session.options("/no/such/path") as answer:
        headers = answer.headers

        assert answer.status == 204
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Max-Age"] == "86400"
        assert "PATCH" in headers["Access-Control-Allow-Methods"]
        assert "Authorization" in headers["Access-Control-Allow-Headers"]


async def test_headers_of_the_client_arrive(hotseat: Hotseat) -> None:
    """Its own ones and who it is; without configured keys its key too, for the worker's own."""
    headers = {"X-Mine": "1", "User-Agent": "mine/2", "Authorization": "Bearer theirs"}
    seen = await told(hotseat, CHAT, json={"model": "b", "messages": []}, headers=headers)

    assert seen.headers["x-mine"] == "1"
    assert seen.headers["user-agent"] == "mine/2"
    assert seen.headers["authorization"] == "Bearer theirs"
    assert seen.headers["host"] in hotseat.url


async def test_an_answer_comes_back_as_it_is(hotseat: Hotseat) -> None:
    """Status and body of the worker's own error are not ours to change."""
    answer = await hotseat.post("/upstream/b/environment/NO_SUCH_VARIABLE")
    direct = await hotseat.get("/upstream/b/environment/NO_SUCH_VARIABLE")

    assert (answer.status, answer.body["method"]) == (200, "POST")
    assert (direct.status, direct.body) == (200, None)


async def test_a_request_is_counted_once(hotseat: Hotseat) -> None:
    """/metrics knows it by model and status."""

    async def count() -> float:
        lines = (await hotseat.get("/metrics")).body.splitlines()
        head = 'hotseat_requests_total{model="b",status="200"} '
        return sum(float(line.removeprefix(head)) for line in lines if line.startswith(head))

    before = await count()
    body: dict[str, Any] = {"model": "b", "messages": []}
    await told(hotseat, "/v/chat/completions", json=body)

    assert await count() == before + 1
