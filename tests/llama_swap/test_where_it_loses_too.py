"""Where llama-swap's users lose, D11 to D20: each test fails on what happens there."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.llama_swap.house import (
    broken_stream,
    checked,
    events,
    house,
    peer,
    started,
    told,
)
from tests.llama_swap.test_groups import after
from tests.proxy.served import Gate, all_gone, first_event, served, workers_of

MIB = 1 << 20
CHAT = "/v1/chat/completions"


async def test_d11_a_crash_before_the_answer_has_a_cause(tmp_path: Path) -> None:
    """A 502 in JSON with what the worker said, where there was an empty one."""
    async with served(house(a=""), tmp_path) as hotseat:
        answer = await hotseat.chat("a", die_saying="GGML_ASSERT(n_past) failed")

        assert (answer.status, answer.error["code"]) == (502, "worker_died")
        assert "GGML_ASSERT(n_past) failed" in answer.error["message"]


async def test_d11_an_unload_under_a_request_has_a_cause(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Likewise for who is cut off because its model is sent away."""
    held = gate()
    config = house("unloadTimeout: 0.3\n", a="")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        cut = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await hotseat.post("/api/models/unload/a")

        assert (await cut).status in (502, 503)
        assert (await cut).error["message"]


async def test_d12_what_a_loading_model_shows_is_not_typed(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Each note is one frame, whole at once, and nobody else waits for its show."""
    load = gate()
    text = "sendLoadingState: true\ngroups: {all: {swap: false, members: [a, b]}}\n"
    config = house(text, a=f"--load-gate {load.path}", b="")
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("b")
        async with hotseat.stream("a") as stream:
            frame = await first_event(stream)
            warm = await hotseat.chat("b")
            await load.pass_one()
            await stream.content.read()

        told = json.loads(frame.removeprefix(b"data: "))["choices"][0]["delta"]
        assert len(told["reasoning_content"].split()) > 1
        assert warm.text == "b"


async def test_d12_a_load_that_fails_is_an_error_event(tmp_path: Path) -> None:
    """What has begun as a stream ends as a broken one, with a frame that clients can read."""
    config = house("sendLoadingState: true\n", a="--exit-at-load 2")
    async with served(config, tmp_path) as hotseat:
        got = await broken_stream(hotseat, "a")

    lines = [line for line in got.splitlines() if line and not line.startswith(b":")]
    assert all(line.startswith(b"data: ") for line in lines)
    assert events(got)[-1]["error"]["code"] == "worker_start_failed"
    assert b"Done!" not in got


def memory_bytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


async def test_d13_large_uploads_cost_little_memory(tmp_path: Path) -> None:
    """40 MB pass through, as a form and as JSON, and the proxy has never held half of them."""
    path, picture, size = tmp_path / "swap.yaml", tmp_path / "picture", 40_000_000
    path.write_text(house(a=""))
    picture.write_bytes(b"x" * size)
    async with started("--config", str(path)) as (hotseat, program):
        await hotseat.chat("a")
        before = memory_bytes(program.process.pid, "VmRSS")
        with picture.open("rb") as file:
            form = aiohttp.FormData({"model": "a"})
            form.add_field("image", file, filename="p.png", content_type="image/png")
            as_form = await hotseat.post("/v1/images/edits", data=form)
        body = b'{"model": "a", "image": "' + picture.read_bytes() + b'"}'
        as_json = await hotseat.post("/v1/images/generations", data=io.BytesIO(body))
        grown = memory_bytes(program.process.pid, "VmHWM") - before

        assert as_form.body["received_bytes"] > size
        assert as_json.body["received_bytes"] == len(body)
        assert grown < 20 * MIB


async def test_d14_the_clients_key_goes_no_further(tmp_path: Path) -> None:
    """Neither to a worker nor to a peer that has no key of its own."""
    async with peer() as url:
        text = f"apiKeys: [sk-ours]\npeers: {{far: {{proxy: '{url}', models: [m]}}}}\n"
        async with served(house(text, a="--tells"), tmp_path) as hotseat:
            headers = {"Authorization": "Bearer sk-ours", "x-api-key": "sk-ours"}
            seen = [
                await told(hotseat, CHAT, json={"model": name, "messages": []}, headers=headers)
                for name in ("a", "m")
            ]

            assert [one.reply for one in seen] == ["a", "peer"]
            assert "sk-ours" not in str([one.headers for one in seen])


async def test_d15_a_form_keeps_its_parts(tmp_path: Path) -> None:
    """Types, names, order and bytes stay when the model's name is exchanged in it."""
    model = "models: {a: {cmd: 'ECHO --tells', useModelName: real}}\n"
    raw = (
        b'--B\r\nContent-Disposition: form-data; name="z"\r\n\r\nlast name first\r\n'
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\nX-Odd: yes\r\n\r\n\x89PNG\r\n--not a boundary\r\n\r\n"
        b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\na\r\n'
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n'
    )
    async with served(house(model), tmp_path) as hotseat:
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        seen = await told(hotseat, "/v1/images/edits", data=raw, headers=headers)

        assert seen.body == raw.replace(b"\r\n\r\na\r\n", b"\r\n\r\nreal\r\n")


@pytest.mark.parametrize(("asked", "there"), [("bca", "ac"), ("cba", "ab")])
async def test_d16_of_equal_sets_the_one_in_use_is_taken(
    tmp_path: Path, asked: str, there: str
) -> None:
    """Who was not asked for longest leaves; what a set is called decides nothing."""
    config = house("matrix: {sets: {aa: a & b, zz: a & c, both: b & c}}", a="", b="", c="")
    async with served(config, tmp_path) as hotseat:
        assert await after(hotseat, asked) == there


async def test_d17_a_models_own_health_check_timeout_counts(tmp_path: Path) -> None:
    """The file's is for those that say nothing."""
    model = "models: {a: {cmd: 'ECHO --health-status 503', healthCheckTimeout: 0.8}}\n"
    async with served(house(f"healthCheckTimeout: 60\n{model}"), tmp_path) as hotseat:
        assert (await hotseat.chat("a")).status == 504


async def test_d18_workers_die_with_the_proxy(tmp_path: Path) -> None:
    """SIGKILL leaves nobody behind, nor what a worker has started."""
    path = tmp_path / "swap.yaml"
    path.write_text(house(a="--ignore-sigterm --grandchild"))
    async with started("--config", str(path)) as (hotseat, program):
        await hotseat.chat("a")
        family = workers_of(program.process.pid)
        program.process.kill()
        await program.process.wait()

        assert len(family) >= 3
        assert await all_gone(family, within_s=5)


async def test_d18_what_a_crash_has_left_is_swept_at_the_start(tmp_path: Path) -> None:
    """A worker that outlived proxy and guard ends before the next proxy serves."""
    path = tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    async with started("--config", str(path)) as (hotseat, program):
        await hotseat.chat("a")
        worker = psutil.Process((await hotseat.get("/upstream/a/process")).body["pid"])
        program.process.send_signal(signal.SIGSTOP)
        for one in workers_of(program.process.pid):
            if one != worker:
                one.kill()
        program.process.kill()
        await program.process.wait()
    assert worker.is_running()

    async with started("--config", str(path)) as (hotseat, program):
        assert await all_gone([worker], within_s=2)
        assert (await hotseat.chat("a")).text == "a"


SILENT = {
    "unknown key": ("zzz: 1\nmodels: {a: {cmd: 'ECHO'}}\n", 1, "zzz"),
    "no cmd": ("models:\n  a: {name: A}\n", 2, "cmd"),
    "alias is an id": ("models:\n  a: {cmd: 'ECHO'}\n  b: {cmd: 'ECHO', aliases: [a]}\n", 3, "a"),
}


@pytest.mark.parametrize("case", SILENT)
def test_d19_what_cannot_work_is_not_passed_over(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, with its line, before anything starts."""
    text, line, word = SILENT[case]
    said = checked(house(text), tmp_path, capsys)

    assert said.status == 1
    assert f"swap.yaml:{line}: " in said.text
    assert word in said.text


async def test_d20_models_share_the_memory_that_there_is(tmp_path: Path) -> None:
    """With a budget as many sit as fit, and the least that suffices leaves; no groups needed."""
    models = "".join(
        f"  {name}: {{cmd: 'ECHO --reply {name}', memory: {size}MiB}}\n"
        for name, size in {"a": 200, "b": 200, "c": 250, "big": 900}.items()
    )
    text = f"device: cpu\nhost: {{memory: 500MiB}}\nmodels:\n{models}"
    async with served(house(text), tmp_path) as hotseat:
        both = await after(hotseat, "ab")
        with_c = await after(hotseat, "c")
        refused = await hotseat.chat("big")

        assert both == "ab"
        assert with_c in ("ac", "bc")
        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert "".join(await hotseat.running()) == with_c
