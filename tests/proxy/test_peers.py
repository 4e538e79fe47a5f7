"""Models of other servers: a second Hotseat, and servers that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.llama_swap.house import broken_stream, house, peer, told
from tests.proxy.served import Gate, Hotseat, first_event, served

CHAT = "/v1/chat/completions"
FAR_HOUSE = """
apiKeys: [sk-far]
models:
  far-chat: {aliases: [near], echo: {}}
  painter: {capabilities: [image_generation], echo: {}}
"""


@contextlib.asynccontextmanager
async def two(folder: Path, near: str = "models: {a: {echo: {}}}") -> AsyncIterator[Hotseat]:
    """Serve a Hotseat that has another one as its peer `far`."""
    (folder / "far").mkdir()
    async with served(FAR_HOUSE, folder / "far") as far:
        peers = f"""
peers:
  far:
    proxy: {far.url}
    apiKey: sk-far
    models: [far-chat, near, painter]
"""
        async with served(near + peers, folder) as hotseat:
            yield hotseat


async def test_a_second_hotseat_answers(tmp_path: Path) -> None:
    """By any of its models' names; both tell of the request, and our seat stays empty."""
    async with two(tmp_path) as hotseat:
        whole = await hotseat.chat("far-chat", "over there")
        short = await hotseat.chat("far/near", "once more")
        metrics = await hotseat.get("/metrics")

        assert (whole.status, whole.text) == (200, "echo: over there")
        assert (short.text, short.body["model"]) == ("echo: once more", "near")
        assert float(whole.headers["X-Load-Ms"]) > 0  # the far one's own word
        assert await hotseat.running() == {}
        assert 'hotseat_requests_total{model="far/far-chat",status="200"} 1.0' in metrics.body
        assert await hotseat.log_line(r"request .*model=far/near worker=- status=200")


async def test_a_peers_stream_comes_as_it_goes(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """The first words are here while the last are not said yet."""
    wait = gate()
    async with (
        two(tmp_path) as hotseat,
        hotseat.stream("far-chat", gate=str(wait.path), gate_after=1) as stream,
    ):
        assert b"echo:" in await first_event(stream)
        await wait.reached()
        wait.open()
        rest = await stream.content.read()

    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_peers_refusal_is_passed_on(tmp_path: Path) -> None:
    """It knows best what its models can do; what it says and how is kept."""
    async with two(tmp_path) as hotseat:
        answer = await hotseat.chat("painter")

    assert (answer.status, answer.error["code"]) == (400, "model_cannot")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_peers_broken_stream_looks_broken(tmp_path: Path) -> None:
    """What its worker's death did to it is done to us, and we do it to our client."""
    async with two(tmp_path) as hotseat:
        got = await broken_stream(hotseat, "far-chat", die_after=1)

    assert b"worker_died" in got
    assert b"[DONE]" not in got


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def beside(serve: Serve, folder: Path, more: str = "") -> AsyncIterator[Hotseat]:
    """Serve a Hotseat whose peer `odd` speaks as `serve` does."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = f"""
models: {{a: {{echo: {{}}}}}}
peers: {{odd: {{proxy: "http://127.0.0.1:{port}", models: [m] {more}}}}}
"""
    try:
        async with served(config, folder) as hotseat:
            yield hotseat
    finally:
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"what?\r\n\r\n")


async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"8\r\ndata: 1\n\r\n")
    await writer.drain()


@pytest.mark.parametrize("serve", [hang_up, babble])
async def test_a_peer_that_does_not_answer_is_told_by_its_name(
    tmp_path: Path, serve: Serve
) -> None:
    """As a 502 that no client tries again; ours go on."""
    async with beside(serve, tmp_path) as hotseat:
        answer = await hotseat.chat("m")
        ours = await hotseat.chat("a")

    assert (answer.status, answer.error["code"], ours.status) == (502, "peer_failed", 200)
    assert "the peer odd" in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_a_peer_that_breaks_off_is_no_clean_end(tmp_path: Path) -> None:
    """An event tells who it was, and the connection is cut."""
    async with beside(break_off, tmp_path) as hotseat:
        got = await broken_stream(hotseat, "m")

    *_, last = got.split(b"data: ")
    assert got.startswith(b"data: 1\n")
    assert json.loads(last)["error"]["code"] == "peer_failed"
    assert b"the peer odd broke off" in last


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: \x01\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Now\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n",
    ],
)
async def test_a_peer_that_answers_nonsense_is_told_by_its_name(
    tmp_path: Path, answer: bytes
) -> None:
    """A head that cannot be read, or not be sent on, is an error in words."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with beside(babble, tmp_path) as hotseat:
        got = await hotseat.chat("m")

    assert (got.status, got.error["code"]) == (502, "peer_failed")
    assert "the peer odd" in got.error["message"]


async def test_a_peer_that_is_silent_is_left(tmp_path: Path) -> None:
    """When the head of its answer does not come in time; the connection to it is closed."""
    closed = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()

    more = ", timeouts: {responseHeader: 0.1}"
    async with beside(wait, tmp_path, more) as hotseat:
        answer = await hotseat.chat("m")
        await closed.wait()

    assert (answer.status, answer.error["code"]) == (504, "answer_late")
    assert "the peer odd" in answer.error["message"]
    assert "0.1 s (timeouts.responseHeader)" in answer.error["message"]


UPLOAD_BYTES = 24 << 20  # more than sockets hold


async def test_the_time_for_an_answer_begins_when_all_is_sent(tmp_path: Path) -> None:
    """A slow upload is not counted, nor the rest of an answer once it has begun."""

    async def dawdle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)  # these are what is measured
        await reader.readexactly(UPLOAD_BYTES)
        writer.write(HEAD)
        await writer.drain()
        await asyncio.sleep(0.5)
        writer.write(b"5\r\nwords\r\n0\r\n\r\n")
        await writer.drain()

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    begin = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x\r\n\r\n'
    end = b"\r\n--x--"
    raw = begin + bytes(UPLOAD_BYTES - len(begin) - len(end)) + end
    more = ", timeouts: {responseHeader: 0.3}"
    async with beside(dawdle, tmp_path, more) as hotseat:
        answer = await hotseat.post(CHAT, data=io.BytesIO(raw), headers=headers)

    assert answer.body == "words"


