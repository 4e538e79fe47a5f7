"""What a client is told when its worker is sent away, and what is told to whom."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.forward import Sent
from proxy.logs import EventFormatter
from tests.proxy.served import Gate, served, spawned

HASTY = "unloadTimeout: 0.05\nshutdownTimeout: 0.05\nmodels:\n  a: {echo: {reply: I am a}}\n"


async def test_an_unload_in_the_middle_of_an_answer_is_no_death(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Who asked too much time of an unload hears that, and the log tells of no death."""
    held = gate()
    async with served(HASTY, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await hotseat.post("/api/models/unload/a")
        answer = await asked
        logs = (await hotseat.get("/logs")).body

    assert (answer.status, answer.error["code"]) == (503, "unloaded")
    assert "a was unloaded" in answer.error["message"]
    assert "worker_died" not in logs


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_stop_in_the_middle_of_an_answer_is_no_death(
    tmp_path: Path, gate: Callable[[], Gate], signals: int
) -> None:
    """Neither when the time is over, nor at the second signal."""
    held, config = gate(), HASTY.replace("0.05", "0.05" if signals == 1 else "60")
    async with spawned(config, tmp_path) as (hotseat, process), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        lines = [await process.stderr.readline()]
        while b"stopping" not in lines[-1]:
            lines.append(await process.stderr.readline())
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        answer = await asked
        lines.append(await process.stderr.read())

    assert (answer.status, answer.error["code"]) == (503, "shutting_down")
    assert b"worker_died" not in b"".join(lines)


async def test_a_pinned_model_that_is_loading_holds_nobody_up(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Its load fails as the server leaves, and is not tried again."""
    load, clock = gate(), asyncio.get_running_loop().time
    config = f"unloadTimeout: 0.05\nmodels: {{a: {{pin: true, echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path):
        await load.reached()
        began = clock()

    assert clock() - began < 3


@pytest.mark.parametrize(
    ("last", "has_left", "status"),
    [
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', False, 200),
        (b'data: {"choices": []}\n\n', True, 499),
        (b"", True, 499),
    ],
)
def test_who_leaves_behind_the_last_event_has_left_with_all_of_it(
    *, last: bytes, has_left: bool, status: int
) -> None:
    """SDKs close the connection when they have read [DONE]: that is no answer given up."""
    sent = Sent(status=200)
    sent.ends.take(last)

    assert (sent.note_client_left(), sent.status) == (has_left, status)


@pytest.mark.parametrize("text", ['say "hi" to it', "two words", 'one"quote', "a\nline", ""])
def test_a_value_in_the_log_can_be_read_back(text: str) -> None:
    """What is not one plain word is a JSON string, as logfmt has it, on one line."""
    record = logging.makeLogRecord({"msg": "refused", "levelname": "INFO", "why": text})
    line = EventFormatter().format(record)

    assert json.loads(line.partition("why=")[2]) == text
    assert "\n" not in line


async def test_wishes_stay_here(tmp_path: Path) -> None:
    """The worker sees neither how urgent a request was nor how long it may take."""
    command = f"{sys.executable} -m workers.echo --port ${{PORT}} --tells"
    config = f"models:\n  a: {{cmd: '{command}'}}"
    async with served(config, tmp_path) as hotseat:
        headers = {"X-Priority": "3", "X-Request-Timeout": "9s", "X-Other": "stays"}
        told = await hotseat.post("/v1/chat/completions", json={"model": "a"}, headers=headers)

    seen = {name.lower() for name, _ in told.body["headers"]}
    assert "x-other" in seen
    assert seen.isdisjoint({"x-priority", "x-request-timeout"})


async def test_a_name_that_is_no_model_is_answered_with_what_is_listed(tmp_path: Path) -> None:
    """Near names are a guess and said to be one; who is unlisted is not told of."""
    config = "models: {coder: {echo: {}}, hidden: {unlisted: true, echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        near, far = await hotseat.chat("codr"), await hotseat.chat("xyz")

    assert "did you mean coder?" in near.error["message"]
    assert "there are: coder (" in far.error["message"]


async def test_who_has_no_key_hears_only_whether_we_live(tmp_path: Path) -> None:
    """Probes hold no key; names of models and alarms are for who has one."""
    config = "apiKeys: [secret]\nmodels: {a: {pin: true, echo: {file: nowhere}}}"
    async with served(config, tmp_path) as hotseat:
        lives, is_ready = await hotseat.get("/healthz"), await hotseat.get("/ready")
        hotseat.session.headers["Authorization"] = "Bearer secret"
        known = await hotseat.get("/ready")

    assert (lives.status, lives.body) == (200, {"ok": True})
    assert (is_ready.status, is_ready.body) == (503, {"ready": False})
    assert known.body["waiting_for"] == ["a"]
