"""Safetensors files: the format that holds every part of the image set but its text encoder."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Tensors: TypeAlias = dict[str, Array]


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write matrices and kernels as float16, vectors as float32: the types the engine keeps."""
    header: dict[str, dict[str, object]] = {}
    pieces: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        kind, dtype = ("F32", "<f4") if array.ndim == 1 else ("F16", "<f2")
        piece = np.ascontiguousarray(array, dtype).tobytes()
        end = offset + len(piece)
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [offset, end]}
        pieces.append(piece)
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(pieces))
