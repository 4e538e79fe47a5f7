"""A worker subprocess: how it starts, says that it is ready, and ends.

Two ways lead there: `bundled` workers keep the contract that the package `workers` documents,
`foreign` ones are any command that serves HTTP on a port. What both share is here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from proxy.errors import StartFailed
from proxy.process.child import Child, spawn
from proxy.process.diagnosis import TRACE, last_words, obituary, ran_out_of_memory, reason_of

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "GGML_NO_BACKTRACE": "1",  # an abort would fork debuggers that keep pipes and memory
    "GOMP_SPINCOUNT": "1000",  # OpenMP threads that spin crawl on busy cores
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
}
"""Set for every worker unless the user's environment says otherwise."""

TAIL_LINES = 40
CONNECT_S = 5.0
HEADER_BYTES = 64 << 10  # of one header line that a worker may answer with


class Way(Protocol):
    """How one kind of worker is started."""

    @property
    def command(self) -> str:
        """Tell what is run, for people."""

    @property
    def url(self) -> str:
        """Tell where it serves, without a slash at the end."""

    @property
    def own_port(self) -> int | None:
        """Give the port on this machine that is always its own; None: it gets any, or none."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Give the variables that the user sets."""

    async def prepare(self, process: Process) -> None:
        """Start, as far as that takes no device memory. Raises StartFailed."""

    async def load(self, process: Process) -> Mapping[str, Any]:
        """Load; returns the worker's facts once it serves. Raises StartFailed."""

    def stop_command(self, child: Child) -> Sequence[str]:
        """Give what is to be run to end it, instead of a signal; nothing: a signal it is."""

    def clean_up(self) -> None:
        """Remove what is left when the process is gone."""


class Process:
    """One worker process, or none yet; `stop` must be called in the end, whatever happened."""

    def __init__(
        self,
        way: Way,
        *,
        cwd: Path,
        on_line: Callable[[str], None],
        marks: Mapping[str, str],
    ) -> None:
        """Make one; `marks` are variables of ours: whose it is, which GPUs it may see."""
        self._marks = marks
        self._way = way
        self.cwd = cwd
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._session: aiohttp.ClientSession | None = None
        self.child: Child | None = None
        self._asker: Child | None = None  # the user's own command, while it ends the process
        self.progress: float | None = None  # the part that is loaded, 0 to 1, if it says so
        self.read_s: float | None = None  # what it took to have its files read ahead
        self.checked_at: float | None = None  # the loop's time when its files were found sound

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child else None

    @property
    def command(self) -> str:
        return self._way.command

    @property
    def url(self) -> str:
        return self._way.url

    @property
    def own_port(self) -> int | None:
        return self._way.own_port

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("asked for the session of a worker that was not started")
        return self._session

    @property
    def environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, **os.environ, **self._marks, **self._way.environment}

    async def prepare(self) -> None:
        await self._way.prepare(self)

    async def load(self) -> Mapping[str, Any]:
        return await self._way.load(self)

    async def exited(self) -> None:
        """Wait until the process is gone, for whatever cause."""
        if self.child is not None:
            await self.child.exited()

    async def stop(self, grace_s: float) -> None:
        """End it, whatever its state; nothing of it is left then."""
        try:
            if self.child is not None:
                await self._end(self.child, grace_s)
        finally:
            if self._session is not None:
                await self._session.close()
            self._way.clean_up()

    async def _end(self, child: Child, grace_s: float) -> None:
        """Let the user's own command end it, or else a signal; one grace bounds both."""
        rest_s = 0.0
        try:
            rest_s = await self._ask_to_end(child, grace_s)
        finally:
            await child.stop(rest_s)

    async def _ask_to_end(self, child: Child, grace_s: float) -> float:
        """Run the stop command and wait; give how long a signal may take after it."""
        argv = self._way.stop_command(child) if not child.has_exited else ()
        if not argv:
            return grace_s
        began, status = _now(), None
        try:
            asker = await spawn(argv, env=self.environment, cwd=self.cwd, on_line=self._on_line)
            self._asker = asker
        except OSError as error:
            log.warning("stop_command_failed", extra={"command": argv[0], "why": str(error)})
            return grace_s
        try:
            async with asyncio.timeout(grace_s):
                status = await asker.exited()
                if status == 0:
                    await child.exited()
        except TimeoutError:
            return 0.0
        finally:
            self._asker = None
            await asker.stop(0)
        if status:
            log.warning("stop_command_failed", extra={"command": argv[0], "status": status})
        return max(0.0, grace_s - (_now() - began))

    async def begin_anew(self) -> None:
        """Leave nothing of a process that has ended, so that there can be another."""
        child, self.child = self.child, None
        self.forget_words()
        if child is not None:
            await child.stop(0)

    def kill(self) -> None:
        """End it at once; `stop` must still be called."""
        for child in (self._asker, self.child):
            if child is not None:
                child.kill()

    async def spawn(self, argv: Sequence[str], *, status_flag: str | None = None) -> Child:
        """Start `argv` with the worker's environment in the config's folder."""
        try:
            self.child = await spawn(
                argv,
                env=self.environment,
                cwd=self.cwd,
                on_line=self._keep,
                status_flag=status_flag,
            )
        except OSError as error:
            raise StartFailed(f"cannot start {argv[0]}: {error}", reason="crashed") from error
        return self.child

    def connect(self, connector: aiohttp.BaseConnector, connect_s: float = CONNECT_S) -> None:
        """Speak to the worker through `connector`: bytes as they are, no deadline of our own.

        But `connect_s` to be connected, if it is not 0.
        """
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s or None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def crashed(self) -> StartFailed:
        """Make the error for a process that ended before it was ready."""
        status = await self.child.exited() if self.child else 0
        told = f"the worker ended before it was ready {obituary(status, self._tail)}"
        return StartFailed(told, reason=reason_of(status, self._tail))

    @property
    def ran_out_of_memory(self) -> bool:
        """Tell whether its last lines say so."""
        return ran_out_of_memory(self._tail)

    def last_words(self) -> str:
        """Tell the line of its output that says most about its end."""
        return last_words(self._tail)

    def forget_words(self) -> None:
        """Begin anew to note what it says: what was said is dealt with."""
        self._tail.clear()

    def _keep(self, line: str) -> None:
        if not TRACE.match(line):
            self._tail.append(line)
        self._on_line(line)


def _now() -> float:
    return asyncio.get_running_loop().time()
