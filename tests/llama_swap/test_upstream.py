"""A worker behind a path of its own, /upstream/{model}/, with whatever follows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import as_told, house, pid_of, told
from tests.proxy.served import Hotseat, served

CONFIG = """
unloadTimeout: 0.5
upstream: {ignorePaths: ['.*\\.ico$', '^/static/']}
groups: {all: {swap: false, members: [a, a/b, filtered, lazy, comfyui_auto]}}
models:
  a: {cmd: "ECHO --reply a --tells", aliases: [al/ias]}
  a/b: {cmd: "ECHO --reply a/b --tells"}
  filtered: {cmd: "ECHO --tells", filters: {stripParams: top_k}, useModelName: other}
  cold: {cmd: "ECHO --tells"}
  lazy: {cmd: "ECHO --tells", compat: {ignoreWebsockets: true}}
  comfyui_auto: {cmd: "ECHO --reply comfy --tells"}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve models that tell what arrived."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("upstream")) as one:
        yield one


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_any_method_passes(hotseat: Hotseat, method: str) -> None:
    """A worker may have an API of any shape."""
    seen = await told(hotseat, "/upstream/a/slots/0?action=save", method, data=b"\x00\xff")

    assert (seen.method, seen.path) == (method, "/slots/0?action=save")
    assert seen.body == b"\x00\xff"


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("/upstream/a/b", "a/b", None),
        ("/upstream/a/b/x", "a/b", "/x"),
        ("/upstream/a%2Fb/x", "a/b", "/x"),
        ("/upstream/a/c", "a", "/c"),
        ("/upstream/al%2Fias/x", "a", "/x"),
        ("/upstream/al/ias/x", "a", "/x"),
        ("/upstream/a/", "a", "/"),
        ("/upstream/a/v1/x%2Fy%20z/%E2%82%AC", "a", "/v1/x%2Fy%20z/%E2%82%AC"),
        ("/upstream/a//x", "a", "//x"),
    ],
)
async def test_the_longest_name_in_the_path_counts(
    hotseat: Hotseat, path: str, model: str, rest: str | None
) -> None:
    """Ids and aliases may hold slashes, and what follows keeps its escapes."""
    if rest is None:
        path, rest = f"{path}/", "/"
    seen = await told(hotseat, aiohttp.client.URL(f"{hotseat.url}{path}", encoded=True), "GET")

    assert (seen.reply, seen.path) == (model, rest)


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308)])
async def test_without_a_path_it_leads_to_one(hotseat: Hotseat, method: str, status: int) -> None:
    """The query is kept, and so is the method."""
    async with hotseat.session.request(method, "/upstream/a?x=1", allow_redirects=False) as answer:
        assert answer.status == status
        assert answer.headers["Location"].endswith("/upstream/a/?x=1")


async def test_an_unknown_model_is_a_404(hotseat: Hotseat) -> None:
    """In JSON, and nobody is loaded."""
    answer = await hotseat.get("/upstream/nobody/x")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_filters_stay_out_of_it(hotseat: Hotseat) -> None:
    """What goes straight to the worker is the client's own affair."""
    body = b'{"model": "filtered",  "top_k": 3}'
    headers = {"Content-Type": "application/json"}
    seen = await told(hotseat, "/upstream/filtered/v1/x", data=body, headers=headers)

    assert seen.body == body


@pytest.mark.parametrize("path", ["favicon.ico", "static/app"])
async def test_what_a_browser_asks_by_itself_loads_nobody(hotseat: Hotseat, path: str) -> None:
    """Paths of upstream.ignorePaths are a 409 while the model is not ready."""
    before = await hotseat.running()
    answer = await hotseat.get(f"/upstream/cold/{path}")

    assert answer.status == 409
    assert "cold" in answer.error["message"]
    assert (await hotseat.running()).keys() == before.keys()


async def test_a_ready_model_gets_those_paths_too(hotseat: Hotseat) -> None:
    """They are ignored only as long as they would load."""
    await hotseat.get("/upstream/a/")
    seen = await told(hotseat, "/upstream/a/favicon.ico", "GET")

    assert seen.path == "/favicon.ico"


async def test_a_websocket_passes_both_ways(hotseat: Hotseat) -> None:
    """Texts, bytes, its subprotocol, and a load before it if need be."""
    async with hotseat.session.ws_connect(
        "/upstream/a/socket/x%2Fy?z=1", protocols=("chat.v2", "chat.v1")
    ) as socket:
        seen = as_told(await socket.receive_json())
        await socket.send_str("héllo")
        await socket.send_bytes(bytes(100_000))

        assert socket.protocol == "chat.v2"
        assert seen.path == "/socket/x%2Fy?z=1"
        assert await socket.receive_str() == "héllo"
        assert await socket.receive_bytes() == bytes(100_000)


async def test_a_websocket_ends_when_its_worker_goes(hotseat: Hotseat) -> None:
    """Its client is told, and does not wait for ever."""
    async with hotseat.session.ws_connect("/upstream/a/socket") as socket:
        await socket.receive_json()
        await hotseat.post("/api/models/unload/a")
        message = await socket.receive()

        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_a_websocket_may_be_forbidden_to_load(hotseat: Hotseat) -> None:
    """With compat.ignoreWebsockets it is a 409 while the model is not ready."""
    await hotseat.post("/api/models/unload/lazy")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hotseat.session.ws_connect("/upstream/lazy/socket")

    assert refused.value.status == 409
    assert "lazy" not in await hotseat.running()


async def test_such_a_websocket_joins_a_ready_model(hotseat: Hotseat) -> None:
    """And does not hold it: the model can be sent away under it at once."""
    await hotseat.get("/upstream/lazy/")
    async with hotseat.session.ws_connect("/upstream/lazy/socket") as socket:
        seen = as_told(await socket.receive_json())
        entry = (await hotseat.running())["lazy"]

        assert seen.path == "/socket"
        assert entry["idle_s"] is not None


async def test_comfyui_has_a_path_of_its_own(hotseat: Hotseat) -> None:
    """/comfyui/ is the model comfyui_auto, and only its front page loads it."""
    await hotseat.post("/api/models/unload/comfyui_auto")
    async with hotseat.session.get("/comfyui?x=1", allow_redirects=False) as bare:
        assert (bare.status, bare.headers["Location"]) == (301, "/comfyui/?x=1")
    early = await hotseat.get("/comfyui/api/queue")
    front = await told(hotseat, "/comfyui/", "GET")
    later = await told(hotseat, "/comfyui/api/queue?x=1", "GET")

    assert early.status == 409
    assert (front.reply, front.path) == ("comfy", "/")
    assert (later.reply, later.path) == ("comfy", "/api/queue?x=1")


async def test_a_look_at_one_leaves_the_other(hotseat: Hotseat) -> None:
    """What goes by /upstream is a request like any other to the groups."""
    await hotseat.get("/upstream/a/")
    pid = await pid_of(hotseat, "a")
    await hotseat.get("/upstream/a/b/")

    assert await pid_of(hotseat, "a") == pid
