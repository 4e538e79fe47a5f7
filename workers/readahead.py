"""Getting a model's files into the page cache while somebody else still sits on the device.

Then a load reads from memory, not from the disk: the seconds that a disk takes are not seconds of
an empty device.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CHUNK_BYTES = 16 << 20
SUFFIXES = (".safetensors", ".gguf", ".bin")  # of weights in a folder
LEAST_BYTES = 64 << 20  # a smaller file is read in no time
MOST_OF_FREE = 0.5  # of what the host has available: the cache must not push out what is in use


def weights_of(options: Mapping[str, object]) -> Iterator[Path]:
    """Find the large files that options name, themselves or by their folder."""
    named = (Path(value) for value in options.values() if isinstance(value, str))
    for path in named:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (one for one in found if _is_large(one) and (one == path or _is_weights(one)))


def read_ahead(paths: Iterable[Path], available_bytes: int) -> float | None:
    """Ask the kernel for the files, and return how long that took; None: they are too large.

    posix_fadvise(2), WILLNEED: no copy is made, and it waits only while the disk's queue is full.
    """
    sizes = {path: path.stat().st_size for path in paths}
    if not sizes or sum(sizes.values()) > MOST_OF_FREE * available_bytes:
        return None
    began = time.monotonic()
    for path, size_bytes in sizes.items():
        fd = os.open(path, os.O_RDONLY)
        try:
            for start in range(0, size_bytes, CHUNK_BYTES):
                os.posix_fadvise(fd, start, CHUNK_BYTES, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)
    return time.monotonic() - began


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size >= LEAST_BYTES


def _is_weights(path: Path) -> bool:
    return path.suffix in SUFFIXES
