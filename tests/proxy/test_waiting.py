"""Nobody waits in the dark: what a client hears and is told before his answer begins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.proxy.served import Answer, Gate, Hotseat, chat_body, first_event, served, spawned

TWO = "models: {a: {echo: {reply: I am a}}, b: {echo: {reply: I am b}}}"
SOON = "waitingNotes: 0.05\n"


async def note(stream: aiohttp.ClientResponse, pattern: str = "") -> str:
    """Read on until a comment matches; events must not come before it."""
    while line := await stream.content.readline():
        assert line[:1] in (b":", b"\n"), line
        if line[:1] == b":" and re.search(pattern, line.decode()):
            return line.decode().removeprefix(": ").rstrip("\n")
    raise AssertionError(f"it ended without {pattern}")


async def ending(stream: aiohttp.ClientResponse) -> tuple[list[str], bool]:
    """Read what is left; give its `data:` lines, and whether the end was a clean one."""
    raw, is_clean = b"", False
    with contextlib.suppress(aiohttp.ClientPayloadError):
        while chunk := await stream.content.readany():
            raw += chunk
        is_clean = True
    lines = raw.decode().split("\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")], is_clean


async def queue(hotseat: Hotseat) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await hotseat.get("/api/queue")).body["waiting"]
    return entries


async def until_waiting(hotseat: Hotseat, count: int) -> list[dict[str, Any]]:
    """Ask until so many wait; each question is a round trip, not a pause."""
    while len(waiting := await queue(hotseat)) != count:
        pass
    return waiting


def loading(gate: Gate, **more: Any) -> str:
    """Write a config with one model, which loads until the gate is opened."""
    options = {"load_gate": str(gate.path), "reply": "I am a", **more}
    return SOON + "models: {a: {echo: " + json.dumps(options) + "}}"


# Comments


async def test_a_stream_begins_before_the_model_is_loaded(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """200 and a comment at once, more comments while it loads, then the worker's own bytes."""
    load = gate()
    async with (
        served(loading(load), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
        hotseat.stream("a") as stream,
    ):
        status, kind = stream.status, stream.content_type
        first = await note(stream)
        await load.reached()
        heard = [await note(stream, "loading"), await note(stream), await note(stream)]
        load.open()
        event = await first_event(stream)
        told = event + await stream.content.read()
        again = tasks.create_task(streamed_bytes(hotseat))

        assert (status, kind) == (200, "text/event-stream")
        assert first == "queue 1, a starting"
        assert heard == ["queue 1, a loading"] * 3
        assert told == (await again)[1]
        assert told.endswith(b"data: [DONE]\n\n")


async def streamed_bytes(hotseat: Hotseat, **headers: str) -> tuple[dict[str, str], bytes]:
    """Read a whole streamed answer of model a as it comes."""
    body = chat_body("a", "hi") | {"stream": True}
    url = "/v1/chat/completions"
    async with hotseat.session.post(url, json=body, headers=headers) as response:
        assert response.status == 200
        return dict(response.headers), await response.read()


async def test_comments_tell_progress_and_time(tmp_path: Path) -> None:
    """Once a load was measured, the next one is told with its share and its seconds."""
    config = SOON + "models: {a: {echo: {load_s: 1.2}}}"
    async with served(config, tmp_path) as hotseat:
        async with hotseat.stream("a") as stream:
            unknown = await note(stream, r"loading \d+ %")
            await first_event(stream)
        await hotseat.post("/api/models/unload/a")
        async with hotseat.stream("a") as stream:
            first = await note(stream)
            later = await note(stream, "%")

        assert re.fullmatch(r"queue 1, a loading \d\d? %", unknown)
        assert first == "queue 1, a starting, about 1 s"
        assert re.fullmatch(r"queue 1, a loading \d\d? %, about 1 s", later)


async def test_comments_tell_the_place_in_the_queue(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Who waits second says so, and moves up when the first one leaves."""
    load = gate()
    async with served(loading(load), tmp_path) as hotseat, hotseat.stream("a") as first:
        places = [await note(first)]
        async with hotseat.stream("a") as second:
            places.append(await note(second))
            await load.reached()
            first.close()
            places.append(await note(second, "queue 1"))
            load.open()
            await first_event(second)

        assert [place.split(",")[0] for place in places] == ["queue 1", "queue 2", "queue 1"]


async def test_comments_tell_what_is_waited_for(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """A busy worker, one that must leave, or models that have waited longer."""
    held = gate()
    config = """
waitingNotes: 0.05
models:
  a: {concurrencyLimit: 1, echo: {}}
  b: {echo: {}}
  c: {echo: {}}
"""
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        async with (
            hotseat.stream("a") as one,
            hotseat.stream("b") as two,
            hotseat.stream("c") as three,
        ):
            told = [await note(two, "waits"), await note(three, "after"), await note(one)]
            held.open()
            for stream in (one, two, three):
                await first_event(stream)
                await stream.read()

        assert told == [
            "queue 1, b waits for a",
            "queue 1, c comes after b",
            "queue 1, a is busy",
        ]
        assert (await busy).status == 200


async def test_who_asks_for_a_model_that_drains_is_told_for_whom(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """He comes after the one that it makes room for, and nobody knows when that will be."""
    held = gate()
    config = "patience: 0\n" + SOON + TWO
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await hotseat.chat("b")
        busy = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        wanted = tasks.create_task(hotseat.chat("b"))
        while (await hotseat.running())["a"]["state"] != "stopping":
            pass
        async with hotseat.stream("a") as stream:
            told = await note(stream)
            held.open()
            await first_event(stream)

        assert told == "queue 1, a comes after b"
        assert (await busy).text == "I am a"
        assert (await wanted).text == "I am b"


async def test_an_async_openai_client_notices_nothing(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The call returns before the load is through, and the chunks are the worker's only."""
    load = gate()
    async with served(loading(load), tmp_path) as hotseat:
        stream = await hotseat.openai().chat.completions.create(
            model="a", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await load.pass_one()
        texts = [chunk.choices[0].delta.content async for chunk in stream]

        assert "".join(text or "" for text in texts) == "I am a"


async def test_a_sync_openai_client_notices_nothing(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The same in a thread of its own, with completions of the older kind."""
    load = gate()

    def ask(url: str) -> tuple[str, openai.Stream[openai.types.Completion]]:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        stream = client.completions.create(model="a", prompt="hi", stream=True)
        return stream.response.headers["content-type"], stream

    def read(stream: openai.Stream[openai.types.Completion]) -> str:
        with stream:
            return "".join(chunk.choices[0].text for chunk in stream)

    async with served(loading(load), tmp_path) as hotseat:
        kind, stream = await asyncio.to_thread(ask, hotseat.url)
        await load.pass_one()

        assert kind.startswith("text/event-stream")
        assert await asyncio.to_thread(read, stream) == "I am a"


async def test_without_notes_the_head_is_the_workers_own(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """`waitingNotes: 0`: nothing comes before the worker answers."""
    load = gate()
    config = loading(load).replace(SOON, "waitingNotes: 0\n")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(streamed_bytes(hotseat))
        await load.reached()
        await hotseat.running()
        has_begun = waiting.done()
        load.open()
        headers, body = await waiting

        assert not has_begun
        assert int(headers["X-Load-Ms"]) > 0
        assert body.startswith(b"data: ")


async def test_an_http_1_0_client_hears_the_same(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Without chunks, and up to the end of the connection."""
    load = gate()
    async with served(loading(load), tmp_path) as hotseat:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(hotseat))
        writer.write(old_request())
        head = await reader.readuntil(b"\r\n\r\n")
        comment = await reader.readline()
        await load.pass_one()
        rest = await reader.read()
        writer.close()
        await writer.wait_closed()

        assert b" 200 OK\r\n" in head
        assert b"chunked" not in head
        assert comment == b": queue 1, a starting\n"
        assert rest.endswith(b"\n\ndata: [DONE]\n\n")


async def test_an_http_1_0_client_sees_that_it_broke_off(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The end of the connection would look like the end of the answer: so it is a reset."""
    load = gate()
    async with served(loading(load, fail="crashed"), tmp_path) as hotseat:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(hotseat))
        writer.write(old_request())
        await reader.readuntil(b"\r\n\r\n")
        await load.pass_one()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


def port_of(hotseat: Hotseat) -> int:
    return int(hotseat.url.rpartition(":")[2])


def old_request() -> bytes:
    body = json.dumps(chat_body("a", "hi") | {"stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# Headers of those who hear nothing


async def test_headers_tell_the_wait_and_who_left(tmp_path: Path) -> None:
    """X-Queue-Ms, X-Load-Ms and X-Swap of a load, of none, and of a swap."""
    config = "models: {a: {echo: {load_s: 0.3}}, b: {echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        began = time.monotonic()
        loaded = await hotseat.chat("a")
        took_ms = 1000 * (time.monotonic() - began)
        seated = await hotseat.chat("a")
        swapped = await hotseat.chat("b")
        streamed, _ = await streamed_bytes(hotseat)

        assert 300 <= waits(loaded.headers)[1] <= waits(loaded.headers)[0] <= took_ms
        assert loaded.headers["X-Swap"] == "nobody"
        assert waits(seated.headers)[0] < 300
        assert waits(seated.headers)[1] == 0
        assert "X-Swap" not in seated.headers
        assert 0 < waits(swapped.headers)[1] <= waits(swapped.headers)[0]
        assert swapped.headers["X-Swap"] == "a"
        assert "X-Swap" not in streamed  # its head was out before the swap


def waits(headers: dict[str, str]) -> tuple[int, int]:
    """Give the milliseconds of waiting, and of loading among them."""
    return int(headers["X-Queue-Ms"]), int(headers["X-Load-Ms"])


async def test_who_waits_for_a_busy_worker_is_told_no_load(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The wait for others' requests counts as waiting, and not as a load or a swap."""
    held = gate()
    config = "models: {a: {concurrencyLimit: 1, echo: {}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        second = tasks.create_task(hotseat.chat("a"))
        [entry] = await until_waiting(hotseat, 1)
        held.open()
        headers = (await second).headers

        assert (await busy).status == 200
        assert waits(headers)[0] >= 1000 * entry["waited_s"]
        assert waits(headers)[1] == 0
        assert "X-Swap" not in headers


async def test_a_victim_of_any_name_fits_into_a_header(tmp_path: Path) -> None:
    """X-Swap is percent-encoded where a header must be."""
    config = "models: {org/größe 1: {echo: {}}, b: {echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("org/größe 1")
        answer = await hotseat.chat("b")

        assert answer.headers["X-Swap"] == "org/gr%C3%B6%C3%9Fe 1"


# What fails after the first comment


async def test_a_load_that_fails_ends_the_stream_with_an_error(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """One event with the cause, a connection that is cut, and no [DONE]."""
    load = gate()
    config = loading(load, fail="bad_file", detail="not a GGUF file")
    async with served(config, tmp_path) as hotseat, hotseat.stream("a") as stream:
        await note(stream)
        await load.pass_one()
        events, is_clean = await ending(stream)

        assert not is_clean
        [error] = [json.loads(event)["error"] for event in events]
        assert error["code"] == "worker_start_failed"
        assert "not a GGUF file" in error["message"]


async def test_openai_client_raises_when_the_load_fails(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """An APIError with the cause, after a head that said 200."""
    load = gate()
    config = loading(load, fail="bad_file", detail="not a GGUF file")
    async with served(config, tmp_path) as hotseat:
        stream = await hotseat.openai().chat.completions.create(
            model="a", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await load.pass_one()
        with pytest.raises(openai.APIError, match="not a GGUF file"):
            [chunk async for chunk in stream]


@pytest.mark.parametrize(
    ("echo", "code", "words"),
    [
        ({"status": 400}, "told", "told to answer so"),
        ({"status": 503}, "told", "told to answer so"),
        ({"out_of_memory": True}, "capacity_exceeded", "told to have no memory"),
        ({"die_after": 0}, "worker_died", "went away before it answered"),
    ],
    ids=["a client's mistake", "the worker's trouble", "no memory", "its death"],
)
async def test_a_worker_that_does_not_stream_is_told_as_an_error(
    tmp_path: Path, gate: Callable[[], Gate], echo: dict[str, Any], code: str, words: str
) -> None:
    """When the head is out, the worker's own error comes as an event, and nothing looks whole."""
    load = gate()
    async with served(loading(load), tmp_path) as hotseat:
        async with hotseat.stream("a", **echo) as stream:
            await note(stream)
            await load.pass_one()
            events, is_clean = await ending(stream)

        assert not is_clean
        [error] = [json.loads(event)["error"] for event in events]
        assert error["code"] == code
        assert words in error["message"]
        assert await queue(hotseat) == []
        [act] = (await hotseat.get("/api/metrics/activity")).body["data"]
        assert act["resp_status_code"] == (
            echo.get("status") or (502 if "die_after" in echo else 503)
        )


async def test_a_server_that_stops_tells_who_waits(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """SIGTERM during a load: an error event, a cut connection, and an end."""
    load = gate()
    async with (
        spawned(loading(load), tmp_path) as (hotseat, process),
        hotseat.stream("a") as stream,
    ):
        await load.reached()
        process.send_signal(signal.SIGTERM)
        events, is_clean = await ending(stream)

        assert not is_clean
        assert [json.loads(event)["error"]["code"] for event in events] == ["shutting_down"]


# Refusals before any waiting


async def test_a_stream_that_need_not_wait_for_its_refusal_gets_a_status(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Unknown, odd, or one too many: no stream begins that cannot go on."""
    load = gate()
    config = loading(load).replace("a: {", "a: {queueLimit: 1, ", 1)
    async with served(config, tmp_path) as hotseat, hotseat.stream("a") as stream:
        await note(stream)
        full = await refused(hotseat)
        unknown = await refused(hotseat, model="nope")
        odd = await refused(hotseat, keep_alive="soon")
        await load.pass_one()
        await first_event(stream)

        assert (full.status, full.error["code"]) == (429, "queue_full")
        assert int(full.headers["Retry-After"]) >= 1
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert (odd.status, odd.error["param"]) == (400, "keep_alive")


async def test_a_stream_for_a_model_that_cools_down_gets_a_status(tmp_path: Path) -> None:
    """503 with a Retry-After, so that a client knows without reading a stream."""
    config = SOON + "models: {a: {echo: {fail: crashed}}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        cooling = await refused(hotseat)

        assert (cooling.status, cooling.error["code"]) == (503, "cooling_down")
        assert int(cooling.headers["Retry-After"]) >= 1


async def refused(hotseat: Hotseat, **fields: Any) -> Answer:
    """Ask for a stream and get an answer that is none."""
    body = chat_body("a", "hi") | {"stream": True} | fields
    async with hotseat.session.post("/v1/chat/completions", json=body) as response:
        assert response.content_type == "application/json"
        return Answer(response.status, await response.json(), dict(response.headers))


async def test_who_leaves_while_he_hears_comments_costs_no_swap(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """His place is free, his model is not loaded, and the seated one stays."""
    held = gate()
    async with served(SOON + TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        pid = (await hotseat.running())["a"]["pid"]
        async with hotseat.stream("b") as stream:
            await note(stream, "b waits for a")
        await hotseat.log_line("unloaded model=b")
        left = await queue(hotseat)
        held.open()

        assert (await first).text == "I am a"
        assert left == []
        assert (await hotseat.running())["a"]["pid"] == pid
        assert " swap came=b" not in (await hotseat.get("/logs")).body
        assert "status=499" in await hotseat.log_line("request .*model=b")


# sendLoadingState


@contextlib.asynccontextmanager
async def told_state(
    config: str, folder: Path, load: Gate
) -> AsyncIterator[tuple[str, str, Hotseat]]:
    """Stream a chat through openai's client; give what it reasoned and what it said."""
    async with served(config, folder) as hotseat:
        stream = await hotseat.openai().chat.completions.create(
            model="a", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await load.pass_one()
        chunks = [chunk async for chunk in stream]
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert {chunk.model for chunk in chunks} == {"a"}
        deltas = [chunk.choices[0].delta for chunk in chunks]
        thought = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
        yield "".join(thought), "".join(delta.content or "" for delta in deltas), hotseat


@pytest.mark.parametrize(
    "switches", [("true", None), ("false", "true"), (None, "true")], ids=["all", "own", "only own"]
)
async def test_the_loading_state_is_told_as_reasoning(
    tmp_path: Path, gate: Callable[[], Gate], switches: tuple[str | None, str | None]
) -> None:
    """Chunks that chat pages show; no second note is waited for, so the answer is not late."""
    load = gate()
    config = stating(load, *switches).replace(SOON, "waitingNotes: 3600\n")
    async with told_state(config, tmp_path, load) as (thought, said, _):
        assert re.fullmatch(r"queue 1, a starting\nDone! \(\d+\.\d\ds\)\n\n", thought)
        assert said == "I am a"


async def test_each_loading_state_is_told_once(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Comments go on as they are; reasoning only says what is new."""
    load = gate()
    async with (
        served(stating(load, "true", None), tmp_path) as hotseat,
        hotseat.stream("a") as stream,
    ):
        await load.reached()
        lines: list[bytes] = []
        while lines.count(b": queue 1, a loading\n") < 3:
            lines.append(await stream.content.readline())
        load.open()
        events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
        await first_event(stream)

        told = [event["choices"][0]["delta"]["reasoning_content"] for event in events]
        assert told == ["queue 1, a starting\n", "queue 1, a loading\n"]


@pytest.mark.parametrize(
    "switches", [("true", "false"), ("false", None), (None, None)], ids=["own", "none", "unsaid"]
)
async def test_no_loading_state_unless_asked_for(
    tmp_path: Path, gate: Callable[[], Gate], switches: tuple[str | None, str | None]
) -> None:
    """A model's own switch counts before the file's."""
    load = gate()
    async with told_state(stating(load, *switches), tmp_path, load) as (thought, said, _):
        assert (thought, said) == ("", "I am a")


async def test_the_loading_state_is_for_streamed_chats_only(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Not for completions, not for whole answers, not when there was nothing to wait for."""
    load = gate()
    async with told_state(stating(load, "true", None), tmp_path, load) as (_, _, hotseat):
        _, seated = await streamed_bytes(hotseat)
        await hotseat.post("/api/models/unload/a")
        body = {"model": "a", "prompt": "hi", "stream": True}
        async with hotseat.session.post("/v1/completions", json=body) as stream:
            await note(stream)
            await load.pass_one()
            completion = await stream.read()
        await hotseat.post("/api/models/unload/a")
        whole, _ = await asyncio.gather(hotseat.chat("a"), load.pass_one())

        for told in (seated, completion, json.dumps(whole.body).encode()):
            assert b"I am" in told or b'"I"' in told
            assert b"reasoning_content" not in told


def stating(load: Gate, everybody: str | None, own: str | None) -> str:
    """Write a config with sendLoadingState where it is said."""
    config = loading(load)
    if own is not None:
        config = config.replace("a: {", f"a: {{sendLoadingState: {own}, ", 1)
    return config if everybody is None else f"sendLoadingState: {everybody}\n{config}"
