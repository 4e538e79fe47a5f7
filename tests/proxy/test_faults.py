"""Workers that die, hang or lie, clients that leave, and a proxy that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil
import pytest

from tests.proxy.served import (
    Gate,
    Hotseat,
    all_gone,
    chat_body,
    first_event,
    served,
    spawned,
    workers_of,
)

TWO = "models: {a: {echo: {reply: I am a}}, b: {echo: {reply: I am b}}}"


async def test_worker_dies_before_its_first_byte(tmp_path: Path) -> None:
    """One clear 502 that SDKs do not retry; the next request gets a fresh worker."""
    async with served(TWO, tmp_path) as hotseat:
        died = await hotseat.chat("a", die_after=0)
        again = await hotseat.chat("a")

        assert (died.status, died.error["code"]) == (502, "worker_died")
        assert died.headers["x-should-retry"] == "false"
        assert (again.status, again.text) == (200, "I am a")


async def test_worker_dies_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    """The client gets what there was, an error event, and a connection that is cut."""
    async with served(TWO, tmp_path) as hotseat:
        got: list[bytes] = []
        with pytest.raises(aiohttp.ClientError):
            await read_all(hotseat, got, tokens=50, die_after=2)

        text = b"".join(got)
        assert text.count(b'"content"') == 2
        assert b'"worker_died"' in text
        assert b"[DONE]" not in text
        assert (await hotseat.chat("a")).text == "I am a"


async def read_all(hotseat: Hotseat, got: list[bytes], **echo: Any) -> None:
    """Read a stream of model a to its end, however it ends."""
    async with hotseat.stream("a", **echo) as stream:
        while chunk := await stream.content.readany():
            got.append(chunk)


async def test_openai_client_raises_on_a_broken_stream(tmp_path: Path) -> None:
    """openai-python sees the error event as an APIError, not as a short answer."""
    async with served(TWO, tmp_path) as hotseat:
        stream = await hotseat.openai().chat.completions.create(
            model="a",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_body={"echo": {"tokens": 50, "die_after": 2}},
        )
        with pytest.raises(openai.APIError, match="went away"):
            [chunk async for chunk in stream]


async def test_a_start_that_fails_says_why_and_cools_down(tmp_path: Path) -> None:
    """The error carries the worker's own words, and a second try at once is told to wait."""
    config = "models: {a: {echo: {exit_at_load: 7, detail: cudaMalloc failed}}}"
    async with served(config, tmp_path) as hotseat:
        first = await hotseat.chat("a")
        second = await hotseat.chat("a")

        assert (first.status, first.error["code"]) == (503, "capacity_exceeded")
        assert "cudaMalloc failed" in first.error["message"]
        assert "status 7" in first.error["message"]
        assert (second.status, second.error["code"]) == (503, "cooling_down")
        assert int(second.headers["Retry-After"]) >= 1


async def test_a_model_with_a_missing_file_costs_the_seated_one_nothing(tmp_path: Path) -> None:
    """Files are looked at before anybody is evicted."""
    config = "models: {a: {echo: {}}, broken: {echo: {file: nowhere.gguf}}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        pid = (await hotseat.running())["a"]["pid"]
        refused = await hotseat.chat("broken")

        assert refused.status == 502
        assert "nowhere.gguf" in refused.error["message"]
        assert (await hotseat.running())["a"]["pid"] == pid


async def test_a_worker_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """HealthCheckTimeout bounds a start, and the seat is free for others afterwards."""
    config = """
healthCheckTimeout: 2
models:
  hangs: {healthCheckTimeout: 0.8, echo: {hang_at_load: true}}
  b: {echo: {reply: I am b}}
"""
    async with served(config, tmp_path) as hotseat:
        late = await hotseat.chat("hangs")

        assert (late.status, late.error["code"]) == (504, "worker_start_timeout")
        assert (await hotseat.chat("b")).text == "I am b"


