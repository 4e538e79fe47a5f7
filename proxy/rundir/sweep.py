"""Ends what a proxy left behind that was killed together with its guards.

Normally workers die with their proxy. What escaped is known by the variable that their proxy had
put into their environment, which nobody else's process can have. So a pid that was given to
somebody else means nothing here; and a process is held by a descriptor while it is looked at and
ended, so that it cannot change under the look.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from proxy.rundir import folder as rundir
from proxy.rundir.processes import Held, alive_after, carries, forebears, held, name_of

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
        for folder, record in list(rundir.abandoned(home)):
            if record is not None:
                _end_all(record, grace_s)
            if record is not None or _is_old(folder):
                rundir.remove(folder)
    except OSError as error:  # it must not keep anybody from starting
        log.warning("not_swept", extra={"why": str(error)})


def _end_all(dead: rundir.Record, grace_s: float) -> None:
    """End who has the dead proxy's nonce; never ourselves, or who has started us."""
    mark, ours = f"{rundir.NONCE}={dead.nonce}", forebears()
    with held(lambda pid: pid not in ours and carries(pid, mark)) as left:
        if not left:
            return
        names = ",".join(f"{one.pid}:{name_of(one.pid)}" for one in left)
        log.warning("swept", extra={"proxy_pid": dead.pid, "processes": names})
        for number, within_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_WITHIN_S)):
            for one in left:
                _send(one, number)
            left = alive_after(left, within_s)  # noqa: PLW2901  # of these
        if left:
            log.error("not_swept", extra={"pids": ",".join(str(one.pid) for one in left)})


def _send(process: Held, number: signal.Signals) -> None:
    """Signal it, and its group, where somebody without the mark may be."""
    with suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(process.pid)
        signal.pidfd_send_signal(process.fd, number)
        if group != os.getpgrp():
            os.killpg(group, number)


def _is_old(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > FRESH_S
    return False
