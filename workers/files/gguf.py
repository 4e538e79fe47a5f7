"""The head of a GGUF file: its keys and its tensors.

Format: github.com/ggml-org/ggml, docs/gguf.md. Long arrays (vocabularies) are stepped over, not
read: 128 k tokens take about 40 ms, where `gguf.GGUFReader` takes 5 s.
"""

from __future__ import annotations

import math
import mmap
import struct

from workers.files import types
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

TYPES = {  # ggml_type; ggml.h
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    30: "BF16",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
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
        known = TYPES.get(kind)
        size_bytes = 0 if known is None else types.bytes_of(known, math.prod(shape))
        return Tensor(name, shape, start + size_bytes, known)
