"""How a worker of the package `workers` is started: unix socket, stdin, status pipe."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, Field

from proxy.config import ModelConfig
from proxy.errors import StartFailed
from proxy.process.child import Child
from proxy.process.process import Process


class Status(BaseModel):
    """A line of the status pipe; see the package `workers`."""

    state: str
    progress: float | None = None
    seconds: float | None = None
    reason: str = "crashed"
    detail: str = "it did not say why"
    facts: dict[str, Any] = Field(default_factory=dict)


class Bundled:
    """The way of `python -m workers.KIND`."""

    url = "http://worker"
    own_port = None

    def __init__(self, model: ModelConfig, socket: Path) -> None:
        self._options = dict(model.options)
        self.environment: Mapping[str, str] = model.env
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
                if status.state == "checked":
                    process.checked_at = asyncio.get_running_loop().time()
                if status.state == "read":
                    process.read_s = status.seconds
                if status.state == "failed":
                    raise StartFailed(status.detail, reason=status.reason)
                if status.state == state:
                    return status
        except ValueError as error:  # pydantic's too: not JSON, no state, a line without end
            told = f"the worker broke its contract with a status line: {error}"
            raise StartFailed(told, reason="crashed") from error
        raise await process.crashed()

    def stop_command(self, _child: Child) -> Sequence[str]:
        return ()

    def clean_up(self) -> None:
        """Remove the socket, which a killed worker leaves behind."""
        Path(self._socket).unlink(missing_ok=True)


def program(kind: str) -> list[str]:
    # -P: the working directory is the config's folder, and must not shadow modules
    return [sys.executable, "-P", "-m", f"workers.{kind}"]


class Part(BaseModel):
    """Something that a worker will hold from its load on."""

    what: str
    place: Literal["device", "host", "context"]
    count_bytes: int = Field(alias="bytes")


class Rung(BaseModel):
    """What one request needs on top, for a picture of so many pixels."""

    up_to_pixels: int
    count_bytes: int = Field(alias="bytes")
    least_bytes: int | None = None  # what it makes do with where there is no more


class Estimate(BaseModel):
    """What a worker will hold, as its own program reckons it from the heads of the files."""

    parts: tuple[Part, ...] = ()
    requests: tuple[Rung, ...] = ()  # ascending
    plain_pixels: int | None = None  # of a picture whose size the request does not say

    def held_bytes(self, place: str) -> int:
        return sum(part.count_bytes for part in self.parts if part.place == place)

    def request_bytes(self, pixels: int | None) -> int:
        """Tell what a request needs on top of what is held, on the device."""
        rung = self._rung(pixels)
        return rung.count_bytes if rung else 0

    def least_request_bytes(self, pixels: int | None) -> int:
        """Tell what it makes do with, at a price, where there can never be as much."""
        rung = self._rung(pixels)
        if rung is None or rung.least_bytes is None:
            return self.request_bytes(pixels)
        return rung.least_bytes

    def _rung(self, pixels: int | None) -> Rung | None:
        pixels = self.plain_pixels if pixels is None else pixels
        if not self.requests or pixels is None:
            return self.requests[-1] if self.requests else None
        fits = (rung for rung in self.requests if rung.up_to_pixels >= pixels)
        return next(fits, self.requests[-1])


class Problem(BaseModel):
    """What is wrong with one option."""

    option: str
    message: str


class Checked(BaseModel):
    """What a worker's program says of a model's options."""

    problems: tuple[Problem, ...]
    memory: Estimate | None = None


async def check_options(
    kind: str, options: Sequence[Mapping[str, Any]], cwd: Path
) -> list[Checked]:
    """Ask the worker program about each of these options: what is wrong, what it will hold.

    It imports no engine and takes no device memory. Raises StartFailed.
    """
    lines = "".join(json.dumps(dict(entry)) + "\n" for entry in options)
    try:
        status, out, err = await _told([*program(kind), "--check"], lines.encode(), cwd)
        checked = [Checked.model_validate_json(line) for line in out.splitlines()]
    except (OSError, ValueError) as error:
        raise StartFailed(f"workers.{kind} cannot check: {error}", reason="crashed") from error
    if status or len(checked) != len(options):
        said = err.decode("utf-8", "replace").strip().splitlines()
        raise StartFailed(
            f"workers.{kind} cannot check: {said[-1] if said else 'it died'}", reason="crashed"
        )
    return checked


async def _told(argv: Sequence[str], lines: bytes, cwd: Path) -> tuple[int | None, bytes, bytes]:
    """Run it to its end; gives its status and what it printed. Raises OSError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd
    )
    try:
        out, err = await process.communicate(lines)
    except BaseException:  # nobody wants to know any more: who asked for a reload has left
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode, out, err
