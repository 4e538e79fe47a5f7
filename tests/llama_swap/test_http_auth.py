"""Who may ask: the ways to send a key, and the paths that need none."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import house, told
from tests.proxy.served import Hotseat, served

BASIC = base64.b64encode(b"anybody:sk-two").decode()
ACCEPTED: Mapping[str, Mapping[str, str]] = {
    "bearer": {"Authorization": "Bearer sk-one"},
    "bearer, in any case": {"Authorization": "bEARER sk-two"},
    "x-api-key": {"x-api-key": "sk-one"},
    "the password of Basic": {"Authorization": f"Basic {BASIC}"},
    "a placeholder beside it": {"Authorization": "Bearer none", "x-api-key": "sk-one"},
}
REFUSED: Mapping[str, Mapping[str, str]] = {
    "nothing": {},
    "another key": {"Authorization": "Bearer sk-three"},
    "half a key": {"x-api-key": "sk-on"},
    "the name of Basic": {
        "Authorization": "Basic " + base64.b64encode(b"sk-one:").decode(),
    },
}
NEED_NONE = ["/health", "/wol-health"]
NEED_ONE = [
    "/v1/models",
    "/running",
    "/unload",
    "/metrics",
    "/logs",
    "/upstream/a/x",
    "/api/version",
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve a model to who has one of two keys."""
    config = house("apiKeys: [sk-one, sk-two]", a="--tells")
    async with served(config, tmp_path_factory.mktemp("auth")) as one:
        yield one


@pytest.mark.parametrize("way", ACCEPTED)
async def test_a_key_may_come_in_several_ways(hotseat: Hotseat, way: str) -> None:
    """One that matches is enough; and no worker ever sees it."""
    seen = await told(hotseat, "/upstream/a/x", headers=ACCEPTED[way])

    assert not {"authorization", "x-api-key"} & seen.headers.keys()


@pytest.mark.parametrize("way", REFUSED)
async def test_whoever_has_no_key_is_refused(hotseat: Hotseat, way: str) -> None:
    """A 401 in OpenAI's words, readable from a browser's page too."""
    answer = await hotseat.post("/v1/chat/completions", json={"model": "a"}, headers=REFUSED[way])

    assert (answer.status, answer.error["type"]) == (401, "authentication_error")
    assert "WWW-Authenticate" in answer.headers
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", NEED_ONE)
async def test_every_other_path_needs_a_key(hotseat: Hotseat, path: str) -> None:
    """What tells or does something is not for strangers."""
    assert (await hotseat.get(path)).status == 401


@pytest.mark.parametrize("path", NEED_NONE)
async def test_a_look_whether_it_lives_needs_none(hotseat: Hotseat, path: str) -> None:
    """Health checks of containers and balancers hold no key."""
    answer = await hotseat.get(path)

    assert (answer.status, answer.body) == (200, "OK")


async def test_a_preflight_needs_no_key(hotseat: Hotseat) -> None:
    """Browsers send it without one."""
    async with hotseat.session.options("/v1/chat/completions") as answer:
        assert answer.status == 204


async def test_a_websocket_needs_a_key_too(hotseat: Hotseat) -> None:
    """Another protocol is no way around it."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hotseat.session.ws_connect("/upstream/a/socket")

    assert refused.value.status == 401
