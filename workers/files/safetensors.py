"""The head of a safetensors file: 8 bytes of length, JSON, then the data.

Format: huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from typing import Any

from workers.files import types
from workers.files.header import MAX_DIMENSIONS, Header, Tensor, of_tensors

LENGTH_BYTES = 8
MAX_JSON_BYTES = 100_000_000  # the library's own bound


def begins(head: bytes) -> bool:
    return head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def parse(data: mmap.mmap) -> Header:
    """Read a head. Raises ValueError, KeyError, TypeError or struct.error for a damaged one."""
    (json_bytes,) = struct.unpack_from("<Q", data)
    start = LENGTH_BYTES + json_bytes
    if json_bytes > MAX_JSON_BYTES or start > len(data):
        raise ValueError("the header is longer than the file")
    entries = json.loads(data[LENGTH_BYTES:start])
    if not isinstance(entries, dict):
        raise TypeError("the header is not an object")
    tensors = [_tensor(name, e) for name, e in entries.items() if name != "__metadata__"]
    return of_tensors(tensors, start)


def _tensor(name: str, entry: Any) -> Tensor:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, start, end)
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"odd shape or offsets of {name!r}")
    known = entry["dtype"] if entry["dtype"] in types.BLOCKS else None
    if end < start or (known and end - start != types.bytes_of(known, math.prod(shape))):
        raise ValueError(f"{name!r} has another size than its shape says")
    return Tensor(name, shape, end, known)
