"""The switches of the echo worker that stand for time, memory and an engine's death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.workers.launch import Launched, StartFailed, check, launched, spawned

MIB = 1 << 20
ASKING = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/images/generations": {"prompt": "hi"},
}
CHAT = "/v1/chat/completions"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """Give the folder of a card of 1000 bytes."""
    (tmp_path / "total").write_text("1000")
    (tmp_path / "card").mkdir()
    return tmp_path / "card"


@contextmanager
def takes_at_least(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began >= seconds


@asynccontextmanager
async def waiting_at_gate(
    worker: Launched, path: Path, body: dict[str, Any]
) -> AsyncIterator[asyncio.Task[Any]]:
    """Send a request that waits at a gate for the length of the block; gives its answer to be."""
    os.mkfifo(path)
    body = body | {"echo": body.get("echo", {}) | {"gate": str(path)}}
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(worker.post(CHAT, body))
        gate = await asyncio.to_thread(os.open, path, os.O_WRONLY)
        try:
            yield answer
        finally:
            os.close(gate)


def rss_bytes(worker: Launched) -> int:
    return psutil.Process(worker.process.pid).memory_info().rss


async def test_a_load_takes_its_time_and_tells_how_far_it_is() -> None:
    """`load_s` passes between the first progress line and the last, with others on the way."""
    with takes_at_least(0.3):
        async with launched("echo", {"load_s": 0.3, "load_steps": 1}) as worker:
            parts = [status["progress"] for status in worker.statuses if "progress" in status]

    assert len([part for part in parts if 0 < part < 1]) >= 2


async def test_imports_take_their_time_before_the_load() -> None:
    """`import_s` passes between `checked` and `imported`."""
    async with spawned("echo") as (process, _, lines):
        assert process.stdin is not None
        with takes_at_least(0.2):
            process.stdin.write(b'{"import_s": 0.2}\n')
            states = [json.loads(await lines.readline())["state"] for _ in range(2)]

    assert states == ["checked", "imported"]


async def test_a_stop_takes_its_time() -> None:
    """`stop_s` passes between SIGTERM and the exit, which is a clean one."""
    async with launched("echo", {"stop_s": 0.2}) as worker:
        with takes_at_least(0.2):
            worker.process.terminate()

            assert await worker.process.wait() == 0


async def test_ballast_is_real_memory() -> None:
    """`ballast_bytes` shows in the process's RSS."""
    async with launched("echo", {"ballast_bytes": 200 * MIB}) as worker:
        assert 200 * MIB < rss_bytes(worker) < 300 * MIB


def visible(card: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in card.iterdir() if path.name[0] != "."}


async def test_what_a_load_takes_of_the_card_is_on_record(card: Path) -> None:
    """A file named as the process tells the bytes that it holds, and nothing else is left."""
    async with launched("echo", {"allocate": {"path": str(card), "bytes": 700}}) as worker:
        assert visible(card) == {str(worker.process.pid): "700"}


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("name", "free_bytes"),
    [
        (lambda: str(os.getpid()), 500),
        (lambda: f"{os.getpid()}-request", 500),
        (lambda: "stuck-1", 500),
        (lambda: str(dead_pid()), None),
        (lambda: f"{dead_pid()}-request", None),
        (lambda: f".{os.getpid()}", None),
    ],
    ids=["alive", "request of one alive", "stuck", "dead", "request of one dead", "draft"],
)
async def test_a_card_counts_what_the_living_hold(
    card: Path, name: Any, free_bytes: int | None
) -> None:
    """A load that finds too little fails as an engine's does, and tells how much there was."""
    (card / name()).write_text("500")
    failure = None

    try:
        async with launched("echo", {"allocate": {"path": str(card), "bytes": 700}}):
            pass
    except StartFailed as caught:
        failure = caught

    if free_bytes is None:
        assert failure is None
    else:
        assert failure is not None
        assert failure.reason == "out_of_memory"
        told = f"CUDA error: out of memory, 700 bytes asked, {free_bytes} free"
        assert failure.detail == told


