"""Ends what a proxy left behind that was killed together with its guards.

Normally workers die with their proxy. What escaped is known by the variable that their proxy had
put into their environment, which nobody else's process can have. So a pid that was given to
somebody else means nothing here; and a process is held by a descriptor while it is looked at and
ended, so that it cannot change under the look. The variable is inherited, so that people may have
it too, in a shell that a worker has opened for them: who has a terminal is let be.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from proxy.rundir import folder as rundir
from proxy.rundir.processes import (
    Held,
    alive_after,
    ancestors,
    carries,
    group_of,
    has_terminal,
    held,
    name_of,
    pids,
)

log = logging.getLogger(__name__)

GRACE_S = 5.0
KILLED_WITHIN_S = 5.0
FRESH_S = 60.0  # a folder without a record may be about to get one


def sweep(grace_s: float = GRACE_S) -> None:
    """End what dead proxies of this user have left, and remove their folders. Blocks, bounded."""
    try:
        home = rundir.home()
        if home is None:
            log.warning("not_swept", extra={"why": "another user has made our folder his"})
            return
        everybody = rundir.found(home)
        living = [one for one in everybody if one.is_alive]
        proxies = {one.record.pid for one in living if one.record is not None}
        for dead in [one for one in everybody if one not in living]:
            if dead.record is not None:
                _end_all(dead.record, proxies, grace_s)
            if dead.record is not None or _is_old(dead.path):
                rundir.remove(dead.path)
    except OSError as error:  # it must not keep anybody from starting
        log.warning("not_swept", extra={"why": str(error)})


def _end_all(dead: rundir.Record, living: AbstractSet[int], grace_s: float) -> None:
    """End who has the dead proxy's nonce; never a living proxy, a user, or who has started one."""
    mark = f"{rundir.NONCE}={dead.nonce}"

    users = [pid for pid in pids() if carries(pid, mark) and has_terminal(pid)]
    spared = {ancestor for one in (os.getpid(), *living, *users) for ancestor in ancestors(one)}
    spared_groups = {group_of(pid) for pid in spared}

    def is_left(pid: int) -> bool:
        return pid not in spared and carries(pid, mark) and living.isdisjoint(ancestors(pid))

    with held(is_left) as left:
        if not left:
            return
        names = ",".join(f"{one.pid}:{name_of(one.pid)}" for one in left)
        log.warning("swept", extra={"proxy_pid": dead.pid, "processes": names})
        for number, within_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_WITHIN_S)):
            for one in left:
                _send(one, number, spared_groups)
            left = alive_after(left, within_s)  # noqa: PLW2901  # of these
        if left:
            log.error("not_swept", extra={"pids": ",".join(str(one.pid) for one in left)})


def _send(process: Held, number: signal.Signals, spared: Collection[int | None]) -> None:
    """Signal it, and its group, where somebody without the mark may be."""
    with suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(process.pid)
        signal.pidfd_send_signal(process.fd, number)
        if group not in spared:
            os.killpg(group, number)


def _is_old(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > FRESH_S
    return False
