"""A worker subprocess: how it starts, says that it is ready, and ends.

Two ways lead there: `bundled` workers keep the contract that the package `workers` documents,
`foreign` ones are any command that serves HTTP on a port. What both share is here.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from proxy.child import Child, spawn
from proxy.config import ModelConfig
from proxy.errors import StartFailed

ENVIRONMENT = {
    "GGML_NO_BACKTRACE": "1",  # an abort would fork debuggers that keep pipes and memory
    "GOMP_SPINCOUNT": "1000",  # OpenMP threads that spin crawl on busy cores
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
}
"""Set for every worker unless the user's environment says otherwise."""

TAIL_LINES = 40
HEADER_BYTES = 64 << 10  # of one header line that a worker may answer with
_TELLING = re.compile(r"error|fail|cannot|exception|no such|not found|memory|abort", re.IGNORECASE)

_TRACE = re.compile(r"\s*(File \"|(Current )?[Tt]hread 0x|Extension modules:|Fatal Python error)")
"""What faulthandler prints after an engine's own last words."""
_NO_MEMORY = re.compile(
    r"out ?of ?(device ?)?memory|cudaMalloc failed|can(no|')t allocate|bad_alloc|\bMemoryError\b"
    r"|ALLOC_FAILED|(fail\w* to alloc\w*|alloc\w* fail\w*|unable to allocate).*buffer"
    r"|buffer.*alloc\w* fail",
    re.IGNORECASE,
)
"""How engines and drivers say it: CUDA, HIP, Vulkan, ggml, torch, C++, Python, the C library."""


class Way(Protocol):
    """How one kind of worker is started."""

    @property
    def command(self) -> str:
        """Tell what is run, for people."""

    @property
    def url(self) -> str:
        """Tell where it serves, without a slash at the end."""

    async def prepare(self, process: Process) -> None:
        """Start, as far as that takes no device memory. Raises StartFailed."""

    async def load(self, process: Process) -> Mapping[str, Any]:
        """Load; returns the worker's facts once it serves. Raises StartFailed."""

    def clean_up(self) -> None:
        """Remove what is left when the process is gone."""


class Process:
    """One worker process, or none yet; `stop` must be called in the end, whatever happened."""

    def __init__(
        self,
        model: ModelConfig,
        way: Way,
        *,
        cwd: Path,
        on_line: Callable[[str], None],
        devices: Mapping[str, str],
    ) -> None:
        """`devices` are variables that show the process its GPUs, and hide others."""
        self._model = model
        self._devices = devices
        self._way = way
        self.cwd = cwd
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._session: aiohttp.ClientSession | None = None
        self.child: Child | None = None
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
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("asked for the session of a worker that was not started")
        return self._session

    @property
    def environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, **os.environ, **self._devices, **self._model.env}

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
                await self.child.stop(grace_s)
        finally:
            if self._session is not None:
                await self._session.close()
            self._way.clean_up()

    def kill(self) -> None:
        """End it at once; `stop` must still be called."""
        if self.child is not None:
            self.child.kill()

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

    def connect(self, connector: aiohttp.BaseConnector) -> None:
        """Speak to the worker through `connector`: bytes as they are, no deadline of our own."""
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def crashed(self) -> StartFailed:
        """Make the error for a process that ended before it was ready."""
        status = await self.child.exited() if self.child else 0
        how = f"signal {-status}" if status < 0 else f"status {status}"
        told = f"the worker ended before it was ready ({how}): {self.last_words()}"
        return StartFailed(told, reason="out_of_memory" if self.ran_out_of_memory else "crashed")

    @property
    def ran_out_of_memory(self) -> bool:
        """Tell whether its last lines say so: engines end over it without another word."""
        return any(_NO_MEMORY.search(line) for line in self._tail)

    def last_words(self) -> str:
        """Tell the line of its output that says most about its end."""
        lines = [line.strip() for line in self._tail if line.strip()]
        telling = [line for line in lines if _TELLING.search(line)]
        return (telling or lines or ["it printed nothing"])[-1]

    def forget_words(self) -> None:
        """Begin anew to note what it says: what was said is dealt with."""
        self._tail.clear()

    def _keep(self, line: str) -> None:
        if not _TRACE.match(line):
            self._tail.append(line)
        self._on_line(line)
