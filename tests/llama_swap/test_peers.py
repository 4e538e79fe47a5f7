"""Models of other servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import house, peer, told
from tests.proxy.served import Hotseat, served

CONFIG = """
apiKeys: [sk-ours]
models:
  here: {cmd: "ECHO --reply here --tells", aliases: [both]}
peers:
  far:
    proxy: FAR/base
    models: [m1, org/m2, here, shared]
    apiKey: sk-theirs
    filters: {stripParams: "top_k", setParams: {user: me, options: {deep: 1}}}
  bare: {proxy: FAR, models: [m3, shared]}
  gone: {proxy: "http://127.0.0.1:1", models: [lost]}
"""
CHAT = "/v1/chat/completions"
OURS = {"Authorization": "Bearer sk-ours", "x-api-key": "sk-ours"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve a model of our own beside those of two peers, and of one that is not there."""
    async with peer() as url:
        config = house(CONFIG.replace("FAR", url))
        async with served(config, tmp_path_factory.mktemp("peers")) as one:
            one.session.headers.update(OURS)
            yield one


@pytest.mark.parametrize(
    ("asked", "named"),
    [("far/m1", "m1"), ("m1", "m1"), ("far/org/m2", "org/m2"), ("far/here", "here")],
)
async def test_a_peer_is_asked_by_its_own_names(hotseat: Hotseat, asked: str, named: str) -> None:
    """With the peer's name before it, or without where that is plain; its path has a base."""
    seen = await told(hotseat, f"{CHAT}?x=1", json={"model": asked, "messages": []})

    assert (seen.reply, seen.path) == ("peer", f"/base{CHAT}?x=1")
    assert seen.json["model"] == named


@pytest.mark.parametrize("asked", ["here", "both"])
async def test_our_own_name_comes_first(hotseat: Hotseat, asked: str) -> None:
    """Where a peer has one of the same name it must be named with the peer."""
    seen = await told(hotseat, CHAT, json={"model": asked, "messages": []})

    assert seen.reply == "here"


async def test_a_name_that_two_peers_have_is_nobodys(hotseat: Hotseat) -> None:
    """It takes the peer's name to tell which."""
    lost = await hotseat.post(CHAT, json={"model": "shared", "messages": []})
    seen = await told(hotseat, CHAT, json={"model": "bare/shared", "messages": []})

    assert (lost.status, lost.error["code"]) == (404, "model_not_found")
    assert seen.path == CHAT


async def test_a_peers_own_key_is_sent(hotseat: Hotseat) -> None:
    """In both ways, in place of the client's."""
    seen = await told(hotseat, CHAT, json={"model": "m1", "messages": []})

    assert seen.headers["authorization"] == "Bearer sk-theirs"
    assert seen.headers["x-api-key"] == "sk-theirs"


async def test_a_peers_host_is_named(hotseat: Hotseat) -> None:
    """Servers behind a common address are told by it."""
    seen = await told(hotseat, CHAT, json={"model": "m3", "messages": []})

    assert seen.headers["host"] not in hotseat.url
    assert seen.headers["host"].startswith("127.0.0.1:")


async def test_a_peers_filters_change_the_body(hotseat: Hotseat) -> None:
    """As a model's own do."""
    body = {"model": "m1", "top_k": 3, "top_p": 1, "user": "you", "messages": []}
    seen = await told(hotseat, CHAT, json=body)

    assert seen.json == {
        "model": "m1",
        "top_p": 1,
        "user": "me",
        "options": {"deep": 1},
        "messages": [],
    }


async def test_a_form_for_a_peer_names_its_model(hotseat: Hotseat) -> None:
    """The field is changed, and nothing else."""
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
    form.add_field("model", "far/m1")
    seen = await told(hotseat, "/v1/audio/transcriptions", data=form)

    assert b"\r\n\r\nm1\r\n" in seen.body
    assert b"audio/wav" in seen.body


@pytest.mark.parametrize("path", ["/upstream/far/org/m2/x%2Fy", "/upstream/m3/x%2Fy"])
async def test_a_peer_has_an_upstream_path(hotseat: Hotseat, path: str) -> None:
    """Straight to it, as to a worker."""
    seen = await told(hotseat, path, data=b"raw")

    assert (seen.reply, seen.body) == ("peer", b"raw")
    assert seen.path.endswith("/x%2Fy")


async def test_a_peer_that_is_away_is_a_502(hotseat: Hotseat) -> None:
    """With its name and the reason, and what we run goes on."""
    answer = await hotseat.post(CHAT, json={"model": "lost", "messages": []})

    assert answer.status == 502
    assert "gone" in answer.error["message"]


async def test_peers_run_nothing_here(hotseat: Hotseat) -> None:
    """They take no seat, and cannot be unloaded."""
    await hotseat.get("/unload")
    await told(hotseat, CHAT, json={"model": "m1", "messages": []})

    assert await hotseat.running() == {}
    assert (await hotseat.post("/api/models/unload/far/m1")).status == 404


async def test_a_file_may_have_peers_alone(tmp_path: Path) -> None:
    """Nothing of our own is needed to pass on."""
    async with peer() as url:
        config = f"models: {{}}\npeers: {{far: {{proxy: '{url}', models: [m1]}}}}\n"
        async with served(config, tmp_path) as hotseat:
            seen = await told(hotseat, CHAT, json={"model": "m1", "messages": []})

            assert seen.reply == "peer"
