"""The HTTP surface: what is asked, what is refused, and in which words."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from tests.proxy.served import Hotseat, chat_body, served

CONFIG = """
maxBodyBytes: 3000000
models:
  chat:
    aliases: [gpt-4o-mini]
    capabilities: [chat, completions]
    description: talks
    echo: {}
  org/seer: {capabilities: [chat, vision], echo: {}}
  painter: {aliases: [gpt-image-1], capabilities: [image_generation, image_edit], echo: {}}
  embed: {capabilities: [embeddings], echo: {}}
  hidden: {unlisted: true, echo: {}}
"""
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of this module; they only ask."""
    async with served(CONFIG, tmp_path_factory.mktemp("http")) as one:
        await one.chat("chat")
        yield one


async def seated(hotseat: Hotseat) -> dict[str, int]:
    return {model: entry["pid"] for model, entry in (await hotseat.running()).items()}


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_listing(hotseat: Hotseat, path: str) -> None:
    """Every listed model has its words as a list, modalities, and a time that does not move."""
    first, second = await hotseat.get(path), await hotseat.get(path)
    entries = {entry["id"]: entry for entry in first.body["data"]}

    assert first.body == second.body
    assert list(entries) == ["chat", "embed", "org/seer", "painter"]
    assert entries["painter"]["capabilities"] == ["image_generation", "image_edit"]
    assert entries["org/seer"]["architecture"]["modality"] == "text+image->text"
    assert entries["chat"]["meta"]["llamaswap"]["aliases"] == ["gpt-4o-mini"]
    assert entries["chat"]["description"] == "talks"
    assert "modalities" not in entries["chat"]
    assert entries["chat"]["created"] > 1_700_000_000


async def test_openai_client_lists_and_retrieves(hotseat: Hotseat) -> None:
    """`models.list()` and `models.retrieve()` work, for ids with a slash and aliases too."""
    client = hotseat.openai()

    assert "org/seer" in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve("org/seer")).id == "org/seer"
    assert (await client.models.retrieve("gpt-4o-mini")).id == "chat"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("chatt")
    assert caught.value.code == "model_not_found"
    assert "chat" in caught.value.message


REFUSED = {
    "malformed JSON": ("/v1/chat/completions", '{"model": "chat"', 400, "invalid_json"),
    "no JSON at all": ("/v1/chat/completions", "hello", 400, "invalid_json"),
    "an empty body": ("/v1/chat/completions", "", 400, "invalid_json"),
    "a JSON list": ("/v1/chat/completions", "[1]", 400, "invalid_json"),
    "not UTF-8": ("/v1/chat/completions", b'{"model": "\xff"}', 400, "invalid_json"),
    "deep nesting": ("/v1/chat/completions", "[" * 100_000, 400, "invalid_json"),
    "no model": ("/v1/chat/completions", '{"messages": []}', 400, "missing_model"),
    "a null model": ("/v1/chat/completions", '{"model": null}', 400, "missing_model"),
    "a model that is a list": ("/v1/completions", '{"model": ["a"]}', 400, "invalid_value"),
    "an unknown model": ("/v1/completions", '{"model": "nope"}', 404, "model_not_found"),
    "a huge model name": (
        "/v1/completions",
        json.dumps({"model": "x" * 1_000_000}),
        404,
        "model_not_found",
    ),
    "messages that are text": (
        "/v1/chat/completions",
        '{"model": "chat", "messages": "hi"}',
        400,
        "invalid_value",
    ),
    "painting by a chat model": (
        "/v1/images/generations",
        '{"model": "chat", "prompt": "x"}',
        400,
        "model_cannot",
    ),
    "chatting with a painter": (
        "/v1/chat/completions",
        '{"model": "gpt-image-1", "messages": []}',
        400,
        "model_cannot",
    ),
    "a picture for a blind model": (
        "/chat/completions",
        json.dumps({"model": "chat", "messages": [{"role": "user", "content": [PICTURE]}]}),
        400,
        "model_cannot_see",
    ),
    "a body over the limit": ("/v1/embeddings", "x" * 3_000_001, 413, "body_too_large"),
    "an unknown path": ("/v1/unheard-of", "{}", 404, "not_found"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_before_any_swap(hotseat: Hotseat, case: str) -> None:
    """A request that must fail says why in OpenAI's shape, and the seated model stays seated."""
    path, body, status, code = REFUSED[case]
    await hotseat.chat("chat")
    before = await seated(hotseat)
    headers = {"Accept": "text/plain", "Content-Type": "application/json"}
    raw = body if isinstance(body, bytes) else body.encode()
    answer = await hotseat.post(path, data=io.BytesIO(raw), headers=headers)

    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Expose-Headers"] == "*"
    assert await seated(hotseat) == before


async def test_refusals_name_who_can(hotseat: Hotseat) -> None:
    """The message says what the model is for and who could do it."""
    painting = await hotseat.post("/v1/images/generations", json={"model": "chat", "prompt": "x"})
    body = chat_body("chat", "") | {"messages": [{"role": "user", "content": [PICTURE]}]}
    seeing = await hotseat.post("/v1/chat/completions", json=body)
    lost = await hotseat.post("/v1/completions", json={"model": "org/see"})

    assert "painter" in painting.error["message"]
    assert "org/seer" in seeing.error["message"]
    assert "org/seer" in lost.error["message"]
    assert lost.error["param"] == "model"


async def test_a_wrong_method_is_told_as_json(hotseat: Hotseat) -> None:
    """405 names what the path takes."""
    answer = await hotseat.get("/v1/chat/completions")

    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


async def test_preflight_allows_what_is_asked(hotseat: Hotseat) -> None:
    """A browser page of any origin may send the headers that it asks for."""
    asked = {"Access-Control-Request-Headers": "x-stainless-os, authorization, bad header"}
    async with hotseat.session.options("/v1/anything", headers=asked) as answer:
        allowed = answer.headers["Access-Control-Allow-Headers"]

        assert answer.status == 204
        assert allowed == "x-stainless-os, authorization"
        assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_chat_by_id_and_alias(hotseat: Hotseat, path: str) -> None:
    """Both paths serve, and nulls among the fields are no mistake."""
    nulls = {"stream": None, "temperature": None, "max_tokens": None}
    answer = await hotseat.post(path, json=chat_body("gpt-4o-mini", "hi there") | nulls)

    assert answer.text == "echo: hi there"


async def test_openai_client_streams(hotseat: Hotseat) -> None:
    """Chunks arrive in order and whole."""
    stream = await hotseat.openai().chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "one two three"}], stream=True
    )
    words = [chunk.choices[0].delta.content async for chunk in stream]

    assert "".join(filter(None, words)) == "echo: one two three"


