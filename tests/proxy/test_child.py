"""Child processes: their lines, their group, their end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import psutil
import pytest

from proxy.process.child import LINE_BYTES, Child, LineProtocol, spawn
from tests.proxy.served import all_gone

IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
SAYS = "print('here', flush=True)"
SET_CHILD_SUBREAPER = 36  # prctl(2)
WAITS = "import sys; sys.stdin.read()"
LEAVES_A_ZOMBIE = """
import os, threading
parent = os.fork()
if parent == 0:  # in a group of its own, so it outlives us and does not reap
    os.setpgid(0, 0)
    group = os.getppid()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, group)
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    print(pid, os.getpid(), sep="\\n", flush=True)
threading.Event().wait()
"""


class Lines(asyncio.Queue[str]):
    """What a child has printed; `get` waits for the next line."""

    @property
    def all(self) -> list[str]:
        return [self.get_nowait() for _ in range(self.qsize())]


async def run(code: str, lines: Lines) -> Child:
    argv = [sys.executable, "-I", "-S", "-c", code]
    env = dict(os.environ)
    return await spawn(argv, env=env, cwd=Path.cwd(), on_line=lines.put_nowait)


async def test_lines_come_whole_and_bounded() -> None:
    """What a process prints arrives line by line, whatever bytes it prints."""
    lines: list[str] = []
    reader = LineProtocol(lines.append)
    for data in (b"one\ntw", b"o\r\n\xff\xfe\n", b"x" * (3 * LINE_BYTES), b"\nlast"):
        reader.data_received(data)
    reader.eof_received()

    assert lines[:3] == ["one", "two", "\ufffd\ufffd"]
    assert lines[3] == "x" * LINE_BYTES
    assert lines[-1] == "last"


async def test_exit_status_and_output() -> None:
    """The status is the process's own, and its output is read to the end."""
    lines = Lines()
    child = await run("print('hello'); raise SystemExit(3)", lines)

    assert await child.exited() == 3
    await child.stop(1)
    assert lines.all == ["hello"]


async def test_a_grandchild_that_holds_the_pipes_hides_no_exit() -> None:
    """`exited` tells of the child, and `stop` ends what it left in its group."""
    lines = Lines()
    code = (
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid: print(pid, flush=True); os._exit(0)\n"
        "import threading; threading.Event().wait()"
    )
    child = await run(code, lines)
    assert await child.exited() == 0
    orphan = psutil.Process(int(await lines.get()))

    assert orphan.is_running()
    await child.stop(1)
    assert await all_gone([orphan], within_s=2)


async def test_an_orphan_of_the_group_is_reaped_where_it_is_ours() -> None:
    """As the first process of a container we adopt what a worker leaves: no zombie may stay."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    lines = Lines()
    child = await run(f"import os\nprint(os.fork() or os.getpid(), flush=True)\n{WAITS}", lines)
    [orphan] = {int(await lines.get()), int(await lines.get())} - {child.pid}
    await child.stop(0)
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 0)

    assert not psutil.pid_exists(orphan)


async def test_a_zombie_in_the_group_is_not_waited_for() -> None:
    """What has died holds nothing, though who has adopted it does not reap it."""
    lines, clock = Lines(), asyncio.get_running_loop().time
    child = await run(LEAVES_A_ZOMBIE, lines)
    zombie = psutil.Process(int(await lines.get()))
    joins = psutil.Process(int(await lines.get()))
    began = clock()
    await child.stop(0)

    assert clock() - began < 1
    assert zombie.status() == psutil.STATUS_ZOMBIE
    joins.kill()


@pytest.mark.parametrize(
    ("code", "status"),
    [(f"{SAYS}\n{WAITS}", -15), (f"{IGNORES}\n{SAYS}\n{WAITS}", -9)],
)
async def test_stop_asks_and_then_kills(code: str, status: int) -> None:
    """SIGTERM first; who ignores it is killed after the grace."""
    lines = Lines()
    child = await run(code, lines)
    await lines.get()
    await child.stop(0.2)

    assert await child.exited() == status


async def test_stdin_is_the_lifeline() -> None:
    """A line can be told; the end of stdin reaches the child when the child is let go."""
    lines = Lines()
    child = await run("print(input(), flush=True); print(input())", lines)
    child.tell("one")
    child.tell("two")

    assert await child.exited() == 0
    await child.stop(1)
    assert lines.all == ["one", "two"]


async def test_a_program_that_is_not_there_leaves_no_descriptor() -> None:
    """A failed spawn raises and closes what it has opened."""
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        await spawn(["/no/such"], env={}, cwd=Path.cwd(), on_line=print, status_flag="--fd")

    assert psutil.Process().num_fds() == before
