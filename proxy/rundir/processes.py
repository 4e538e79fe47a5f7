"""The process table, as far as it is looked at: who is there, who belongs together, who is gone.

A zombie is as good as gone: what it held is free, and only its parent can remove it, which may be
somebody else's business. Where it matters, a process is held by a descriptor of its own (pidfd),
so that its pid cannot become another's under the look.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROC = Path("/proc")


def pids() -> list[int]:
    """Name all processes that can be seen."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def started(pid: int) -> int | None:
    """Tell when it has started, in ticks since boot; None: there is none, or a zombie."""
    told = _stat(pid)
    return int(told[19]) if told and told[0] != "Z" else None


def name_of(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return "?"


def is_in_group(pid: int, group: int) -> bool:
    return group_of(pid) == group


def group_of(pid: int) -> int | None:
    told = _stat(pid)
    return int(told[2]) if told else None


def carries(pid: int, variable: str) -> bool:
    """Tell whether its environment has this, as it was when it was started."""
    with suppress(OSError):  # it has just ended, or is none of ours
        return variable.encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False


def has_terminal(pid: int) -> bool:
    told = _stat(pid)
    return bool(told) and told[4] != "0"


def ancestors(pid: int) -> Collection[int]:
    """Name the process, and all from which it descends."""
    found = set[int]()
    while pid and pid not in found:
        found.add(pid)
        told = _stat(pid)
        pid = int(told[1]) if told else 0
    return found


def escaped(leader: int) -> Collection[int]:
    """Name who descends from the leader of a group, and has left that group."""
    told = {pid: stat for pid in pids() if (stat := _stat(pid)) and stat[0] != "Z"}
    found = [leader]
    for ancestor in found:
        found += [pid for pid, stat in told.items() if int(stat[1]) == ancestor]
    return [pid for pid in found[1:] if int(told[pid][2]) != leader]


class Held:
    """A process that is held: it may end, but nobody else can have its pid."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd


@contextmanager
def held(is_wanted: Callable[[int], bool]) -> Iterator[list[Held]]:
    """Hold all processes that are wanted, for the length of the block. Blocks for the look."""
    with ExitStack() as opened:
        found: list[Held] = []
        for pid in pids():
            with suppress(OSError):
                if is_wanted(pid):
                    fd = os.pidfd_open(pid)
                    opened.callback(os.close, fd)
                    if is_wanted(pid):  # still: it is the same
                        found.append(Held(pid, fd))
        yield found


def alive_after(processes: Collection[Held], within_s: float) -> list[Held]:
    """Wait until they are gone; tell who is not, when the time is over. Blocks."""
    poll, alive = select.poll(), {one.fd: one for one in processes}
    for fd in alive:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + within_s
    while alive and (rest_s := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(rest_s * 1000):
            poll.unregister(fd)
            del alive[fd]
    return list(alive.values())


def _stat(pid: int) -> list[str]:
    """Give the fields of stat(5) from the state on; nothing where there is no such process."""
    with suppress(OSError):
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()  # its name may hold anything
    return []