async def test_two_loads_at_once_do_not_get_the_same_bytes(card: Path) -> None:
    """Of two that fit one by one, one fails."""
    both = asyncio.Barrier(2)

    async def load() -> str:
        options = {"allocate": {"path": str(card), "bytes": 700}}
        try:
            async with launched("echo", options):
                await both.wait()
        except StartFailed as failure:
            await both.wait()
            return failure.reason
        return "ready"

    assert sorted(await asyncio.gather(load(), load())) == ["out_of_memory", "ready"]


async def test_a_request_holds_more_of_the_card_while_it_runs(card: Path, tmp_path: Path) -> None:
    """The bytes of all running requests stand in one file, which goes with the last."""
    body = ASKING[CHAT] | {"echo": {"allocate_bytes": 100}}
    options = {"allocate": {"path": str(card), "bytes": 700}}
    async with launched("echo", options) as worker:
        held = card / f"{worker.process.pid}-request"
        async with waiting_at_gate(worker, tmp_path / "one", body):
            assert held.read_text() == "100"
            async with waiting_at_gate(worker, tmp_path / "two", body):
                assert held.read_text() == "200"
            assert held.read_text() == "100"

        assert not held.exists()
        assert (card / str(worker.process.pid)).read_text() == "700"


async def test_a_request_that_does_not_fit_the_card_is_refused(card: Path) -> None:
    """The engine has no memory for it; the process lives on and serves the next."""
    options = {"allocate": {"path": str(card), "bytes": 700}}
    async with launched("echo", options) as worker:
        told = await worker.post(CHAT, ASKING[CHAT] | {"echo": {"allocate_bytes": 301}}, 503)
        await worker.post(CHAT, ASKING[CHAT] | {"echo": {"allocate_bytes": 300}})

        assert told["error"]["code"] == "capacity_exceeded"
        assert "301 bytes asked, 300 free" in told["error"]["message"]


async def test_a_request_holds_host_memory_where_there_is_no_card(tmp_path: Path) -> None:
    """It shows in the RSS while the request runs, and not after it."""
    body = ASKING[CHAT] | {"echo": {"allocate_bytes": 200 * MIB}}
    async with launched("echo", {}) as worker:
        async with waiting_at_gate(worker, tmp_path / "gate", body):
            assert rss_bytes(worker) > 200 * MIB

        assert rss_bytes(worker) < 200 * MIB


@pytest.mark.parametrize("path", ASKING)
async def test_an_engine_without_memory_says_so_by_a_header(path: str) -> None:
    """Whatever was asked, the answer is a 503 that a proxy can tell from others."""
    body = ASKING[path] | {"echo": {"out_of_memory": True}, "stream": True}
    async with (
        launched("echo", {}) as worker,
        worker.session.post(path, json=body) as answer,
    ):
        told = await answer.json()

        assert answer.status == 503
        assert told["error"]["code"] == "capacity_exceeded"
        assert answer.headers["X-Hotseat-Reason"] == "out_of_memory"


@pytest.mark.parametrize("path", ASKING)
async def test_an_answer_takes_its_time(path: str) -> None:
    """`serve_s` before the first token and `token_s` between tokens."""
    echo = {"serve_s": 0.1, "token_s": 0.05, "tokens": 3}
    async with launched("echo", {}) as worker:
        with takes_at_least(0.2):
            told = await worker.post(path, ASKING[path] | {"echo": echo})

        assert told["system_fingerprint"] == f"pid-{worker.process.pid}"


