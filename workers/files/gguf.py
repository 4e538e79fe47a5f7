"""The head of a GGUF file: its keys and its tensors.

Format: github.com/ggml-org/ggml, docs/gguf.md. Long arrays (vocabularies) are stepped over, not
read: 128 k tokens take about 40 ms, where `gguf.GGUFReader` takes 5 s.
"""

from __future__ import annotations

import math
import mmap
import struct

from workers.files.header import MAX_DIMENSIONS, BadFile, Header, Tensor, Value, of_tensors

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
MAX_ARRAY_READ = 1024  # longer ones are vocabularies

BLOCKS = {  # ggml type → (values in a block, bytes of a block); ggml.c, type_traits
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}


def begins(head: bytes) -> bool:
    return head.startswith(MAGIC)


def parse(data: mmap.mmap) -> Header:
    """Read a head. Raises BadFile; ValueError, KeyError or struct.error for a damaged one."""
    return _Reader(data).header()


class _Reader:
    """Walks the bytes; struct.error at the end of them."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def header(self) -> Header:
        version = self._scalar("<I")
        if version not in VERSIONS:
            raise BadFile(f"is of GGUF version {version}, not 2 or 3; convert the model again")
        tensor_count, key_count = self._scalar("<Q"), self._scalar("<Q")
        keys = {self._string(): self._value(self._scalar("<I")) for _ in range(key_count)}
        tensors = [self._tensor() for _ in range(tensor_count)]
        alignment = keys.get("general.alignment", 32)
        padding = -self._at % alignment if isinstance(alignment, int) and alignment > 0 else 0
        return of_tensors(tensors, self._at + padding, keys)

    def _scalar(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]  # the form decides; callers ask for whole numbers

    def _string(self) -> str:
        length = self._scalar("<Q")
        self._step(length)
        return self._data[self._at - length : self._at].decode(errors="replace")

    def _step(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise struct.error("the header ends too early")

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(SCALARS[kind])
        item_kind, count = self._scalar("<I"), self._scalar("<Q")
        if item_kind == STRING:
            for _ in range(count):
                self._step(self._scalar("<Q"))
            return None
        if count <= MAX_ARRAY_READ:
            return tuple(self._scalar(SCALARS[item_kind]) for _ in range(count))
        self._step(count * struct.calcsize(SCALARS[item_kind]))
        return None

    def _tensor(self) -> Tensor:
        name = self._string()
        dimensions = self._scalar("<I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"{name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("<Q") for _ in range(dimensions))[::-1]
        kind, start = self._scalar("<I"), self._scalar("<Q")
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        end = start + math.prod(shape) // per_block * block_bytes
        return Tensor(name, shape, end, kind in BLOCKS)