async def test_a_worker_has_a_time_for_its_answer_too(tmp_path: Path) -> None:
    """If the model says so; it lives on, and the request is cancelled there."""
    config = "models: {a: {timeouts: {responseHeader: 0.1}, echo: {}}, b: {echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        late = await hotseat.chat("a", hang_after=0)
        soon = await hotseat.chat("a")
        counts = await hotseat.get("/upstream/a/counts")

    assert (late.status, late.error["code"]) == (504, "answer_late")
    assert (soon.status, counts.body["cancelled"]) == (200, 1)


SECRETS = {
    "Authorization": "Bearer sk-ours",
    "X-Api-Key": "sk-ours",
    "Api-Key": "sk-ours",
    "Cookie": "session=sk-ours",
    "Proxy-Authorization": "Basic sk-ours",
}


@pytest.mark.parametrize("keys", ["", "apiKeys: [sk-ours]\n"])
async def test_no_key_of_ours_leaves_the_house(tmp_path: Path, keys: str) -> None:
    """Not to a peer, whether we ask for keys or not, and whether the peer has its own."""
    async with peer() as url:
        config = f"""
{keys}models: {{a: {{cmd: "ECHO --tells"}}}}
peers:
  open: {{proxy: "{url}", models: [m]}}
  closed: {{proxy: "{url}", models: [n], apiKey: sk-theirs}}
"""
        async with served(house(config), tmp_path) as hotseat:
            hotseat.session.headers.update(SECRETS | {"X-Other": "1"})
            unkeyed = await told(hotseat, CHAT, json={"model": "m"})
            keyed = await told(hotseat, CHAT, json={"model": "n"})
            ours = await told(hotseat, CHAT, json={"model": "a"})

    assert "sk-ours" not in str(unkeyed.headers)
    assert "sk-ours" not in str(keyed.headers)
    assert unkeyed.headers["x-other"] == "1"
    assert unkeyed.headers["host"] in url
    assert "authorization" not in unkeyed.headers
    assert keyed.headers["authorization"] == "Bearer sk-theirs"
    assert keyed.headers["x-api-key"] == "sk-theirs"
    worker_may_see_it = not keys  # then it is no key to us
    assert (ours.headers.get("authorization") == "Bearer sk-ours") == worker_may_see_it


async def test_a_peers_cookies_stay_there(tmp_path: Path) -> None:
    """They would be ours in the eyes of a browser."""

    async def bake(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Other: 2\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        await writer.drain()

    async with beside(bake, tmp_path) as hotseat:
        answer = await hotseat.chat("m")

    assert "Set-Cookie" not in answer.headers
    assert answer.headers["X-Other"] == "2"


async def test_what_is_too_much_for_us_goes_to_a_peer(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A selector that spills over counts what is under way, here and there."""
    wait = gate()
    near = """
models: {a: {echo: {reply: ours}}}
selectors: {any: {strategy: spillover, targets: [a, far/far-chat], settings: {spillover: 2}}}
"""
    async with two(tmp_path, near) as hotseat, asyncio.TaskGroup() as tasks:
        await hotseat.chat("any")
        first = tasks.create_task(hotseat.chat("any", gate=str(wait.path)))
        await wait.reached()
        second = await hotseat.chat("any")
        held = gate()
        third = tasks.create_task(hotseat.chat("any", gate=str(held.path)))
        await held.reached()
        fourth = await hotseat.chat("any", "hello")
        wait.open()
        held.open()

        assert (await first).text == second.text == (await third).text == "ours"
        assert fourth.text == "echo: hello"
