"""A writer of GGUF version 3 files, the format that llama.cpp and stable-diffusion.cpp load.

Layout: magic, version, counts; the typed keys; one line of shape and offset for each tensor;
then the tensor data, each piece padded to 32 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_ALIGN_BYTES = 32
_U32, _I32, _F32, _BOOL, _STR, _ARRAY = 4, 5, 6, 7, 8, 9  # the types of a key's value
_TENSOR_F32, _TENSOR_F16, _TENSOR_Q8_0 = 0, 1, 8
_TENSOR_TYPE = {np.dtype("f4"): _TENSOR_F32, np.dtype("f2"): _TENSOR_F16}
_Q8_BLOCK = 32  # weights that share one scale

Scalar = bool | int | float | str | np.int32
Value = Scalar | Sequence[str] | Sequence[int] | Sequence[float]


def q8_0(array: npt.NDArray[np.floating]) -> bytes:
    """Quantise to blocks of one float16 scale and 32 int8; the last axis is a multiple of 32."""
    if array.shape[-1] % _Q8_BLOCK:
        raise ValueError(f"q8_0: the last axis of {array.shape} is no multiple of {_Q8_BLOCK}")
    blocks = np.asarray(array, np.float32).reshape(-1, _Q8_BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    whole = np.rint(blocks / np.where(scale == 0, 1, scale)).astype(np.int8)
    return np.hstack([scale.astype("<f2").view(np.int8), whole]).tobytes()


class Gguf:
    """The keys and tensors of one file, held in memory until `write`."""

    def __init__(self, arch: str) -> None:
        self._keys: list[bytes] = []
        self._tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {}
        self.add("general.architecture", arch)

    def add(self, key: str, value: Value) -> None:
        """Set a key; the Python type chooses the stored one.

        bool -> bool, int -> uint32, np.int32 -> int32, float -> float32, str -> string;
        a sequence -> an array of str, float or int32 (by its first item; it may not be empty).
        """
        self._keys.append(_text(key) + _typed(value))

    def tensor(self, name: str, array: npt.NDArray[np.floating]) -> None:
        """Add a float32 or float16 array; numpy's last axis is ggml's first."""
        if array.dtype not in _TENSOR_TYPE:
            raise TypeError(f"{name}: float32 or float16, not {array.dtype}")
        self.raw(name, array.shape, _TENSOR_TYPE[array.dtype], array.tobytes())

    def tensor_q8_0(self, name: str, array: npt.NDArray[np.floating]) -> None:
        self.raw(name, array.shape, _TENSOR_Q8_0, q8_0(array))

    def raw(self, name: str, shape: tuple[int, ...], ggml_type: int, data: bytes) -> None:
        """Add data that already is in the layout of `ggml_type`; `shape` in numpy's order."""
        if name in self._tensors:
            raise ValueError(f"two tensors named {name}")
        self._tensors[name] = (shape, ggml_type, data)

    def write(self, path: Path) -> None:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self._tensors), len(self._keys))
        head += b"".join(self._keys)
        offset = 0
        for name, (shape, ggml_type, data) in self._tensors.items():
            head += _text(name) + struct.pack("<I", len(shape))
            head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
            head += struct.pack("<IQ", ggml_type, offset)
            offset += len(_padded(data))
        with path.open("wb") as file:
            file.write(_padded(head))
            for _, _, data in self._tensors.values():
                file.write(_padded(data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN_BYTES)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    if isinstance(value, str | bool | int | float | np.int32):
        kind = _kind(value)
        return struct.pack("<I", kind) + _bare(kind, value)
    kind = _kind(value[0])
    kind = _I32 if kind == _U32 else kind
    head = struct.pack("<IIQ", _ARRAY, kind, len(value))
    return head + b"".join(_bare(kind, item) for item in value)


def _kind(value: Scalar) -> int:
    if isinstance(value, np.int32):
        return _I32
    return {bool: _BOOL, str: _STR, float: _F32, int: _U32}[type(value)]


def _bare(kind: int, value: Scalar) -> bytes:
    if isinstance(value, str):
        return _text(value)
    return struct.pack({_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}[kind], value)
