"""The edges where processes, connections and configs meet; most of these once went wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from proxy.config.document import read_document
from tests.proxy.served import all_gone, chat_body, served, spawned, workers_of

TWO = "models: {a: {echo: {reply: I am a}}, b: {echo: {reply: I am b}}}"


async def test_a_macro_inside_an_environment_value_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Macros are settled once, when the file is read: ${…} in a value is just text."""
    monkeypatch.setenv("ODD", "x${nope}")
    config = f"""
models:
  odd:
    cmd: |
      {sys.executable} -P -m workers.echo --port ${{PORT}} --options '{{"reply": "${{env.ODD}}"}}'
  b: {{echo: {{reply: I am b}}}}
"""
    async with served(config, tmp_path) as hotseat:
        assert (await hotseat.chat("odd")).text == "x${nope}"
        assert (await hotseat.chat("b")).text == "I am b"
        assert list(await hotseat.running()) == ["b"]


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_client_that_leaves_at_once_leaves_no_process(tmp_path: Path, steps: int) -> None:
    """However early the wait is given up, no process is started that nobody knows."""
    async with served(TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        assert hotseat.pool is not None
        asking = tasks.create_task(hold(hotseat.pool.lease("a")))
        for _ in range(steps):
            await asyncio.sleep(0)  # one turn of the loop: which one is the point of the test
        asking.cancel()
        await asyncio.wait({asking})
        await hotseat.pool.unload(None)

        assert await hotseat.running() == {}
        assert workers_of(os.getpid()) == []


async def hold(lease: Any) -> None:
    async with lease:
        await asyncio.Event().wait()


async def test_a_client_that_does_not_read_gives_the_seat_up(tmp_path: Path) -> None:
    """Who takes nothing of his answer for stallTimeout is cut off, and others are served."""
    async with served("stallTimeout: 0.3\npatience: 0.1\n" + TWO, tmp_path) as hotseat:
        reader, writer = await raw(hotseat.url, chat_body("a", "x", tokens=3_000_000), stream=True)
        await reader.readuntil(b"\r\n\r\n")
        answer = await hotseat.chat("b")
        writer.close()

        assert answer.text == "I am b"
        assert "took nothing" in await hotseat.log_line("answer_cut")


async def raw(
    url: str, body: dict[str, Any], *, version: str = "1.1", **more: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat request over a plain socket."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
    data = json.dumps(body | more).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nContent-Length: {len(data)}"
    writer.write(head.encode() + b"\r\n\r\n" + data)
    await writer.drain()
    return reader, writer


async def test_a_body_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """A client that stops sending in the middle is told so, and waits for nothing."""
    async with served("stallTimeout: 0.2\n" + TWO, tmp_path) as hotseat:
        host, port = hotseat.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        writer.write(head + b'{"model"')
        answer = await reader.readuntil(b"}}")
        writer.close()

        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_stalled" in answer


async def test_an_unload_returns_when_the_whole_group_is_gone(tmp_path: Path) -> None:
    """The engine under the guard is gone too, not only its leader: its memory is free."""
    config = f"""
unloadTimeout: 0.2
models:
  f:
    cmd: |
      {sys.executable} -P -m workers.echo --port ${{PORT}}
      --options '{{"ignore_sigterm": true, "grandchild": true}}'
"""
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("f")
        family = workers_of(os.getpid())
        await hotseat.post("/unload")

        assert len(family) == 3
        assert not [one for one in family if is_alive(one)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_no_header_is_added_to_a_request(tmp_path: Path) -> None:
    """What the client did not say is not said for it, compression least of all."""
    async with served(TWO, tmp_path) as hotseat:
        host, port = hotseat.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /upstream/a/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        seen = json.loads(answer.partition(b"\r\n\r\n")[2].partition(b"{")[2].join([b"{", b""]))

        assert {name.lower() for name, _ in seen["headers"]} == {"host"}


async def test_paths_reach_the_worker_unquoted_and_unresolved(tmp_path: Path) -> None:
    """Dots, tildes and escapes are the worker's to read; an absolute target is understood."""
    async with served(TWO, tmp_path) as hotseat:
        host, port = hotseat.url.removeprefix("http://").split(":")
        paths = []
        for target in ("/upstream/a/x/../%7Ey", f"{hotseat.url}/upstream/a/z?q=%20"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            paths.append((await reader.readuntil(b'"body"')).split(b'"path": "')[1].split(b'"')[0])
            writer.close()

        assert paths == [b"/x/../%7Ey", b"/z?q=%20"]


async def test_a_compressed_body_is_understood(tmp_path: Path) -> None:
    """Gzip is decoded on the way in; a broken one is the client's mistake."""
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    body = gzip.compress(json.dumps(chat_body("a", "x")).encode())
    async with served(TWO, tmp_path) as hotseat:
        good = await hotseat.post("/v1/chat/completions", data=body, headers=headers)
        bad = await hotseat.post("/v1/chat/completions", data=b"not gzip", headers=headers)

        assert good.text == "I am a"
        assert bad.status == 400


async def test_a_command_may_be_relative_to_the_file(tmp_path: Path) -> None:
    """`./serve.sh` lies beside swap.yaml, wherever Hotseat was started."""
    script = tmp_path / "serve.sh"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m workers.echo --port "$1"\n')
    script.chmod(0o755)
    async with served("models: {f: {cmd: './serve.sh ${PORT}'}}", tmp_path) as hotseat:
        assert (await hotseat.chat("f", "hi")).text == "echo: hi"


async def test_a_pinned_model_comes_back(tmp_path: Path) -> None:
    """When its worker dies nobody has to ask for it again."""
    async with served("models: {a: {pin: true, echo: {}}}", tmp_path) as hotseat:
        await hotseat.log_line("swap came=a")
        first = (await hotseat.running())["a"]["pid"]
        os.kill(first, signal.SIGKILL)
        await hotseat.log_line("worker_died model=a")
        async with hotseat.session.get("/logs/stream/proxy") as stream:
            text = b""
            while text.count(b"swap came=a") < 2:
                text += await stream.content.readany()

        assert (await hotseat.running())["a"]["pid"] != first
        assert (await hotseat.get("/ready")).status == 200


async def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    """Ctrl-C twice ends at once, though a worker ignores SIGTERM and has a long grace."""
    config = "unloadTimeout: 60\nmodels: {a: {echo: {ignore_sigterm: true}}}"
    async with spawned(config, tmp_path) as (hotseat, process):
        await hotseat.chat("a")
        family = workers_of(process.pid)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        async for line in process.stderr:
            if b"stopping" in line:
                break
        process.send_signal(signal.SIGINT)
        await process.communicate()

        assert process.returncode == 0
        assert await all_gone(family, within_s=2)


async def test_a_cut_answer_looks_cut_to_old_clients_too(tmp_path: Path) -> None:
    """An HTTP/1.0 answer ends with its connection, so a cut one must end with a reset."""
    async with served(TWO, tmp_path) as hotseat:
        body = chat_body("a", "x", tokens=50, die_after=2)
        reader, writer = await raw(hotseat.url, body, version="1.0", stream=True)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_burst_on_a_cold_model_is_served(tmp_path: Path) -> None:
    """Six hundred requests at once find room in the worker's backlog."""
    config = "models: {a: {concurrencyLimit: 600, echo: {reply: I am a}}}"
    connector = aiohttp.TCPConnector(limit=0)
    async with served(config, tmp_path) as hotseat:
        async with aiohttp.ClientSession(hotseat.url, connector=connector) as session:
            hotseat.session, own = session, hotseat.session
            answers = await asyncio.gather(*(hotseat.chat("a") for _ in range(600)))
            hotseat.session = own

        assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: \x07", "not valid YAML"),
        ("models: {a: {cmd: !!binary aGk=}}", "has a tag that means nothing here"),
        ("models: &m {a: *m}", "refers to itself"),
        ("models: !!python/object:os.system {}", "has a tag that means nothing here"),
    ],
)
def test_strange_yaml_is_a_mistake_and_no_traceback(text: str, told: str) -> None:
    """Control characters, tags and recursion are told like any other mistake."""
    assert told in str(read_document(text).problems[0])