@pytest.mark.parametrize("path", ASKING)
async def test_an_engine_dies_with_its_last_words(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """`die_saying` is printed, and the process aborts before it has answered."""
    body = ASKING[path] | {"echo": {"die_saying": "CUDA error: out of memory"}}
    async with launched("echo", {}) as worker:
        with pytest.raises(aiohttp.ClientError, match="disconnected"):
            await worker.post(path, body)

        assert await worker.process.wait() == -signal.SIGABRT
        assert "CUDA error: out of memory" in capfd.readouterr().err


async def test_an_engine_can_die_in_the_middle() -> None:
    """With `die_after` as well, some tokens of the answer are out."""
    echo = {"die_saying": "GGML_ASSERT failed", "die_after": 2, "tokens": 5}
    body = ASKING[CHAT] | {"echo": echo, "stream": True}
    got = b""
    async with launched("echo", {}) as worker, worker.session.post(CHAT, json=body) as answer:
        with contextlib.suppress(aiohttp.ClientError):
            async for chunk in answer.content.iter_any():
                got += chunk

        assert got.count(b"data: ") == 2
        assert await worker.process.wait() == -signal.SIGABRT


async def test_so_many_are_served_at_once_and_no_more(tmp_path: Path) -> None:
    """`at_once` makes the others wait inside, as an engine's own queue would."""
    async with launched("echo", {"at_once": 1}) as worker, asyncio.TaskGroup() as tasks:
        async with waiting_at_gate(worker, tmp_path / "gate", ASKING[CHAT]) as first:
            second = tasks.create_task(worker.post(CHAT, ASKING[CHAT]))
            while (await counts(worker))["started"] < 2:
                pass

            assert (await counts(worker))["finished"] == 0
        await first
        await second


async def counts(worker: Launched) -> dict[str, int]:
    async with worker.session.get("/counts") as answer:
        return await answer.json()


async def test_a_missing_card_is_told_before_the_load(card: Path) -> None:
    """`--check` names the option."""
    there, gone = ({"allocate": {"path": str(path), "bytes": 1}} for path in (card, card / "no"))

    told = await check("echo", [there, gone])

    assert [[problem["option"] for problem in one] for one in told] == [[], ["allocate.path"]]


def estimate(options: dict[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "workers.echo", "--check"]
    line = json.dumps(options).encode()
    told = subprocess.run(command, input=line, capture_output=True, check=True)
    return json.loads(told.stdout)["memory"]["parts"]


def test_what_a_load_will_hold_is_known_before(card: Path) -> None:
    """`--check` reckons the interpreter, the ballast and what it takes of the card."""
    options = {"ballast_bytes": 5 * MIB, "allocate": {"path": str(card), "bytes": 700}}

    parts = {part["what"]: part for part in estimate(options)}

    assert set(parts) == {"interpreter", "ballast", "allocation"}
    assert (parts["ballast"]["place"], parts["ballast"]["bytes"]) == ("host", 5 * MIB)
    assert (parts["allocation"]["place"], parts["allocation"]["bytes"]) == ("device", 700)


async def test_the_estimate_of_host_memory_is_about_right() -> None:
    """What a worker with ballast is seen to hold is within a tenth of what was reckoned."""
    options = {"ballast_bytes": 100 * MIB}
    parts = estimate(options)

    async with launched("echo", options) as worker:
        held_bytes = rss_bytes(worker)

    assert held_bytes == pytest.approx(sum(part["bytes"] for part in parts), rel=0.1)


def foreign(options: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-P", "-m", "workers.echo", "--port", "0"]
    return [*command, "--options", json.dumps(options)]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_at_a_port_help_is_printed_and_nothing_served(flag: str) -> None:
    """It tells the switches, as flags; the other help tells where to find it."""
    at_port = subprocess.run([*foreign({}), flag], capture_output=True, text=True, check=True)
    by_contract = subprocess.run(
        [sys.executable, "-P", "-m", "workers.echo", flag],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "--ignore-sigterm" in at_port.stdout
    assert "--options" in at_port.stdout
    assert "--port N --help" in " ".join(by_contract.stdout.split())


def test_at_a_port_a_load_without_memory_ends_the_process(card: Path) -> None:
    """A foreign engine has no status pipe: it prints why, and exits."""
    options = {"allocate": {"path": str(card), "bytes": 1001}}

    ended = subprocess.run(foreign(options), capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "CUDA error: out of memory, 1001 bytes asked, 1000 free" in ended.stderr


async def test_at_a_port_imports_and_stops_take_their_time(tmp_path: Path) -> None:
    """`import_s` and `stop_s` are kept there too."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    options = {"import_s": 0.2, "stop_s": 0.2, "load_gate": str(gate)}

    with takes_at_least(0.2):
        process = await asyncio.create_subprocess_exec(*foreign(options))
        fd = await asyncio.to_thread(os.open, gate, os.O_WRONLY)

    with takes_at_least(0.2):
        process.terminate()
        assert await process.wait() == 0
    os.close(fd)
