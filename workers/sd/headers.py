"""The head of a safetensors or GGUF file: tensor names, shapes and types. Standard library only.

The engine trusts these headers: one without a `dtype` ends the process, one whose data lie behind
the end of the file is loaded as noise. So they are read here first, and wholly.
Formats: huggingface.co/docs/safetensors, github.com/ggml-org/ggml docs/gguf.md.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 100 << 20  # the format's own bound
MAX_DIMENSIONS = 8
SAFETENSORS_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
GGUF_BLOCKS = {  # type → (values in a block, bytes of a block); ggml.c, type_traits
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
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGUF_UINT32 = 4

Shape = tuple[int, ...]
"""In torch's order: a linear layer is (outputs, inputs)."""


class BadFile(Exception):
    """The file cannot be used as it is; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file of weights before it is loaded."""

    shapes: Mapping[str, Shape]

    def has(self, part: str) -> bool:
        """Tell whether any tensor's name contains `part`."""
        return any(part in name for name in self.shapes)

    def shape(self, suffix: str) -> Shape | None:
        """Give the shape of the tensor whose name is, or ends in a dot and, `suffix`."""
        return next(
            (s for n, s in self.shapes.items() if n == suffix or n.endswith("." + suffix)), None
        )


def read(path: str | Path) -> Header:
    """Read a file's head, and make sure that all its tensors lie inside it. Raises BadFile."""
    path = Path(path)
    try:
        if path.is_dir():
            raise BadFile(f"{path} is a directory; name one file of weights")
        with path.open("rb") as file:
            if not file.read(1):
                raise BadFile(f"{path} is empty; download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return Header(_reader(path, data[:512])(data))
    except FileNotFoundError:
        raise BadFile(f"no such file: {path}") from None
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise BadFile(f"{path} is cut short or damaged ({error}); download it again") from error


def _reader(path: Path, head: bytes) -> Callable[[mmap.mmap], dict[str, Shape]]:
    if head.startswith(b"GGUF"):
        return lambda data: dict(_GgufReader(data).tensors())
    if head.startswith(b"version https://git-lfs"):
        raise BadFile(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise BadFile(f"{path} is a web page, not weights; download the file itself")
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):
        raise BadFile(f"{path} is a pickle (.ckpt, .pt); convert it to safetensors")
    if head[8:9] != b"{":
        raise BadFile(f"{path} is neither safetensors nor GGUF, or it is damaged")
    return lambda data: dict(_safetensors(data))


def _safetensors(data: mmap.mmap) -> Iterator[tuple[str, Shape]]:
    (json_bytes,) = struct.unpack_from("<Q", data)
    if json_bytes > min(MAX_JSON_BYTES, len(data) - 8):
        raise ValueError("the header is longer than the file")
    entries = json.loads(data[8 : 8 + json_bytes])
    if not isinstance(entries, dict):
        raise TypeError("the header is not an object")
    room = len(data) - 8 - json_bytes
    for name, entry in entries.items():
        if name != "__metadata__":
            yield name, _safetensors_shape(name, entry, room)


def _safetensors_shape(name: str, entry: Any, room_bytes: int) -> Shape:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, start, end)
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"odd shape or offsets of {name!r}")
    if not start <= end <= room_bytes:
        raise ValueError(f"the data of {name!r} lie behind the end of the file")
    if end - start != math.prod(shape) * SAFETENSORS_BYTES[entry["dtype"]]:
        raise ValueError(f"{name!r} has another size than its shape says")
    return shape


class _GgufReader:
    """Walks the bytes; struct.error or ValueError at the end of them."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def tensors(self) -> Iterator[tuple[str, Shape]]:
        if self._number("<I") not in (2, 3):
            raise ValueError("a GGUF version other than 2 and 3")
        tensor_count, key_count = self._number("<Q"), self._number("<Q")
        alignment = 32
        for _ in range(key_count):
            key, kind = self._string(), self._number("<I")
            if key == "general.alignment" and kind == GGUF_UINT32:
                alignment = max(1, self._number("<I"))
            else:
                self._skip_value(kind)
        found = [self._tensor() for _ in range(tensor_count)]
        start = self._at + -self._at % alignment
        for name, shape, end in found:
            if start + end > len(self._data):
                raise ValueError(f"the data of {name!r} lie behind the end of the file")
            yield name, shape

    def _tensor(self) -> tuple[str, Shape, int]:
        """Give a tensor's name, shape, and where it ends from the start of the data."""
        name = self._string()
        dimensions = self._number("<I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"{name!r} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        per_block, block_bytes = GGUF_BLOCKS[self._number("<I")]
        return name, shape, self._number("<Q") + math.prod(shape) // per_block * block_bytes

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def _string(self) -> str:
        length = self._number("<Q")
        self._step(length)
        return self._data[self._at - length : self._at].decode()

    def _step(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise ValueError("the header ends too early")

    def _skip_value(self, kind: int) -> None:
        if kind == GGUF_STRING:
            self._step(self._number("<Q"))
        elif kind == GGUF_ARRAY:
            item_kind, count = self._number("<I"), self._number("<Q")
            if item_kind == GGUF_STRING:
                for _ in range(count):
                    self._step(self._number("<Q"))
            else:
                self._step(count * GGUF_SCALAR_BYTES[item_kind])
        else:
            self._step(GGUF_SCALAR_BYTES[kind])
