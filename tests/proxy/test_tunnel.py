"""Websockets through /upstream: every kind of message, every way to end, real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMessage, WSMsgType

from tests.proxy.scripted import command
from tests.proxy.served import Hotseat, served

CONFIG = f"""
maxBodyBytes: 2000000
models:
  talker: {{cmd: {command()}, aliases: [t/alias]}}
  careless: {{cmd: {command()}, compat: {{ignoreWebsockets: true}}}}
  other: {{echo: {{}}}}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of this module."""
    async with served(CONFIG, tmp_path_factory.mktemp("tunnel")) as one:
        yield one


@asynccontextmanager
async def talking(
    hotseat: Hotseat, path: str = "/upstream/talker/talk", **more: object
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a websocket that answers nothing by itself."""
    opening = hotseat.session.ws_connect(
        path, autoping=False, autoclose=False, max_msg_size=0, **more
    )
    async with opening as socket:
        yield socket


async def closed_with(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    message = await socket.receive()
    assert message.type == WSMsgType.CLOSE
    return message.data, message.extra or ""


async def test_text_and_bytes_pass_both_ways(hotseat: Hotseat) -> None:
    """Each message arrives whole and as what it was, in its order."""
    async with talking(hotseat) as socket:
        for number in range(20):
            await socket.send_str(f"täxt {number}")
            await socket.send_bytes(bytes([number]) * 1000)

        for number in range(20):
            assert await socket.receive_str() == f"täxt {number}"
            assert await socket.receive_bytes() == bytes([number]) * 1000


async def test_large_messages_pass_up_to_the_bound(hotseat: Hotseat) -> None:
    """A megabyte passes; more than maxBodyBytes closes with 1009."""
    async with talking(hotseat) as socket:
        await socket.send_bytes(b"x" * 1_000_000)
        assert len(await socket.receive_bytes()) == 1_000_000

        await socket.send_bytes(b"x" * 2_000_001)
        code, _ = await closed_with(socket)
        assert code == 1009


async def test_pings_and_pongs_are_the_sides_own(hotseat: Hotseat) -> None:
    """Both directions, with what they carry."""
    async with talking(hotseat) as socket:
        await socket.ping(b"knock")
        assert await socket.receive_str() == "pinged knock"
        assert await socket.receive() == WSMessage(WSMsgType.PONG, b"knock", "")

        await socket.send_str("ping")
        assert await socket.receive() == WSMessage(WSMsgType.PING, b"p", "")
        await socket.pong(b"p")
        assert await socket.receive_str() == "ponged p"


async def test_the_workers_close_passes(hotseat: Hotseat) -> None:
    """Its code and its reason."""
    async with talking(hotseat) as socket:
        await socket.send_str("close 4001 enough")

        assert await closed_with(socket) == (4001, "enough")


async def test_who_has_closed_may_still_listen(hotseat: Hotseat) -> None:
    """The worker hears the client's code, and its last words reach the client."""
    async with talking(hotseat) as socket:
        await socket.send_frame(b"\x0f\xa3over", WSMsgType.CLOSE)

        assert await socket.receive_str() == "heard 4003 over"
        assert await closed_with(socket) == (4002, "and goodbye")


async def test_a_dead_worker_closes_with_1011(hotseat: Hotseat) -> None:
    """Silence would pass for an end."""
    async with talking(hotseat) as socket:
        await socket.send_str("die")

        assert await closed_with(socket) == (1011, "the worker went away")
    await hotseat.log_line("answer_cut path=/upstream/talker/talk")


async def test_who_asks_again_at_once_is_not_sent_to_the_dead(hotseat: Hotseat) -> None:
    """The close comes when the worker is known to be gone."""
    for _ in range(3):
        async with talking(hotseat) as socket:
            await socket.send_str("hi")
            assert await socket.receive_str() == "hi"
            await socket.send_str("die")
            assert (await closed_with(socket))[0] == 1011


async def test_the_worker_chooses_the_protocol(hotseat: Hotseat) -> None:
    """From those that the client offers; without an offer there is none."""
    async with talking(hotseat, protocols=("a.v1", "b.v2")) as socket:
        assert socket.protocol == "b.v2"
    async with talking(hotseat) as socket:
        assert socket.protocol is None


async def test_a_refused_handshake_gives_the_workers_status(hotseat: Hotseat) -> None:
    """And a body in words."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await hotseat.session.ws_connect("/upstream/talker/deny")

    assert caught.value.status == 403


async def test_a_broken_handshake_is_refused_before_any_swap(hotseat: Hotseat) -> None:
    """It names a model, and would not have become a websocket."""
    await hotseat.chat("other")
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with hotseat.session.get("/upstream/talker/talk", headers=headers) as answer:
        assert answer.status == 400
        assert "handshake" in (await answer.json())["error"]["message"]

    assert set(await hotseat.running()) == {"other"}


async def until_waiting_for_room(hotseat: Hotseat) -> None:
    """Ask until somebody does; each question is a round trip, not a pause."""
    words: list[str] = []
    while words != ["room"]:
        waiting = (await hotseat.get("/api/queue")).body["waiting"]
        words = [entry["waiting_for"] for entry in waiting]


async def test_a_websocket_loads_its_model_and_keeps_it(hotseat: Hotseat) -> None:
    """Another model waits until the socket is closed."""
    await hotseat.chat("other")
    async with talking(hotseat, "/upstream/t/alias/talk") as socket, asyncio.TaskGroup() as tasks:
        await socket.send_str("hi")
        assert await socket.receive_str() == "hi"
        waiting = tasks.create_task(hotseat.chat("other"))
        await until_waiting_for_room(hotseat)
        await socket.send_str("still here")
        assert await socket.receive_str() == "still here"
        assert not waiting.done()

        await socket.close()
    assert waiting.result().status == 200


async def test_a_client_that_vanishes_frees_the_model(hotseat: Hotseat) -> None:
    """Without a close of its own."""
    async with talking(hotseat) as socket:
        await socket.send_str("hi")
        await socket.receive_str()
        socket._response.connection.transport.abort()

    assert (await hotseat.chat("other")).status == 200


async def test_ignored_websockets_neither_load_nor_hold(hotseat: Hotseat) -> None:
    """compat.ignoreWebsockets: 409 while the model is away, no lease while it is there."""
    await hotseat.chat("other")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await hotseat.session.ws_connect("/upstream/careless/talk")
    assert caught.value.status == 409
    assert set(await hotseat.running()) == {"other"}

    await hotseat.get("/upstream/careless/x")
    async with talking(hotseat, "/upstream/careless/talk") as socket:
        await socket.send_str("hi")
        assert await socket.receive_str() == "hi"
        assert (await hotseat.running())["careless"]["idle_s"] is not None
        assert (await hotseat.chat("other")).status == 200
        code, _ = await closed_with(socket)

    assert code in (1001, 1011, 4002)


async def test_a_tunnel_can_be_cancelled(hotseat: Hotseat) -> None:
    """It is among the requests that are on their way, and ends like a broken one."""
    async with talking(hotseat) as socket:
        await socket.send_str("hi")
        await socket.receive_str()
        [flight] = (await hotseat.get("/api/inflight")).body["requests"]
        assert (flight["model"], flight["req_path"]) == ("talker", "/upstream/talker/talk")

        answer = await hotseat.post(f"/api/inflight/{flight['id']}/cancel")
        message = await socket.receive()

    assert answer.body == {"msg": "ok"}
    assert message.type != WSMsgType.TEXT
