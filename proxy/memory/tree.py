"""Who belongs to a worker: under a guard, it is a child that holds the memory."""

from __future__ import annotations

import psutil


def tree(pid: int) -> frozenset[int]:
    """Find the living processes of the tree below `pid`, with itself; none if it has gone."""
    try:
        process = psutil.Process(pid)
        return frozenset(one.pid for one in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return frozenset()
