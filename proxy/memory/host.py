"""The host's own memory, inside the limits of its control groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

from proxy.scheduler.types import Device

HOST = Device("host")
PROC = Path("/proc")
GIVES_WAY = ("active_file", "inactive_file", "slab_reclaimable")
"""Fields of memory.stat: the kernel takes these back before a group runs out."""


class HostMeter:
    """Looks at physical memory; `cgroups` are the folders of the groups whose limits count."""

    device = HOST
    label = "host memory"
    frees_at_once = True

    def __init__(self, cgroups: Sequence[Path] | None = None) -> None:
        self._cgroups = own_cgroups() if cgroups is None else tuple(cgroups)

    @property
    def total_bytes(self) -> int:
        limits = map(_limit_bytes, self._cgroups)
        told = [limit for limit in limits if limit is not None]
        return min([psutil.virtual_memory().total, *told])

    def free_bytes(self) -> int:
        """Tell what is available, or what the narrowest group leaves: page cache gives way."""
        rooms = map(_room_bytes, self._cgroups)
        told = [room for room in rooms if room is not None]
        return max(0, min([psutil.virtual_memory().available, *told]))

    def held_bytes(self, pids: Collection[int]) -> int:
        """Add up the resident sets; what two processes share counts twice."""
        return sum(map(_resident_bytes, pids))

    def would_free_bytes(self, pids: Collection[int]) -> int:
        """Add up their anonymous memory: mapped files are page cache, which is free already."""
        return sum(_of_status(pid, "RssAnon") for pid in pids)

    def others_bytes(self, pids: Collection[int]) -> int:
        """Tell what is neither free nor theirs."""
        return max(0, self.total_bytes - self.free_bytes() - self.held_bytes(pids))

    def peak_bytes(self, pids: Collection[int]) -> int:
        """Add up each one's own peak, at whatever time it was."""
        return sum(_of_status(pid, "VmHWM") for pid in pids)


def own_cgroups(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = PROC / "self/cgroup"
) -> tuple[Path, ...]:
    """Find the folders of our version 2 group and of those around it, innermost first."""
    lines = _read(membership).splitlines()
    ours = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    inner = root / ours.strip("/")
    if ".." in inner.parts or not inner.is_dir():  # its name as it is outside of our container
        inner = root
    around = (folder for folder in inner.parents if folder.is_relative_to(root))
    return (inner, *around)


def _limit_bytes(group: Path) -> int | None:
    """Tell the group's limit; None: it has none."""
    told = _read(group / "memory.max")
    return int(told) if told.isdigit() else None


def _room_bytes(group: Path) -> int | None:
    """Tell what the group leaves of its limit; None: it has none."""
    limit, current = _limit_bytes(group), _read(group / "memory.current")
    if limit is None or not current.isdigit():
        return limit
    fields = (line.split() for line in _read(group / "memory.stat").splitlines())
    return limit - int(current) + sum(int(n) for name, n in fields if name in GIVES_WAY)


def _resident_bytes(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _of_status(pid: int, name: str) -> int:
    """Read a size from proc_pid_status(5); a process that waits to be reaped has none."""
    lines = _read(PROC / str(pid) / "status").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def _read(path: Path) -> str:
    """Read a file of the kernel's; empty where there is none, or no more."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        return ""
