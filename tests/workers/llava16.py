"""A projector of LLaVA 1.6's kind, made of the tiny one of LLaVA 1.5's."""

from __future__ import annotations

import struct
from pathlib import Path

KEY = b"clip.vision.image_grid_pinpoints"
INT32, ARRAY = 5, 9  # GGUF's types of values
COUNTS_AT, HEAD_BYTES = 16, 24  # magic, version, tensors, then the count of keys
ALIGNMENT = 32


def with_pinpoints(projector: Path, target: Path, sizes_px: list[tuple[int, int]]) -> Path:
    """Write a copy that looks closer, at tiles of pictures of these sizes.

    The key goes before all others. What it takes is a multiple of the alignment, so that the
    tensors lie where they lay, counted from the end of the head.
    """
    sides = [side for size in sizes_px for side in size]
    value = struct.pack(f"<IIQ{len(sides)}i", ARRAY, INT32, len(sides), *sides)
    entry = struct.pack("<Q", len(KEY)) + KEY + value
    raw = projector.read_bytes()
    (count,) = struct.unpack_from("<Q", raw, COUNTS_AT)
    assert len(entry) % ALIGNMENT == 0, "give 1 size, or 5, or 9"
    head = raw[:COUNTS_AT] + struct.pack("<Q", count + 1)
    target.write_bytes(head + entry + raw[HEAD_BYTES:])
    return target
