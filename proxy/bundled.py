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
from pydantic import BaseModel, Field

from proxy.config import ModelConfig
from proxy.errors import StartFailed
from proxy.process import Process


class Status(BaseModel):
    """A line of the status pipe; see the package `workers`."""

    state: str
    progress: float | None = None
    reason: str = "crashed"
    detail: str = "it did not say why"
    facts: dict[str, Any] = Field(default_factory=dict)


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
        return (await self._until("ready", process)).facts

    async def _until(self, state: str, process: Process) -> Status:
        if process.child is None or process.child.status is None:
            raise await process.crashed()
        try:
            async for line in process.child.status:
                status = Status.model_validate_json(line)
                process.progress = status.progress or process.progress
                if status.state == "failed":
                    raise StartFailed(status.detail, reason=status.reason)
                if status.state == state:
                    return status
        except ValueError as error:  # pydantic's too: not JSON, no state, a line without end
            told = f"the worker broke its contract with a status line: {error}"
            raise StartFailed(told, reason="crashed") from error
        raise await process.crashed()

    def clean_up(self) -> None:
        """Remove the socket, which a killed worker leaves behind."""
        Path(self._socket).unlink(missing_ok=True)


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
