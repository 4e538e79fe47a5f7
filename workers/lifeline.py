"""A worker's process and its parent: stdin as the lifeline, and the name in the process table."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from typing import NoReturn

PR_SET_NAME = 15  # linux/prctl.h


def program() -> str:
    """Tell the NAME of `python -m workers.NAME`."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.split(".")[1] if spec else "worker"


def name_process() -> None:
    """Show in the process table (`ps -o comm`) who holds device memory, or may hold some."""
    name = f"hotseat-{program()}".encode()[:15]
    ctypes.CDLL(None).prctl(PR_SET_NAME, name, 0, 0, 0)


def take() -> int:
    """Keep stdin for the lifeline; a library that reads descriptor 0 finds it empty."""
    stdin = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return stdin


def watch(stdin: int) -> None:
    """End this process and its group when the proxy is gone, even while the loop is busy.

    A thread of its own, as engines release the GIL and event loops do not always turn. Not
    PR_SET_PDEATHSIG: it would end this process before it could end what it has started.
    """
    poll = select.poll()
    poll.register(stdin, 0)  # POLLHUP is told unasked
    threading.Thread(target=lambda: (poll.poll(), die()), daemon=True, name="lifeline").start()


def die() -> NoReturn:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
