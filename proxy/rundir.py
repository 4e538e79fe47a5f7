"""The folder of the workers' sockets: private, ours, and gone with us."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_FOLDER = 90  # of the 107 bytes that the path of a unix socket may have (unix(7))


@contextmanager
def run_dir() -> Iterator[Path]:
    """Make a folder of mode 0700 for the length of the block."""
    parent = tempfile.gettempdir()
    if len(parent) > LONGEST_FOLDER - len("/hotseat-12345678"):
        parent = "/tmp"  # noqa: S108  # the folder in it is private
    with tempfile.TemporaryDirectory(prefix="hotseat-", dir=parent) as folder:
        yield Path(folder)
