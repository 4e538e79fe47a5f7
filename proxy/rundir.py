"""The folder of the workers' sockets: private, ours, and gone with us."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_dir() -> Iterator[Path]:
    """Make a folder of mode 0700 for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="hotseat-") as folder:
        yield Path(folder)
