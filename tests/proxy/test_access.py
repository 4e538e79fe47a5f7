"""Who may ask: keys of `apiKeys`, on real sockets."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.config import load_config
from proxy.routes import access, middleware
from proxy.routes.keys import CONFIG
from tests.proxy.served import served

KEYED = """
apiKeys: [sk-first, {key: sk-second, name: laptop, priority: 4}, schlüssel]
models: {a: {echo: {}}}
"""


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


async def tell(request: web.Request) -> web.Response:
    """Answer with what the middleware has noted."""
    noted = request.get(access.KEY)
    return web.json_response(
        {
            "name": noted.name if noted else None,
            "priority": access.priority_of_key(request),
            "withheld": access.withheld(request),
        }
    )


async def open_door(config: str, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve nothing but the door, and who was let in."""
    path = folder / "swap.yaml"
    path.write_text(config)
    app = web.Application(
        middlewares=[middleware.preflight, middleware.errors_as_json, access.require_key]
    )
    config = load_config(path).config
    app[CONFIG] = lambda: config
    app.router.add_route("*", "/{path:.*}", tell)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield session
    finally:
        await runner.cleanup()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async for session in open_door(KEYED, tmp_path):
        yield session


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-first"},
        {"Authorization": "bearer  sk-first "},
        {"Authorization": basic("anybody:sk-first")},
        {"x-api-key": "sk-first"},
        {"x-api-key": "schlüssel"},
        {"Authorization": "Bearer none", "x-api-key": "sk-first"},
    ],
)
async def test_a_key_opens(door: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """As a bearer, as a password or in its own header; a placeholder beside it does no harm."""
    async with door.get("/v1/models", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer sk-firs"},
        {"Authorization": "Bearer sk-first-and-more"},
        {"Authorization": "sk-first"},
        {"Authorization": "Digest sk-first"},
        {"Authorization": basic("sk-first:")},
        {"Authorization": "Basic no base64"},
        {"Authorization": "Basic ÿ"},
        {"x-api-key": ""},
        {"x-api-key": "SK-FIRST"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/running", "/upstream/a/health", "/nowhere"])
async def test_without_a_key_nothing_is_told(
    door: aiohttp.ClientSession, headers: dict[str, str], path: str
) -> None:
    """The refusal is OpenAI's, says what to send, and repeats nothing of what was sent."""
    async with door.get(path, headers=headers) as response:
        told = await response.json()

    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="hotseat", Bearer'
    assert told["error"]["type"] == "authentication_error"
    assert told["error"]["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in told["error"]["message"]
    assert "sk-first" not in await response.text()


@pytest.mark.parametrize(
    "path", ["/", "/health", "/healthz", "/ready", "/favicon.ico", "/wol-health"]
)
async def test_what_is_open_to_all(door: aiohttp.ClientSession, path: str) -> None:
    """Whoever looks whether we live needs no key, and nor does a preflight."""
    async with door.get(path) as alive, door.options("/v1/models") as preflight:
        assert (alive.status, preflight.status) == (200, 204)


async def test_the_key_is_known_to_whom_it_concerns(door: aiohttp.ClientSession) -> None:
    """The request carries its entry: the priority, and that its headers hold a secret."""
    async with door.get("/v1/models", headers={"x-api-key": "sk-second"}) as response:
        told = await response.json()

    assert (told["name"], told["priority"]) == ("laptop", 4)
    assert set(told["withheld"]) == {"authorization", "x-api-key", "api-key"}


async def test_without_keys_everybody_may_ask(tmp_path: Path) -> None:
    """And whatever a client sends as a key is for the worker to see."""
    async for session in open_door("models: {a: {echo: {}}}", tmp_path):
        async with session.get("/v1/models", headers={"x-api-key": "any"}) as response:
            assert await response.json() == {"name": None, "priority": None, "withheld": []}


async def test_the_whole_program_asks_for_the_key(tmp_path: Path) -> None:
    """The door stands before every path of the real table, and its log keeps the secret."""
    async with served(KEYED, tmp_path) as hotseat:
        refused = await hotseat.chat("a")
        upstream = await hotseat.get("/upstream/a/health")
        wrong = await hotseat.post("/unload", headers={"x-api-key": "sk-wrong"})
        alive = await hotseat.get("/health")
        allowed = {"Authorization": "Bearer sk-second"}
        async with hotseat.session.get("/v1/models", headers=allowed) as models:
            assert models.status == 200
        async with hotseat.session.get("/logs", headers=allowed) as logs:
            log = await logs.text()

    assert [refused.status, upstream.status, wrong.status, alive.status] == [401, 401, 401, 200]
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    assert "invalid_api_key" in log
    assert "sk-" not in log
