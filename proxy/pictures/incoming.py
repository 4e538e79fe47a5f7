"""A file on its way into a folder: whole under its name, or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from proxy.pictures.sniff import HEAD_BYTES

PREFIX = ".coming-"


class Incoming:
    """Bytes that are hashed as they come. Use it as a context: what is not kept goes with it.

    The file is locked as long as it is written: what nobody holds was left by who was killed.
    """

    def __init__(self, folder: Path) -> None:
        """Begin; mode 0600. Raises OSError."""
        fd, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        self._path = Path(name)
        self._file: IO[bytes] = os.fdopen(fd, "wb")
        fcntl.flock(fd, fcntl.LOCK_EX)
        self._hash = hashlib.sha256()
        self.head, self.size_bytes = b"", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it has its own name by now; or there is no room for the rest
            self._path.unlink()
        with suppress(OSError):
            self._file.close()

    @property
    def digest(self) -> str:
        """Give the SHA-256 of what has come, in hex."""
        return self._hash.hexdigest()

    def write(self, piece: bytes) -> None:
        """Take the next bytes. Raises OSError."""
        self._file.write(piece)
        self._hash.update(piece)
        self.head += piece[: HEAD_BYTES - len(self.head)]
        self.size_bytes += len(piece)

    def sync(self) -> None:
        """Have it on the disk, whatever happens to the machine. Blocks. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def become(self, path: Path) -> None:
        """Take a name in the same folder, at once and as a whole. Raises OSError."""
        self._file.flush()
        self._path.replace(path)


def sweep(folder: Path) -> None:
    """Remove what never became whole and is not being written any more. Raises OSError."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError), _claimed(path):
            path.unlink()


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold the file's lock. Raises BlockingIOError when somebody else does."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
