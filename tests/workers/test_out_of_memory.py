"""What clients and the proxy are told when memory runs out, at load and during a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.workers import heads, launch, sd_files
from workers import wire
from workers.memory import MIB

REASON = "X-Hotseat-Reason"


@contextlib.contextmanager
def limited(pid: int, more_bytes: int) -> Iterator[None]:
    """Let a process have so much more address space than it has now, for the block."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    most = psutil.Process(pid).memory_info().vms + more_bytes
    resource.prlimit(pid, resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have failed and left
            resource.prlimit(pid, resource.RLIMIT_AS, before)


@contextlib.asynccontextmanager
async def asked(
    worker: launch.Launched, path: str, body: Mapping[str, Any]
) -> AsyncIterator[tuple[int, str | None, Any]]:
    """Send a JSON body; gives the status, the reason's header and the JSON answer."""
    async with worker.session.post(path, json=dict(body)) as answer:
        yield answer.status, answer.headers.get(REASON), await answer.json()


@pytest.mark.parametrize(
    "error", [wire.OutOfMemory("no memory for 9999x9999"), MemoryError()], ids=["told", "python"]
)
async def test_the_answer_tells_the_proxy_why(error: Exception) -> None:
    """Out of memory is 503 in OpenAI's shape, with a header that other 503s do not have."""

    async def fail(_request: web.Request) -> web.Response:
        raise error

    async def load(_request: web.Request) -> web.Response:
        raise wire.ApiError(503, "the model is still loading", code="loading")

    app = wire.application()
    app.add_routes([web.get("/fail", fail), web.get("/load", load)])

    async with TestClient(TestServer(app)) as client:
        failed, loading = await client.get("/fail"), await client.get("/load")
        told = (await failed.json())["error"]

    assert (failed.status, failed.headers[REASON]) == (503, "out_of_memory")
    assert (told["code"], told["type"]) == ("capacity_exceeded", "server_error")
    assert REASON not in loading.headers


@pytest.mark.engine
@pytest.mark.timeout(60)
async def test_a_picture_too_large_for_memory_leaves_the_model_alive(models: Path) -> None:
    """The engine cannot get its buffer; the client is told, and the next picture is painted."""
    body = {"prompt": "a red circle", "size": "128x128", "steps": 1}

    async with launch.launched("sd", sd_files.options(models, max_pixels=1 << 26)) as worker:
        with limited(worker.process.pid, 512 * MIB):
            large = body | {"size": "4096x4096"}
            async with asked(worker, "/v1/images/generations", large) as (status, reason, told):
                pass
        await worker.post("/v1/images/generations", body)

    assert (status, reason) == (503, "out_of_memory")
    assert told["error"]["code"] == "capacity_exceeded"


LARGE = {"layers": 2, "width": 1024, "inner": 2816, "words": 32000, "heads": 16, "kv_heads": 8}
LOADS: dict[str, tuple[dict[str, Any], int]] = {
    "llama's file": ({"model": "large.gguf", "n_threads": 1}, 32 * MIB),
    "llama's cache": ({"model": "chat.gguf", "n_ctx": 1 << 18, "n_threads": 1}, 200 * MIB),
    "sd's threads": ({}, 4 * MIB),
    "sd's weights": ({}, 64 * MIB),
    "florence2's file": ({"model": "florence2", "device": "cpu", "n_threads": 1}, 4 * MIB),
}


@pytest.mark.engine
@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", LOADS)
async def test_a_load_without_memory_says_so(models: Path, tmp_path: Path, what: str) -> None:
    """Each engine's own way to fail for memory at load becomes the reason `out_of_memory`."""
    kind, (more, room_bytes) = what.partition("'")[0], LOADS[what]
    options = sd_files.options(models) if kind == "sd" else dict(more)
    if kind != "sd":
        large = heads.llama(tmp_path / "large.gguf", **LARGE)
        options["model"] = str(large if what == "llama's file" else models / options["model"])

    async with launch.spawned(kind) as (process, _, lines):
        assert process.stdin is not None
        process.stdin.write(json.dumps(options).encode() + b"\n")
        await until(lines, "imported")
        with limited(process.pid, room_bytes):
            process.stdin.write(b"load\n")
            status = await until(lines, "failed")

    assert status["reason"] == "out_of_memory"


async def until(lines: asyncio.StreamReader, state: str) -> dict[str, Any]:
    async for line in lines:
        status: dict[str, Any] = json.loads(line)
        if status["state"] == state:
            return status
    pytest.fail(f"never {state}")
