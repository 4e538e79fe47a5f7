"""A child process as a scope: its own group, its output always read, always reaped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from proxy.logs import LINE_BYTES
from proxy.rundir import alive_after, escaped, held, is_in_group

log = logging.getLogger(__name__)

STATUS_BYTES = 1 << 20  # the longest status line

NO_SIGNAL = 0  # kill(2): only looks whether anybody is there
GROUP_GONE_WITHIN_S = 5.0
SECOND_SIGTERM_AFTER_S = 1.0
"""llama-server takes no notice of the first SIGTERM while it streams, and leaves at the second."""


class Child:
    """A running process group; make one with `spawn`, end it with `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline_fd: int) -> None:
        self._process = process
        self._lifeline_fd = lifeline_fd
        self._escaped: Collection[int] = ()
        self._is_over = False  # its group's number may be somebody else's by now
        self.status: asyncio.StreamReader | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._process.returncode is not None

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
            self.kill()
            os.close(self._lifeline_fd)
            await asyncio.shield(self._group_is_gone())
            self._is_over = True

    def kill(self) -> None:
        """End the whole group at once, and who has left it; `stop` must still be called."""
        if self._is_over:
            return
        if not self.has_exited:  # else there is nobody to find them by
            self._escaped = escaped(self.pid)
            for pid in self._escaped:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        self._signal(signal.SIGKILL)

    async def _group_is_gone(self) -> None:
        """Wait for the process and, with a bound, for what else was killed with it.

        The leader is ours to reap; the others may hold device memory a little longer.
        """
        await self._process.wait()
        if not self._signal(NO_SIGNAL) and not self._escaped:
            return
        if await asyncio.to_thread(_outlives, self.pid, self._escaped):
            log.warning("group_outlives_sigkill", extra={"pid": self.pid})

    async def _exits_within(self, seconds: float) -> bool:
        if self.has_exited or seconds <= 0:
            return self.has_exited
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: int) -> bool:
        """Send it to the group; False when nobody is left there."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody in it has become another user
            log.warning("not_ours_to_signal", extra={"pid": self.pid, "signal": number})
        return True


def _outlives(group: int, others: Collection[int]) -> bool:
    """Wait until nobody is left in a group that was killed, nor of the others; else True."""
    with held(lambda pid: pid in others or is_in_group(pid, group)) as members:
        outlives = bool(alive_after(members, GROUP_GONE_WITHIN_S))
        for member in members:
            with suppress(ChildProcessError):  # none of ours, as a rule; all are in a container
                os.waitid(os.P_PIDFD, member.fd, os.WEXITED | os.WNOHANG)
        return outlives


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
    with ExitStack() as opened:  # all of it is closed; what we keep is a duplicate
        stdin_read, lifeline = _pipe(opened)
        out_read, out_write = _pipe(opened)
        status_read, status_write = _pipe(opened) if status_flag else (-1, -1)
        process = await asyncio.create_subprocess_exec(
            *argv,
            *([status_flag, str(status_write)] if status_flag else []),
            stdin=stdin_read,
            stdout=out_write,
            stderr=out_write,
            pass_fds=[status_write] if status_flag else [],
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        child = Child(process, os.dup(lifeline))
        try:
            await _read(os.dup(out_read), LineProtocol(on_line))
            if status_flag:
                child.status = asyncio.StreamReader(STATUS_BYTES)
                await _read(os.dup(status_read), asyncio.StreamReaderProtocol(child.status))
        except BaseException:  # a process that is not given away must not live on
            await child.stop(0)
            raise
        return child


def _pipe(opened: ExitStack) -> tuple[int, int]:
    """Open a pipe: (read end, write end)."""
    ends = os.pipe()
    for end in ends:
        opened.callback(os.close, end)
    return ends


async def _read(fd: int, protocol: asyncio.BaseProtocol) -> None:
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb", 0))


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
