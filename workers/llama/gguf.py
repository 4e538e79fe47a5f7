"""The head of a GGUF file: its keys and where its tensors end. Standard library only.

Format: github.com/ggml-org/ggml, docs/gguf.md. Long arrays (vocabularies) are stepped over, not
read: 128 k tokens take about 40 ms, where `gguf.GGUFReader` takes 5 s.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

Value = str | int | float | bool | tuple[int | float | bool, ...] | None


class BadGguf(Exception):
    """The file cannot be used as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the head says; an array that was stepped over is None in `keys`."""

    keys: Mapping[str, Value]
    tensor_names: frozenset[str]
    data_end: int  # bytes the file must have for all its tensors to be there

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Value:
        """Look up a key in the architecture's own name space, such as `llama.context_length`."""
        return self.keys.get(f"{self.architecture}.{key}")

    def number(self, key: str) -> int:
        """Look up an architecture's whole number; 0 when there is none."""
        value = self.of_architecture(key)
        return value if isinstance(value, int) else 0


def read(path: Path) -> Header:
    """Read the head of a file. Raises BadGguf, OSError."""
    with path.open("rb") as file:
        if not file.read(1):
            raise BadGguf("the file is empty; download it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _refuse_impostors(data[:256])
            try:
                header = _Reader(data).header()
            except (struct.error, UnicodeDecodeError, KeyError) as error:
                raise BadGguf(
                    "the GGUF header is cut short or damaged; download the file again"
                ) from error
            if header.data_end > len(data):
                raise BadGguf(
                    f"the file is incomplete: {len(data)} of at least {header.data_end} bytes;"
                    " download it again"
                )
            return header


def _refuse_impostors(head: bytes) -> None:
    """Name what is often saved under a model's name. Raises BadGguf."""
    if head.startswith(b"version https://git-lfs"):
        raise BadGguf("this is a Git LFS pointer, not the model; run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise BadGguf("this is a web page, not a model; download the file itself")
    if not head.startswith(MAGIC):
        raise BadGguf("this is not a GGUF file; convert the model to GGUF first")


class _Reader:
    """Walks the bytes; struct.error at the end of them."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def header(self) -> Header:
        version = self._scalar("<I")
        if version not in VERSIONS:
            raise BadGguf(f"GGUF version {version} is not supported; convert the model again")
        tensor_count, key_count = self._scalar("<Q"), self._scalar("<Q")
        keys = {self._string(): self._value(self._scalar("<I")) for _ in range(key_count)}
        names, end = set(), 0
        for _ in range(tensor_count):
            name, tensor_end = self._tensor()
            names.add(name)
            end = max(end, tensor_end)
        alignment = keys.get("general.alignment", 32)
        padding = -self._at % alignment if isinstance(alignment, int) and alignment > 0 else 0
        return Header(keys, frozenset(names), self._at + padding + end if names else 0)

    def _scalar(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]  # the form decides; callers ask for whole numbers

    def _string(self) -> str:
        length = self._scalar("<Q")
        self._step(length)
        return self._data[self._at - length : self._at].decode()

    def _step(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise struct.error("past the end")

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

    def _tensor(self) -> tuple[str, int]:
        """Give a tensor's name and where it ends, counted from the start of the data."""
        name = self._string()
        count = 1
        for _ in range(self._scalar("<I")):
            count *= self._scalar("<Q")
        per_block, block_bytes = BLOCKS.get(self._scalar("<I"), (1, 0))
        return name, self._scalar("<Q") + count // per_block * block_bytes
