"""Runs a user's command, and ends it and all its children when the proxy is gone.

A program of its own, started as the leader of a new process group: ``guard.py COMMAND…`` with
stdin as the lifeline. A foreign worker does not watch its parent, so this does: EOF on stdin
means that the proxy died, however that came about, and the whole group is killed. It exits with
the command's status. SIGTERM reaches the command through the group; the guard only outlives it.
"""

import os
import select
import signal
import sys


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited
    woken, wake = os.pipe()
    os.set_blocking(wake, False)  # as os names it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    try:
        child = os.posix_spawnp(
            sys.argv[1],
            sys.argv[1:],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        )
    except OSError as error:
        sys.exit(f"error: cannot run {sys.argv[1]}: {error.strerror}")
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if 0 in readable and not os.read(0, 4096):
            os.killpg(0, signal.SIGKILL)
        if woken in readable:
            os.read(woken, 4096)
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
