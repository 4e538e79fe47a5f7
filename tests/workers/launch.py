"""Starts a bundled worker by its contract, as the proxy does, for tests of the worker alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai

ENVIRONMENT = {
    "GGML_NO_BACKTRACE": "1",
    "GOMP_SPINCOUNT": "1000",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",
}


class StartFailed(Exception):
    """The worker said `failed`, or left without a word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass
class Launched:
    """A worker that is ready."""

    process: asyncio.subprocess.Process
    socket: str
    statuses: list[dict[str, Any]]
    session: aiohttp.ClientSession
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        return self.statuses[-1]["facts"]

    def openai(self) -> openai.AsyncOpenAI:
        """Make an openai client that speaks over the worker's socket; never retries."""
        transport = httpx2.AsyncHTTPTransport(uds=self.socket)
        client = openai.AsyncOpenAI(
            base_url="http://worker/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=transport, timeout=60),
        )
        self.clients.append(client)
        return client

    async def post(self, path: str, body: Mapping[str, Any], status: int = 200) -> Any:
        """Send a JSON body; gives the JSON answer, which must have that status."""
        async with self.session.post(path, json=dict(body)) as answer:
            told = await answer.json()
            assert answer.status == status, told
            return told


@contextlib.asynccontextmanager
async def spawned(
    name: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, asyncio.StreamReader]]:
    """Start the program; gives the process, its socket's path and its status lines."""
    status_read, status_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="hotseat-test-") as folder:
        socket = str(Path(folder, "worker.sock"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"workers.{name}"),
            *("--socket", socket, "--status-fd", str(status_write)),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[status_write],
            env=os.environ | ENVIRONMENT | dict(env or {}),
            start_new_session=True,
        )
        os.close(status_write)
        lines = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(status_read, "rb", 0)
        )
        try:
            yield process, socket, lines
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            transport.close()


@contextlib.asynccontextmanager
async def launched(
    name: str, options: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> AsyncIterator[Launched]:
    """Run `python -m workers.NAME` until it is ready, for the length of the block."""
    async with spawned(name, env) as (process, socket, lines):
        assert process.stdin is not None
        process.stdin.write(json.dumps(dict(options)).encode() + b"\nload\n")
        await process.stdin.drain()
        statuses = await _until_ready(lines)
        connector = aiohttp.UnixConnector(socket)
        async with aiohttp.ClientSession("http://worker", connector=connector) as session:
            worker = Launched(process, socket, statuses, session)
            try:
                yield worker
            finally:
                for client in worker.clients:
                    await client.close()


async def _until_ready(lines: asyncio.StreamReader) -> list[dict[str, Any]]:
    statuses: list[dict[str, Any]] = []
    async for line in lines:
        statuses.append(json.loads(line))
        if statuses[-1]["state"] == "failed":
            raise StartFailed(statuses[-1]["reason"], statuses[-1]["detail"])
        if statuses[-1]["state"] == "ready":
            return statuses
    raise StartFailed("crashed", f"after {statuses}")


async def check(name: str, options: Sequence[Mapping[str, Any]]) -> list[list[dict[str, str]]]:
    """Run `--check` over several options lines; gives the problems of each."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", f"workers.{name}", "--check"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    lines = "".join(json.dumps(dict(o)) + "\n" for o in options)
    out, _ = await process.communicate(lines.encode())
    return [json.loads(line)["problems"] for line in out.splitlines()]