async def test_openai_client_embeds_and_paints(hotseat: Hotseat) -> None:
    """The other endpoints are found by their models."""
    client = hotseat.openai()
    vectors = await client.embeddings.create(model="embed", input=["a", "b"])
    picture = await client.images.generate(model="gpt-image-1", prompt="x")

    assert len(vectors.data) == 2
    assert base64.b64decode(picture.data[0].b64_json).startswith(b"\x89PNG")


async def test_a_multipart_upload_arrives_as_it_was_sent(hotseat: Hotseat) -> None:
    """The model may stand behind the file, and not a byte is changed on the way."""
    form = aiohttp.FormData()
    form.add_field(
        "image", io.BytesIO(bytes(range(256)) * 8000), filename="a.png", content_type="image/png"
    )
    form.add_field("prompt", "x")
    form.add_field("model", "painter")
    answer = await hotseat.post("/v1/images/edits", data=form)

    assert answer.status == 200
    assert answer.body["received_bytes"] > 2_048_000


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"no boundary in here"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            + b"m" * 5000
            + b"\r\n--x--\r\n",
        ),
    ],
)
async def test_a_malformed_form_is_a_400(hotseat: Hotseat, content_type: str, body: bytes) -> None:
    """A form that cannot be read is told so, whatever is wrong with it."""
    headers = {"Content-Type": content_type}
    answer = await hotseat.post("/v1/images/edits", data=body, headers=headers)

    assert answer.status == 400
    assert answer.error["message"]


async def upstream(hotseat: Hotseat, path: str, **more: Any) -> dict[str, Any]:
    answer = await hotseat.post(path, **more)
    assert answer.status == 200
    return answer.body


async def test_upstream_passes_the_rest_of_the_path_as_it_is(hotseat: Hotseat) -> None:
    """Escapes, queries and any body reach the worker unchanged; ids may hold slashes."""
    raw = bytes(range(256))
    seen = await upstream(hotseat, "/upstream/org%2Fseer/a%2Fb/c?q=1%20x", data=raw)
    plain = await upstream(hotseat, "/upstream/org/seer/x/y")

    assert seen["path"] == "/a%2Fb/c?q=1%20x"
    assert base64.b64decode(seen["body"]) == raw
    assert plain["path"] == "/x/y"


async def test_upstream_strips_hop_by_hop_headers(hotseat: Hotseat) -> None:
    """What Connection names, and the fixed list, ends at the proxy."""
    headers = {"Connection": "x-private", "X-Private": "1", "X-Public": "2", "TE": "trailers"}
    seen = await upstream(hotseat, "/upstream/chat/x", headers=headers)
    names = {name.lower(): value for name, value in seen["headers"]}

    assert names["x-public"] == "2"
    assert not {"x-private", "te"} & names.keys()


async def test_upstream_without_a_path_redirects(hotseat: Hotseat) -> None:
    """`/upstream/m` leads to `/upstream/m/`, and an unknown model is a 404."""
    async with hotseat.session.get("/upstream/chat?a=1", allow_redirects=False) as answer:
        assert answer.status == 301
        assert answer.headers["Location"] == "/upstream/chat/?a=1"
    assert (await hotseat.get("/upstream/nope/x")).error["code"] == "model_not_found"


async def test_health_and_running(hotseat: Hotseat) -> None:
    """Liveness says nothing of models; /running speaks llama-swap's words."""
    await hotseat.chat("chat")
    running = (await hotseat.running())["chat"]

    assert (await hotseat.get("/health")).body == "OK"
    assert (await hotseat.get("/healthz")).body["running"] == ["chat"]
    assert {"model", "state", "cmd", "proxy", "ttl", "name", "description"} <= running.keys()
    assert running["state"] == "ready"


async def test_logs_can_be_followed(hotseat: Hotseat) -> None:
    """A follower gets the kept lines and then the new ones, of one source if it likes."""
    async with hotseat.session.get("/logs/stream/proxy?no-history") as response:
        await hotseat.chat("chat", "follow me")
        lines = [await response.content.readline()]
        while b"request method=POST" not in lines[-1]:  # before it, what the swap has to tell
            lines.append(await response.content.readline())

    assert b"follow me" not in b"".join(lines)
    assert "request method=POST" in (await hotseat.get("/logs")).body
    assert (await hotseat.get("/logs/stream/nope")).status == 400


async def test_many_clients_at_once_all_get_their_own_answer(hotseat: Hotseat) -> None:
    """Forty concurrent callers over three models: each answer belongs to its question."""
    models = ["chat", "org/seer", "hidden"]
    answers = await asyncio.gather(
        *(hotseat.chat(models[i % 3], f"question {i}") for i in range(40))
    )

    assert [answer.text for answer in answers] == [f"echo: question {i}" for i in range(40)]
