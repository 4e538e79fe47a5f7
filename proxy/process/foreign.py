"""How any command of the user's is started: under a guard, on a free port, probed until ready."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from yarl import URL

from proxy.config import ModelConfig
from proxy.errors import StartFailed
from proxy.process import guard
from proxy.process.child import Child
from proxy.process.named_files import missing_file
from proxy.process.ports import NoPort, Ports
from proxy.process.process import Process

log = logging.getLogger(__name__)

PROBE_FIRST_S = 0.005
PROBE_LONGEST_S = 0.1
PROBE_TIMEOUT_S = 1.0
PROBE_TIMEOUT_LONGEST_S = 10.0
PROVES_ITSELF_S = 3.0
"""How long a command must stay when somebody served at its port before it was started."""
HERE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  # as configs write it
PORT, PID = "${PORT}", "${PID}"
OK = 200


class Foreign:
    """The way of a `cmd:`; which port ${PORT} is, is settled by `load`."""

    def __init__(self, model: ModelConfig, ports: Ports, first_port: int | None) -> None:
        self._model = model
        self._ports = ports
        self._first_port = first_port
        self._port = ""
        self._taken: list[int] = []
        self.own_port = _own_port(model.proxy)
        texts = (model.proxy, model.check_endpoint, *model.argv, *model.env.values())
        self._needs_port = any(PORT in text for text in texts)

    @property
    def command(self) -> str:
        return shlex.join(self._argv)

    @property
    def url(self) -> str:
        return self._filled_in(self._model.proxy).rstrip("/")

    @property
    def environment(self) -> Mapping[str, str]:
        return {name: self._filled_in(text) for name, text in self._model.env.items()}

    @property
    def _argv(self) -> Sequence[str]:
        return [self._filled_in(word) for word in self._model.argv]

    def _filled_in(self, text: str) -> str:
        return text.replace(PORT, self._port) if self._port else text

    async def prepare(self, process: Process) -> None:
        """Look whether the command can be run at all; running it is `load`."""
        program = self._argv[0]
        if os.path.dirname(program):  # noqa: PTH120  # as execvp sees it: has it a slash?
            program = str(process.cwd / program)
        found = shutil.which(program, path=process.environment.get("PATH"))
        if found is None:
            raise StartFailed(
                f"no such program: {program}; give its full path in cmd", reason="not_installed"
            )
        missing = missing_file(self._argv, Path(found), process.cwd)
        if missing is not None:
            raise StartFailed(f"no such file: {missing}; see cmd", reason="no_such_file")
        # a kept-alive connection is not used again: llama-server drops some right after a stream
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        process.connect(connector, connect_s=self._model.timeouts.connect)

    async def load(self, process: Process) -> Mapping[str, Any]:
        try:
            await self._come_up(process)
        except StartFailed as failure:
            if failure.reason != "port_in_use" or not self._needs_port:
                raise
            await process.begin_anew()  # somebody took the port between our look and its bind
            await self._come_up(process)
        return {}

    async def _come_up(self, process: Process) -> None:
        self._take_port()
        is_taken = self.own_port is not None and await _is_taken(URL(self.url))
        child = await process.spawn([sys.executable, "-I", "-S", guard.__file__, *self._argv])
        async with asyncio.TaskGroup() as tasks:
            exited = tasks.create_task(child.exited())
            answers = tasks.create_task(self._answers(process.session))
            await asyncio.wait({exited, answers}, return_when=asyncio.FIRST_COMPLETED)
            if is_taken:  # it may be somebody else who answers, and the command cannot serve
                log.warning("port_was_taken", extra={"url": self.url})
                await asyncio.wait({exited}, timeout=PROVES_ITSELF_S)
            has_exited = exited.done()
            exited.cancel()
            answers.cancel()
        if has_exited:
            raise await process.crashed()

    def _take_port(self) -> None:
        """Choose the port, only now: one that is free may be taken a minute later."""
        self.clean_up()
        try:
            if self.own_port is not None:
                self._ports.claim(self.own_port)
                self._taken.append(self.own_port)
            if self._needs_port:
                port = self._ports.give(self._first_port)
                self._taken.append(port)
                self._port = str(port)
        except NoPort as error:
            raise StartFailed(str(error), reason="port_in_use") from error

    def stop_command(self, child: Child) -> Sequence[str]:
        """Fill in whom the command has to end: what the guard runs, not the guard."""
        if not self._model.stop_argv:
            return ()
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(child.pid).children()  # the guard adopts others, later
            if below:
                pid = str(min(below, key=lambda one: one.create_time()).pid)
                return [self._filled_in(w).replace(PID, pid) for w in self._model.stop_argv]
        return ()

    def clean_up(self) -> None:
        """Give its ports back: they are nobody's once its process is gone."""
        for port in self._taken:
            self._ports.take_back(port)
        self._taken.clear()
        self._port = ""

    async def _answers(self, session: aiohttp.ClientSession) -> None:
        """Probe until it is ready; the caller's deadline bounds it."""
        pause_s, timeout_s = PROBE_FIRST_S, PROBE_TIMEOUT_S
        while not await self._is_ready(session, timeout_s):
            await asyncio.sleep(pause_s)  # back-off: a foreign program cannot tell us
            pause_s = min(pause_s * 1.5, PROBE_LONGEST_S)
            timeout_s = min(timeout_s * 1.5, PROBE_TIMEOUT_LONGEST_S)

    async def _is_ready(self, session: aiohttp.ClientSession, timeout_s: float) -> bool:
        """Ask the check endpoint, which says 200; without one, being there will do."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            if self._model.check_endpoint == "none":
                return await _is_listened_at(URL(self.url), timeout_s)
            url = f"{self.url}/{self._filled_in(self._model.check_endpoint).lstrip('/')}"
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
                return answer.status == OK
        return False


def _own_port(proxy: str) -> int | None:
    """Give the port on this machine that the config names; None: it names another place."""
    if PORT in proxy:
        return None
    url = URL(proxy)
    return url.port if url.host in HERE else None


async def _is_taken(url: URL) -> bool:
    with suppress(OSError, TimeoutError):
        await _is_listened_at(url, PROBE_TIMEOUT_S)
        return True
    return False


async def _is_listened_at(url: URL, timeout_s: float) -> bool:
    async with asyncio.timeout(timeout_s):
        _, writer = await asyncio.open_connection(url.host, url.port)
    writer.close()
    return True
