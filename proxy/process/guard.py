"""Runs a user's command, and ends it and all that it has started when the proxy is gone.

A program of its own, started as the leader of a new process group: ``guard.py COMMAND…`` with
stdin as the lifeline. A foreign worker does not watch its parent, so this does: EOF on stdin
means that the proxy died, however that came about, and all below the guard is killed. It exits
with the command's status. SIGTERM reaches the command through the group; the guard only outlives
it. Who leaves the group, as daemons do, is adopted by the guard and ends when the command has.
"""

import ctypes
import os
import select
import signal
import sys
import time

SET_CHILD_SUBREAPER = 36  # prctl(2): orphans below us become our children
REST_S = 2.0
"""How long who is left may take after its SIGTERM, when the command is over."""
KILLED_WITHIN_S = 1.0  # who is not gone then is not ours to kill


def main() -> None:
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)  # as os names it
    signal.set_wakeup_fd(wake)
    for handled in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(handled, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited
    try:
        child = os.posix_spawnp(
            sys.argv[1],
            sys.argv[1:],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        )
    except OSError as error:
        sys.exit(f"error: cannot run {sys.argv[1]}: {error.strerror}")
    status = None
    while status is None:
        for number in heard(woken, None):
            if number == signal.SIGTERM and os.getpgid(child) != os.getpgrp():
                os.kill(child, signal.SIGTERM)  # it has left the group
        status = reaped().get(child)
    end_rest(woken)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def heard(woken: int, within_s: float | None) -> bytes:
    """Wait for a signal and give which; when the lifeline ends, so does all."""
    readable, _, _ = select.select([0, woken], [], [], within_s)
    if 0 in readable and not os.read(0, 4096):
        try:
            for pid in below():
                send(pid, signal.SIGKILL)
        finally:
            os.killpg(0, signal.SIGKILL)
    return os.read(woken, 4096) if woken in readable else b""


def reaped() -> dict[int, int]:
    """Reap whoever is over; gives their statuses."""
    statuses = {}
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            statuses[ended[0]] = ended[1]
    except ChildProcessError:
        pass
    return statuses


def end_rest(woken: int) -> None:
    """Ask who is left to end, and kill who does not; the group's own are the proxy's to kill."""
    for number, within_s in ((signal.SIGTERM, REST_S), (signal.SIGKILL, KILLED_WITHIN_S)):
        deadline, told = time.monotonic() + within_s, set[int]()
        while escaped := {pid for pid in below() if is_outside(pid)}:
            for pid in escaped - told:
                send(pid, number)
            told |= escaped
            if (rest_s := deadline - time.monotonic()) <= 0:
                break
            heard(woken, rest_s)
            reaped()


def below() -> list[int]:
    """Name all living processes that descend from this one."""
    parents = {}
    names = os.listdir("/proc") if has_children() else ()  # noqa: PTH208  # pathlib is slow to come
    for name in filter(str.isdigit, names):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # gone
        if state != b"Z":
            parents[int(name)] = int(parent)
    found = [os.getpid()]
    for ancestor in found:
        found += [pid for pid, parent in parents.items() if parent == ancestor]
    return found[1:]


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def is_outside(pid: int) -> bool:
    try:
        return os.getpgid(pid) != os.getpgrp()
    except ProcessLookupError:
        return False


def send(pid: int, number: int) -> None:
    try:  # noqa: SIM105  # as above
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


if __name__ == "__main__":
    main()