async def test_a_foreign_worker_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """A command whose health never says 200 is ended with its children."""
    config = f"""
models:
  hangs:
    healthCheckTimeout: 0.8
    unloadTimeout: 0.2
    cmd: |
      {sys.executable} -P -m workers.echo --port ${{PORT}}
      --options '{{"hang_at_load": true, "ignore_sigterm": true, "grandchild": true}}'
"""
    async with served(config, tmp_path) as hotseat:
        late = await hotseat.chat("hangs")

        assert (late.status, late.error["code"]) == (504, "worker_start_timeout")
        while await hotseat.running():
            pass  # a round trip each time, while it is ended
        assert workers_of(os.getpid()) == []


async def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """No shell riddle: the program's name, and what to do."""
    config = "models: {a: {echo: {}}, f: {cmd: 'no-such-server --port ${PORT}'}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        refused = await hotseat.chat("f")

        assert refused.status == 502
        assert "no such program: no-such-server" in refused.error["message"]
        assert list(await hotseat.running()) == ["a"]


async def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """UnloadTimeout bounds every stop; what a worker left in its group dies too."""
    config = """
unloadTimeout: 0.3
models:
  stubborn: {echo: {ignore_sigterm: true, grandchild: true}}
  b: {echo: {reply: I am b}}
"""
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("stubborn")
        group = workers_of(os.getpid())
        answer = await hotseat.chat("b")

        assert len(group) == 2
        assert answer.text == "I am b"
        assert await all_gone(group, within_s=2)


async def test_a_client_that_leaves_a_stream_stops_the_work(tmp_path: Path) -> None:
    """Closing the connection cancels the request in the worker."""
    async with served(TWO, tmp_path) as hotseat:
        async with hotseat.stream("a", tokens=3, hang_after=1) as stream:
            await first_event(stream)
        await hotseat.log_line("request .*model=a")

        counts = await until_counted(hotseat, "cancelled")
        assert counts == {"started": 1, "finished": 0, "cancelled": 1}


async def until_counted(hotseat: Hotseat, name: str) -> dict[str, int]:
    """Ask the worker until it has counted one; each question is a round trip, not a pause."""
    while True:
        counts = (await hotseat.get("/upstream/a/counts")).body
        if counts[name]:
            return counts


