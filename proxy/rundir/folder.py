"""Where a proxy keeps what lives as long as it does: the workers' sockets, and who it is.

Each proxy has a folder of its own in one that all of its user's proxies know, so that a later one
finds what an earlier one could not clean up. The folder is in the temporary directory and not in
XDG_RUNTIME_DIR: that goes when the user logs out, and is another one for a service.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.rundir.processes import started

LONGEST_FOLDER = 90  # of the 107 bytes that the path of a unix socket may have (unix(7))
RECORD = "proxy.json"
NONCE = "HOTSEAT_NONCE"
"""The variable by which a worker, and all that it starts, is known as this proxy's."""


@dataclass(frozen=True, slots=True)
class Record:
    """Which process a proxy is, and how its workers are known."""

    pid: int
    started: int  # in the kernel's ticks since boot: no clock that somebody may set
    nonce: str


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one proxy."""

    path: Path
    nonce: str

    @property
    def marks(self) -> Mapping[str, str]:
        """What a worker's environment says of whose it is."""
        return {NONCE: self.nonce}


def home() -> Path | None:
    """Find the folder of all proxies of this user; None: somebody else has made it his."""
    name = f"hotseat-{os.getuid()}"
    parent = tempfile.gettempdir()
    if len(parent) > LONGEST_FOLDER - len(f"/{name}/12345678"):
        parent = "/tmp"  # noqa: S108  # the folder in it is private, or not used
    folder = Path(parent, name)
    with suppress(FileExistsError):
        folder.mkdir(mode=stat.S_IRWXU)
    told = folder.lstat()
    if not stat.S_ISDIR(told.st_mode) or told.st_uid != os.getuid():
        return None
    folder.chmod(stat.S_IRWXU)
    return folder


@contextmanager
def run_dir() -> Iterator[RunDir]:
    """Make this proxy's folder for the length of the block."""
    ours = home()
    with (
        tempfile.TemporaryDirectory(prefix="" if ours else "hotseat-", dir=ours) as folder,
        _recorded(Path(folder)) as record,
    ):
        yield RunDir(Path(folder), record.nonce)


@contextmanager
def _recorded(folder: Path) -> Iterator[Record]:
    """Say who we are, and lock the folder: the kernel lets go of it when we die.

    What tidies up temporary directories by age lets a locked folder be, too.
    """
    record = Record(os.getpid(), started(os.getpid()) or 0, secrets.token_hex(16))
    new = folder / f"{RECORD}.new"
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # not every file system can
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.write_text(json.dumps(asdict(record)), encoding="utf-8")
        new.replace(folder / RECORD)  # whoever finds it finds all of it
        yield record
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Found:
    """The folder of some proxy; one without a record never had a worker."""

    path: Path
    record: Record | None

    @property
    def is_alive(self) -> bool:
        """Tell whether its lock is held, or its process is there.

        A pid says nothing about a proxy in a container that shares the folder, and a lock nothing
        where there are none.
        """
        record = self.record
        is_there = record is not None and started(record.pid) == record.started
        return is_there or _is_locked(self.path)


def found(home: Path) -> list[Found]:
    """List the folders of all proxies of this user. Raises OSError."""
    return [Found(folder, _read(folder / RECORD)) for folder in home.iterdir()]


def _is_locked(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Record | None:
    """Read a record; nothing where there is none. Raises OSError where that cannot be seen."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Record(int(told["pid"]), int(told["started"]), str(told["nonce"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
