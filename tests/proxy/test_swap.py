"""One seat, several models: who sits when."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.proxy.served import Gate, served, workers_of

TWO = "models: {a: {echo: {reply: I am a}}, b: {echo: {reply: I am b}}}"


async def test_models_take_turns_on_one_seat(tmp_path: Path) -> None:
    """Each call is answered by the model that it names, and one worker lives at a time."""
    async with served(TWO, tmp_path) as hotseat:
        for name in "abba":
            answer = await hotseat.chat(name)

            assert (answer.status, answer.text) == (200, f"I am {name}")
            assert len(workers_of(os.getpid())) == 1
            assert list(await hotseat.running()) == [name]


async def test_requests_for_one_model_share_its_load(tmp_path: Path) -> None:
    """Ten callers at once cost one load."""
    async with served(TWO, tmp_path) as hotseat:
        answers = await asyncio.gather(*(hotseat.chat("a") for _ in range(10)))

        assert {answer.text for answer in answers} == {"I am a"}
        history = (await hotseat.get("/logs")).body
        assert history.count("swap came=a") == 1


async def test_interleaved_requests_cost_few_swaps(tmp_path: Path) -> None:
    """Twenty interleaved requests for two models cost two loads, not twenty."""
    async with served(TWO, tmp_path) as hotseat:
        answers = await asyncio.gather(*(hotseat.chat("ab"[i % 2]) for i in range(20)))

        assert {answer.status for answer in answers} == {200}
        assert (await hotseat.get("/logs")).body.count(" swap came=") == 2


async def test_a_running_answer_ends_before_the_swap(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """A model that is called away finishes what it says, and then leaves."""
    held = gate()
    async with served("patience: 0\n" + TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path), gate_after=1))
        await held.reached()
        second = tasks.create_task(hotseat.chat("b"))
        third = tasks.create_task(hotseat.chat("a"))
        held.open()

        assert (await first).text == "I am a"
        assert (await second).text == "I am b"
        assert (await third).text == "I am a"


async def test_a_swap_is_one_line_with_its_phases(tmp_path: Path) -> None:
    """The log says who came, who left and what each phase took."""
    async with served(TWO, tmp_path) as hotseat:
        await hotseat.chat("a")
        await hotseat.chat("b")

        line = await hotseat.log_line("swap came=b")
        assert "left=a" in line
        for phase in ("stop_s=", "spawn_s=", "wait_s=", "load_s=", "first_byte_s=", "total_s="):
            assert phase in line


async def test_an_idle_model_goes_after_its_ttl(tmp_path: Path) -> None:
    """With a ttl the seat is given back when nobody calls."""
    async with served("models: {a: {ttl: 0.2, echo: {}}}", tmp_path) as hotseat:
        await hotseat.chat("a")

        assert await hotseat.log_line("unloaded model=a")
        assert await hotseat.running() == {}
        assert workers_of(os.getpid()) == []


async def test_a_pinned_model_is_loaded_at_start_and_stays(tmp_path: Path) -> None:
    """A pinned model sits beside the seat: no swap and no ttl moves it."""
    config = """
globalTTL: 0.05
models:
  small: {pin: true, echo: {}}
  a: {echo: {}}
  b: {echo: {}}
"""
    async with served(config, tmp_path) as hotseat:
        await hotseat.log_line("swap came=small")
        assert (await hotseat.get("/ready")).status == 200
        for name in ("a", "b"):
            await hotseat.chat(name)
            await hotseat.log_line(f"unloaded model={name}")

        assert list(await hotseat.running()) == ["small"]


async def test_not_ready_until_the_pinned_models_are(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """/ready says 503 and whom it waits for, while /health and the listing answer at once."""
    load = gate()
    config = f"models: {{small: {{pin: true, echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path) as hotseat:
        await load.reached()
        ready = await hotseat.get("/ready")
        health, listing = await hotseat.get("/health"), await hotseat.get("/v1/models")
        load.open()
        await hotseat.log_line("swap came=small")

        assert (ready.status, ready.body["waiting_for"]) == (503, ["small"])
        assert (health.status, health.body) == (200, "OK")
        assert listing.body["data"][0]["status"] == {"value": "unloaded"}
        assert (await hotseat.get("/ready")).status == 200


async def test_unload_and_load_by_hand(tmp_path: Path) -> None:
    """The seat can be emptied and filled over HTTP, as llama-swap's users do."""
    async with served("models: {org/a: {aliases: [al], echo: {}}}", tmp_path) as hotseat:
        loaded = await hotseat.post("/api/models/load/org%2Fa")
        seen = await hotseat.running()
        by_id = await hotseat.post("/api/models/unload/org/a")
        again = await hotseat.post("/api/models/load/al")
        everything = await hotseat.post("/api/models/unload")

        assert (loaded.status, loaded.body["model"]) == (200, "org/a")
        assert seen["org/a"]["state"] == "ready"
        assert (by_id.status, by_id.body) == (200, "OK")
        assert again.body["model"] == "org/a"
        assert (everything.status, everything.body) == (200, {"msg": "ok"})
        assert (await hotseat.get("/unload")).body == "OK"
        assert (await hotseat.post("/unload")).body == "OK"
        assert await hotseat.running() == {}
        assert (await hotseat.post("/api/models/unload/nope")).status == 404


async def test_a_foreign_command_takes_the_seat_too(tmp_path: Path) -> None:
    """Any command that serves HTTP on ${PORT} is a worker."""
    config = f"""
macros: {{py: {sys.executable}}}
models:
  a: {{echo: {{reply: I am a}}}}
  f:
    cmd: |
      # a comment, as in llama-swap's files
      ${{py}} -P -m workers.echo --port ${{PORT}}
      --options '{{"reply": "I am ${{MODEL_ID}}"}}'
    env: [GREETING=hello]
"""
    async with served(config, tmp_path) as hotseat:
        texts = [(await hotseat.chat(name)).text for name in "fafa"]

        assert texts == ["I am f", "I am a", "I am f", "I am a"]
        assert list(await hotseat.running()) == ["a"]
        assert len(workers_of(os.getpid())) == 1


async def test_one_too_many_in_the_queue_is_told_to_come_again(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """ConcurrencyLimit bounds what the worker gets at once, queueLimit how many wait behind."""
    load = gate()
    config = f"""
models:
  a: {{concurrencyLimit: 1, queueLimit: 2, echo: {{load_gate: {load.path}}}}}
"""
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(hotseat.chat("a")) for _ in range(3)]
        await load.reached()
        load.open()

        answers = [await task for task in waiting]
        refused = [answer for answer in answers if answer.status != 200]
        assert [answer.status for answer in refused] == [429]
        assert refused[0].error["code"] == "queue_full"
        assert int(refused[0].headers["Retry-After"]) >= 1
