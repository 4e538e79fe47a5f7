"""A child process as a scope: its own group, its output always read, always reaped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

READ_BYTES = 64 << 10
LINE_BYTES = 4 << 10
SECOND_SIGTERM_AFTER_S = 1.0
"""llama-server takes no notice of the first SIGTERM while it streams, and leaves at the second."""


class Child:
    """A running process group; make one with `spawn`, end it with `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline_fd: int) -> None:
        self._process = process
        self._lifeline_fd = lifeline_fd
        self.status: asyncio.StreamReader | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        """Write a line to stdin. It must fit the pipe's buffer (64 KiB), so it never blocks."""
        with suppress(BrokenPipeError):  # it has died, and `exited` says so
            os.write(self._lifeline_fd, line.encode() + b"\n")

    async def exited(self) -> int:
        """Wait for the process; gives its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """End the group: SIGTERM, once more, and after the grace SIGKILL; then reap.

        Also to be called after the process has exited by itself: what it left in its group dies.
        """
        try:
            if not await self._exits_within(min(SECOND_SIGTERM_AFTER_S, grace_s)):
                await self._exits_within(grace_s - SECOND_SIGTERM_AFTER_S)
        finally:
            self._signal(signal.SIGKILL)
            os.close(self._lifeline_fd)
            await asyncio.shield(self._process.wait())

    async def _exits_within(self, seconds: float) -> bool:
        if self._process.returncode is not None or seconds <= 0:
            return self._process.returncode is not None
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # nobody is left in the group
            os.killpg(self._process.pid, number)


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    on_line: Callable[[str], None],
    status_flag: str | None = None,
) -> Child:
    """Start `argv`; each line that it prints goes to `on_line`, cut at `LINE_BYTES`.

    With `status_flag`, a pipe's descriptor is appended to `argv` behind that flag, and the
    child's `status` reads its lines. Our own pipes, not asyncio's: a grandchild that holds one
    open must not keep us from seeing that the child has exited. Raises OSError.
    """
    stdin_read, lifeline = os.pipe()
    out_read, out_write = os.pipe()
    status_read, status_write = os.pipe() if status_flag else (-1, -1)
    flag = [status_flag, str(status_write)] if status_flag else []
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            *flag,
            stdin=stdin_read,
            stdout=out_write,
            stderr=out_write,
            pass_fds=[status_write] if status_flag else [],
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except BaseException:
        for fd in (lifeline, out_read, status_read):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in (stdin_read, out_write, status_write):
            if fd >= 0:
                os.close(fd)
    child = Child(process, lifeline)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: LineProtocol(on_line), os.fdopen(out_read, "rb", 0))
    if status_flag:
        child.status = asyncio.StreamReader()
        reader = asyncio.StreamReaderProtocol(child.status)
        await loop.connect_read_pipe(lambda: reader, os.fdopen(status_read, "rb", 0))
    return child


class LineProtocol(asyncio.Protocol):
    """Cuts what a process prints into lines, whatever it prints, in bounded memory."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._rest) > LINE_BYTES:
            self._emit(self._rest)
            self._rest = b""

    def eof_received(self) -> None:
        if self._rest:
            self._emit(self._rest)

    def _emit(self, line: bytes) -> None:
        self._on_line(line[:LINE_BYTES].decode("utf-8", "replace").rstrip("\r"))
