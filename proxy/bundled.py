"""How a worker of the package `workers` is started: unix socket, stdin, status pipe."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from proxy.config import ModelConfig
from proxy.errors import StartFailed
from proxy.process import Process


class Bundled:
    """The way of `python -m workers.KIND`."""

    url = "http://worker"

    def __init__(self, model: ModelConfig, socket: Path) -> None:
        self._options = dict(model.options)
        self._socket = str(socket)
        self._argv = [*program(model.kind), "--socket", self._socket]

    @property
    def command(self) -> str:
        return shlex.join(self._argv)

    async def prepare(self, process: Process) -> None:
        process.connect(aiohttp.UnixConnector(self._socket, limit=0))
        child = await process.spawn(self._argv, status_flag="--status-fd")
        child.tell(json.dumps(self._options))
        await self._until("imported", process)

    async def load(self, process: Process) -> Mapping[str, Any]:
        if process.child is not None:
            process.child.tell("load")
        ready = await self._until("ready", process)
        facts: Mapping[str, Any] = ready.get("facts", {})
        return facts

    async def _until(self, state: str, process: Process) -> Mapping[str, Any]:
        if process.child is None or process.child.status is None:
            raise await process.crashed()
        async for line in process.child.status:
            status: dict[str, Any] = json.loads(line)
            process.progress = status.get("progress", process.progress)
            if status["state"] == "failed":
                raise StartFailed(status["detail"], reason=status["reason"])
            if status["state"] == state:
                return status
        raise await process.crashed()


def program(kind: str) -> list[str]:
    # -P: the working directory is the config's folder, and must not shadow modules
    return [sys.executable, "-P", "-m", f"workers.{kind}"]


async def check_options(
    kind: str, options: Sequence[Mapping[str, Any]], cwd: Path
) -> list[list[tuple[str, str]]]:
    """Ask the worker program what is wrong with each of these options: (option, message).

    It imports no engine and takes no device memory. Raises StartFailed.
    """
    process = await asyncio.create_subprocess_exec(
        *program(kind),
        "--check",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    lines = "".join(json.dumps(dict(entry)) + "\n" for entry in options)
    out, err = await process.communicate(lines.encode())
    if process.returncode:
        told = err.decode("utf-8", "replace").strip().splitlines()
        raise StartFailed(
            f"workers.{kind} cannot check: {told[-1] if told else 'it died'}", reason="crashed"
        )
    answers = [json.loads(line)["problems"] for line in out.splitlines()]
    return [[(p["option"], p["message"]) for p in problems] for problems in answers]
