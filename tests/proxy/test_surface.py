"""Which paths are a model's, and what is shown of the workers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.routes import paths
from proxy.routes.masks import masked, masked_text, sounds_secret
from tests.proxy.served import Hotseat, served

CONFIG = f"""
apiKeys: [open-sesame]
routes: [/v2, /tokenize]
models:
  cmd:
    cmd: >
      env HF_TOKEN=hf_secret {sys.executable} -m workers.echo
      --tells --port ${{PORT}} --reply mine-alone
    env: [SERVICE_KEY=mine-alone]
  echo: {{echo: {{}}}}
peers: {{far: {{proxy: "http://127.0.0.1:9", apiKey: far-secret, models: [m]}}}}
"""
MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of this module."""
    async with served(CONFIG, tmp_path_factory.mktemp("surface")) as one:
        one.session.headers["Authorization"] = "Bearer open-sesame"
        yield one


# Which paths are a model's


@MODULE
@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/v1/responses", "/v1/responses"),
        ("/v1/messages/count_tokens?beta=true", "/v1/messages/count_tokens?beta=true"),
        ("/v1/audio/speech", "/v1/audio/speech"),
        ("/infill", "/infill"),
        ("/completion", "/completion"),
        ("/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/audioapi/v1/tasks/run", "/v1/tasks/run"),
        ("/v/chat/completions", "/chat/completions"),
        ("/v/messages?x=%26", "/messages?x=%26"),
        ("/v1/moderations", "/v1/moderations"),
        ("/v1/images/variations", "/v1/images/variations"),
        ("/sdapi/v1/interrupt", "/sdapi/v1/interrupt"),
        ("/v/anything/else", "/anything/else"),
        ("/v2/anything", "/v2/anything"),
        ("/tokenize", "/tokenize"),
    ],
)
async def test_a_post_goes_to_the_model_that_it_names(
    hotseat: Hotseat, path: str, seen: str
) -> None:
    """By name, by the prefix of its path, or by one of the config's own."""
    answer = await hotseat.post(path, json={"model": "cmd"})

    assert (answer.status, answer.body["path"]) == (200, seen)


@MODULE
@pytest.mark.parametrize("path", paths.ASKED)
async def test_a_get_may_name_its_model_in_the_query(hotseat: Hotseat, path: str) -> None:
    """At a few paths."""
    answer = await hotseat.get(f"{path}?model=cmd&x=1")
    nameless = await hotseat.get(path)

    assert (answer.status, answer.body["path"]) == (200, f"{path}?model=cmd&x=1")
    assert (nameless.status, nameless.error["code"]) == (400, "missing_model")


@MODULE
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/unheard-of", b"{}"),
        ("/v1/unheard-of", b"no JSON"),
        ("/v3/x", b'{"model": "cmd"}'),
        ("/api/nothing", b'{"model": "cmd"}'),
        ("/v1x/chat", b'{"model": "cmd"}'),
    ],
)
async def test_what_no_model_can_be_meant_by_is_unknown(
    hotseat: Hotseat, path: str, body: bytes
) -> None:
    """A 404 as JSON."""
    answer = await hotseat.post(path, data=body, headers={"Content-Type": "application/json"})

    assert (answer.status, answer.error["code"]) == (404, "not_found")


@MODULE
async def test_known_paths_keep_their_methods(hotseat: Hotseat) -> None:
    """The rule for unknown ones does not take them over."""
    for path, allowed in (("/v1/models", "GET"), ("/v1/responses", "POST")):
        method = "POST" if allowed == "GET" else "GET"
        async with hotseat.session.request(method, path, json={"model": "cmd"}) as answer:
            assert answer.status == 405
            assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("path", "need"),
    [
        ("/v1/chat/completions", "chat"),
        ("/chat/completions", "chat"),
        ("/v/embeddings", "embeddings"),
        ("/v1/messages", "chat"),
        ("/reranking", "rerank"),
        ("/sdapi/v1/img2img", "image_edit"),
        ("/v1/audio/speech", None),
        ("/v1/moderations", None),
    ],
)
def test_what_a_path_needs(path: str, need: str | None) -> None:
    """So that a model which cannot is not loaded for it."""
    assert paths.need_of(path) == need


# What workers there are


@MODULE
async def test_running_hides_secrets(hotseat: Hotseat) -> None:
    """The command is shown, what lets one in is not."""
    await hotseat.post("/v1/x", json={"model": "cmd"})
    running = (await hotseat.running())["cmd"]

    assert "--tells" in running["cmd"]
    assert "***" in running["cmd"]
    assert not {"hf_secret", "mine-alone"} & set(running["cmd"].replace("=", " ").split())
    assert running["pid"] > 0
    assert running["uptime_s"] >= running["idle_s"] >= 0


@pytest.mark.parametrize(
    ("shown", "hidden"),
    [
        ("x --api-key abc -m y", "x --api-key *** -m y"),
        ("x --api-key=abc --port 1", "x '--api-key=***' --port 1"),
        ("x -hft abc --hf-token 'a b'", "x -hft *** --hf-token ***"),
        ("env OPENAI_API_KEY=abc x", "env 'OPENAI_API_KEY=***' x"),
        ("sh -c 'x --token abc; y'", "sh -c 'x --token *** y'"),
        ("curl -H 'Authorization: Bearer abc'", "curl -H 'Authorization: Bearer ***'"),
        ("x http://me:abc@host/y", "x 'http://***@host/y'"),
        ("x --max-tokens 5 --tokenizer z --no-auth --keep 1", None),
        ("x known-one y", "x *** y"),
        ("x 'unbalanced --password abc", "x 'unbalanced --password ***"),
    ],
)
def test_masks(shown: str, hidden: str | None) -> None:
    """By the name of a flag or variable, by a known value; what only looks alike stays."""
    assert masked(shown, ["known-one", "ab"]) == (hidden or shown)


def test_a_long_flag_is_masked_at_once() -> None:
    """However many parts its name has."""
    flag = "--" + "a_" * 500

    assert masked(f"sh -c 'x {flag}b 1 {flag}token abc'", []).endswith("token ***'")


def test_masks_of_names_and_addresses() -> None:
    """Numbers of tokens are no secret."""
    assert sounds_secret("HF_TOKEN")
    assert sounds_secret("dbPassword".lower().replace("db", "db_"))
    assert not sounds_secret("MAX_TOKENS")
    assert masked_text("http://u:p@h:1/known-one", ["known-one"]) == "http://***@h:1/***"


@MODULE
async def test_logs_of_all_workers_can_be_followed(hotseat: Hotseat) -> None:
    """As `upstream`, without the proxy's own lines."""
    config = (await hotseat.get("/logs/stream/nope")).error["message"]
    async with hotseat.session.get("/logs/stream/upstream") as response:
        await hotseat.chat("echo", says="over here")
        line = await response.content.readline()
        while b"over here" not in line:
            assert b" request method=" not in line
            line = await response.content.readline()

    assert "upstream" in config
