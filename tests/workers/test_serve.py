"""The shell that bundled workers share, by the echo worker."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.workers.launch import StartFailed, check, launched, spawned


async def test_states_come_in_order() -> None:
    """checked, imported, loading with progress up to 1, ready with facts."""
    async with launched("echo", {"load_steps": 5}) as worker:
        states = [status["state"] for status in worker.statuses]
        parts = [status["progress"] for status in worker.statuses if "progress" in status]

        assert states[:2] == ["checked", "imported"]
        assert states[-1] == "ready"
        assert parts == sorted(parts)
        assert parts[-1] == 1.0
        assert worker.facts["pid"] == worker.process.pid


@pytest.mark.parametrize(
    ("options", "reason", "detail"),
    [
        ({"nope": 1}, "bad_options", "nope"),
        ({"load_steps": "many"}, "bad_options", "load_steps"),
        ({"file": "nowhere"}, "bad_file", "nowhere"),
        ({"fail": "out_of_memory", "detail": "no memory"}, "out_of_memory", "no memory"),
        ({"load_gate": "/no/such/gate"}, "engine_error", "FileNotFoundError"),
    ],
)
async def test_a_failed_start_says_why(
    options: dict[str, object], reason: str, detail: str
) -> None:
    """Whatever goes wrong on the way to ready ends in a `failed` line with a reason."""
    with pytest.raises(StartFailed) as caught:
        async with launched("echo", options):
            pass

    assert caught.value.reason == reason
    assert detail in caught.value.detail


async def test_a_long_detail_is_one_whole_line() -> None:
    """The line fits the pipe's atomic write, so it is never torn."""
    with pytest.raises(StartFailed) as caught:
        async with launched("echo", {"fail": "engine_error", "detail": "x" * 100_000}):
            pass

    assert 500 < len(caught.value.detail) < 4096


async def test_check_reads_many_lines_and_imports_nothing() -> None:
    """One process answers for all models of its kind."""
    told = await check("echo", [{}, {"file": "nowhere"}, {"a": 1}])

    assert [[problem["option"] for problem in one] for one in told] == [[], ["file"], ["a"]]


async def test_health_answers_before_the_load() -> None:
    """The socket is bound first: a worker that has not loaded is reachable, and says 503."""
    async with spawned("echo") as (process, socket, lines):
        assert process.stdin is not None
        process.stdin.write(b"{}\n")
        states = [json.loads(await lines.readline())["state"] for _ in range(2)]
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

        assert states == ["checked", "imported"]
        assert answer.startswith(b"HTTP/1.1 503")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"status": "waiting"}


async def test_stdin_that_ends_ends_the_worker() -> None:
    """The proxy's death reaches the worker, whatever its state."""
    async with launched("echo", {}) as worker:
        assert worker.process.stdin is not None
        worker.process.stdin.close()

        assert await worker.process.wait() in (0, -9)


async def test_sigterm_ends_it_with_status_0() -> None:
    """A stop that was asked for is no crash."""
    async with launched("echo", {}) as worker:
        worker.process.terminate()

        assert await worker.process.wait() == 0


async def test_errors_are_openais_and_not_retried() -> None:
    """A 5xx of the worker's says x-should-retry: false, and its reason phrase tells too."""
    body = {"messages": [], "echo": {"status": 500}}
    async with (
        launched("echo", {}) as worker,
        worker.session.post("/v1/chat/completions", json=body) as answer,
    ):
        told = await answer.json()

        assert answer.status == 500
        assert answer.headers["x-should-retry"] == "false"
        assert answer.reason == told["error"]["message"] == "told to answer so"
        assert told["error"]["type"] == "server_error"
