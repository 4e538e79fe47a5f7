"""How any command of the user's is started: under a guard, on a free port, probed until ready."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp

from proxy import guard
from proxy.config import ModelConfig
from proxy.errors import StartFailed
from proxy.process import Process

PROBE_FIRST_S = 0.005
PROBE_LONGEST_S = 0.1
PROBE_TIMEOUT_S = 1.0


class Foreign:
    """The way of a `cmd:`; which port ${PORT} is, is settled by `load`."""

    def __init__(self, model: ModelConfig) -> None:
        self._argv = shlex.split(model.cmd or "", comments=True)
        self._check_endpoint = model.check_endpoint
        self.url = model.proxy.rstrip("/")

    @property
    def command(self) -> str:
        return shlex.join(self._argv)

    async def prepare(self, process: Process) -> None:
        """Look whether the command can be run at all; running it is `load`."""
        program = self._argv[0]
        if os.path.dirname(program):  # noqa: PTH120  # as execvp sees it: has it a slash?
            program = str(process.cwd / program)
        if shutil.which(program, path=process.environment.get("PATH")) is None:
            raise StartFailed(
                f"no such program: {program}; give its full path in cmd", reason="not_installed"
            )
        # a kept-alive connection is not used again: llama-server drops some right after a stream
        process.connect(aiohttp.TCPConnector(limit=0, force_close=True))

    async def load(self, process: Process) -> Mapping[str, Any]:
        port = str(free_port())  # only now: one that is free may be taken a minute later
        self._argv = [word.replace("${PORT}", port) for word in self._argv]
        self.url = self.url.replace("${PORT}", port)
        child = await process.spawn([sys.executable, "-I", "-S", guard.__file__, *self._argv])
        async with asyncio.TaskGroup() as tasks:
            exited = tasks.create_task(child.exited())
            answers = tasks.create_task(self._answers(process.session))
            await asyncio.wait({exited, answers}, return_when=asyncio.FIRST_COMPLETED)
            has_exited = exited.done()
            exited.cancel()
            answers.cancel()
        if has_exited:
            raise await process.crashed()
        return {}

    def clean_up(self) -> None:
        """Leave nothing: a port is nobody's once its process is gone."""

    async def _answers(self, session: aiohttp.ClientSession) -> None:
        """Probe until the check endpoint says 200; the caller's deadline bounds it."""
        if self._check_endpoint == "none":
            return
        pause_s = PROBE_FIRST_S
        while not await self._probe(session):
            await asyncio.sleep(pause_s)  # back-off: a foreign program cannot tell us
            pause_s = min(pause_s * 1.5, PROBE_LONGEST_S)

    async def _probe(self, session: aiohttp.ClientSession) -> bool:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(self.url + self._check_endpoint, timeout=timeout) as answer:
                return answer.status == 200  # noqa: PLR2004
        return False


def free_port() -> int:
    """Find a port of the loopback interface that is free now; the worker binds it at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
