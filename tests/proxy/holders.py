"""Children of a test that hold memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

NOBODY = 2**22 + 1  # above the highest pid that Linux gives

HOLDS = """
import sys
for line in sys.stdin:
    held = bytearray(int(line))
    print("held", flush=True)
"""


class Holder:
    """A child process that holds as much as it is told to."""

    def __init__(self, code: str) -> None:
        argv = [sys.executable, "-I", "-S", "-c", code]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        self.pid = self._child.pid

    def hold(self, count_bytes: int) -> None:
        """Let it hold this, and no more what it held before."""
        self.say(str(count_bytes))
        assert self.line() == "held"

    def say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def kill(self) -> None:
        self._child.kill()

    def end(self) -> None:
        """Kill it and all that it has started; reap it."""
        with suppress(ProcessLookupError):  # it was reaped already
            os.killpg(self.pid, signal.SIGKILL)
        self._child.communicate()


@pytest.fixture
def start() -> Iterator[Callable[[str], Holder]]:
    """Start children that are gone after the test."""
    with ExitStack() as started:

        def make(code: str = HOLDS) -> Holder:
            made = Holder(code)
            started.callback(made.end)
            return made

        yield make


Start = Callable[..., Holder]