async def test_a_client_that_leaves_the_queue_costs_no_swap(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The model that nobody waits for any more is not loaded, and the seated one stays."""
    held = gate()
    async with served(TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        pid = (await hotseat.running())["a"]["pid"]
        leaver = tasks.create_task(hotseat.chat("b"))
        while "b" not in await hotseat.running():
            pass
        leaver.cancel()
        await hotseat.log_line("unloaded model=b")
        held.open()

        assert (await first).status == 200
        assert (await hotseat.running())["a"]["pid"] == pid
        assert " swap came=b" not in (await hotseat.get("/logs")).body


async def test_a_client_that_leaves_during_the_load_lets_it_finish(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A load under way that nobody else's model waits for is let finish, and serves the next."""
    load = gate()
    config = f"models: {{a: {{echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        leaver = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        leaver.cancel()
        await hotseat.log_line("request .*model=a")
        load.open()
        await hotseat.log_line("swap came=a")

        assert (await hotseat.chat("a")).status == 200
        assert (await hotseat.get("/logs")).body.count(" swap came=a") == 1


async def test_a_load_that_nobody_waits_for_gives_way(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """When another model is asked for, the abandoned load is stopped for it."""
    load = gate()
    config = f"""
models:
  a: {{echo: {{load_gate: {load.path}}}}}
  b: {{echo: {{reply: I am b}}}}
"""
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        leaver = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        leaver.cancel()
        answer = await hotseat.chat("b")

        assert answer.text == "I am b"
        assert list(await hotseat.running()) == ["b"]


@pytest.mark.parametrize("kind", ["bundled", "foreign"])
async def test_nothing_outlives_a_killed_proxy(tmp_path: Path, kind: str) -> None:
    """SIGKILL to the proxy: the worker, its group and the guard are gone within 5 s."""
    options = '{"ignore_sigterm": true, "grandchild": true}'
    how = {
        "bundled": f"echo: {options}",
        "foreign": f"cmd: {sys.executable} -P -m workers.echo --port ${{PORT}}"
        f" --options '{options}'".replace("cmd: ", "cmd: >-\n      "),
    }[kind]
    config = f"models:\n  a:\n    {how}\n"
    async with spawned(config, tmp_path) as (hotseat, process):
        assert (await hotseat.chat("a")).status == 200
        family = workers_of(process.pid)
        process.kill()
        await process.wait()

        assert len(family) >= 2
        assert await all_gone(family, within_s=5)


async def test_sigterm_lets_a_running_answer_end(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """The proxy stops listening, waits for the answer under way, ends its workers and exits 0."""
    held = gate()
    async with spawned(TWO, tmp_path) as (hotseat, process), asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        family = workers_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        async for line in process.stderr:
            if b"stopping" in line:
                break
        held.open()

        assert (await answer).text == "I am a"
        await process.communicate()
        assert process.returncode == 0
        assert await all_gone(family, within_s=2)


async def test_sigterm_does_not_wait_for_ever(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """An answer that outlasts shutdownTimeout is cut, and does not look whole."""
    held = gate()
    async with spawned("shutdownTimeout: 0.3\n" + TWO, tmp_path) as (hotseat, process):
        got: list[bytes] = []
        reading = asyncio.gather(
            read_all(hotseat, got, tokens=5, gate=str(held.path), gate_after=1),
            return_exceptions=True,
        )
        await held.reached()
        process.send_signal(signal.SIGTERM)
        [ended] = await reading

        assert isinstance(ended, aiohttp.ClientError)
        assert b"[DONE]" not in b"".join(got)
        await process.communicate()

        assert process.returncode == 0


async def test_a_noisy_worker_is_read_and_bounded(tmp_path: Path) -> None:
    """Megabytes on stdout block nobody, and only the last of them are kept."""
    async with served("models: {a: {echo: {noise_lines: 20000}}}", tmp_path) as hotseat:
        answer = await hotseat.chat("a")
        logs = (await hotseat.get("/logs")).body

        assert answer.status == 200
        assert "19999 xxx" in logs
        assert len(logs) < 200_000


async def test_no_zombies_and_no_lost_descriptors_after_many_crashes(tmp_path: Path) -> None:
    """Twelve crashes leave no defunct process and no open descriptor behind."""
    me = psutil.Process()
    async with served(TWO, tmp_path) as hotseat:
        await hotseat.chat("a", die_after=0)
        before = me.num_fds()
        for _ in range(12):
            assert (await hotseat.chat("a", die_after=0)).status == 502
            await hotseat.log_line("worker_died model=a")

        assert not [c for c in me.children() if c.status() == psutil.STATUS_ZOMBIE]
        assert me.num_fds() <= before + 3


async def test_listings_answer_while_a_model_loads(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nothing but the request itself waits behind a load."""
    load = gate()
    config = f"models: {{a: {{echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        answers = [
            (await hotseat.get(path)).status
            for path in ("/v1/models", "/models", "/health", "/healthz", "/running", "/logs")
        ]
        running = await hotseat.running()
        load.open()

        assert answers == [200] * 6
        assert running["a"]["state"] == "starting"
        assert (await waiting).status == 200


async def test_a_big_body_of_a_slow_client_holds_no_seat(tmp_path: Path) -> None:
    """A request takes its place in the queue when its body is whole, not before."""
    async with served(TWO, tmp_path) as hotseat:
        body = aiohttp.JsonPayload(chat_body("a", "x" * 1_000_000))
        async with hotseat.session.post("/v1/chat/completions", data=body) as response:
            answer = await response.json()

        assert answer["choices"][0]["message"]["content"] == "I am a"
