"""Files are in the page cache before they are loaded."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from workers.memory import available_bytes
from workers.readahead import LEAST_BYTES, read_ahead, weights_of


def cold_file(path: Path) -> Path:
    """Write a large file, and let the kernel forget it."""
    path.write_bytes(os.urandom(1 << 20) * (LEAST_BYTES >> 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def resident_bytes(path: Path) -> int:
    """Count what can be read without waiting for the disk: preadv2(2), RWF_NOWAIT."""
    count, buffer = 0, bytearray(1 << 20)
    with path.open("rb") as file:
        for start in range(0, LEAST_BYTES, len(buffer)):
            with contextlib.suppress(BlockingIOError):
                count += os.preadv(file.fileno(), [buffer], start, os.RWF_NOWAIT)
    return count


def test_a_cold_file_is_read_ahead(tmp_path: Path) -> None:
    """What was on the disk alone is in memory soon, though nobody has read a byte of it."""
    path = cold_file(tmp_path / "model.gguf")
    if resident_bytes(path) > LEAST_BYTES // 2:
        pytest.skip("the file system of this machine keeps its files in memory")

    took_s = read_ahead([path], available_bytes())

    assert took_s is not None
    while resident_bytes(path) < LEAST_BYTES:
        pass  # the disk is at work; the test's timeout bounds it


def test_files_that_would_push_out_others_are_left_alone(tmp_path: Path) -> None:
    """More than half of what is available is not read ahead."""
    path = cold_file(tmp_path / "model.gguf")

    assert read_ahead([path], available_bytes=LEAST_BYTES) is None


def test_options_name_files_and_folders_of_weights(tmp_path: Path) -> None:
    """Large files count, those of a named folder too; small ones and other values do not."""
    model = cold_file(tmp_path / "model.gguf")
    folder = tmp_path / "folder"
    folder.mkdir()
    shard = cold_file(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    options = {
        "model": str(model),
        "mmproj": str(tmp_path / "small.gguf"),
        "other": str(folder),
        "n_ctx": 4096,
        "chat_template": "no path at all",
    }

    assert list(weights_of(options)) == [model, shard]
