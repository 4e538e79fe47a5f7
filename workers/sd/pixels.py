"""Pictures to the engine's C structs and back."""

from __future__ import annotations

import ctypes
from typing import Any

import stable_diffusion_cpp.stable_diffusion_cpp as sd
from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_free = ctypes.CDLL(None).free
_free.argtypes, _free.restype = [ctypes.c_void_p], None


def given(image: Image.Image | None, keep: list[object]) -> Any:
    """Make the struct of a picture, empty for none; `keep` gets what must live as long as it."""
    if image is None:
        return sd.sd_image_t(0, 0, 0, None)
    raw = image.tobytes()
    buffer = (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw)
    keep.append(buffer)
    data = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
    return sd.sd_image_t(image.width, image.height, len(image.getbands()), data)


def taken(address: Any) -> Image.Image | None:
    """Copy the one picture out of the engine's buffers and free them; the binding leaks them."""
    result = ctypes.cast(address, ctypes.POINTER(sd.sd_image_t))
    made = result[0]
    try:
        return copied(made) if made.data else None
    finally:
        _free(ctypes.cast(made.data, ctypes.c_void_p))
        _free(ctypes.cast(result, ctypes.c_void_p))


def copied(made: Any) -> Image.Image:
    """Copy a picture of the engine's, as RGB."""
    raw = ctypes.string_at(made.data, made.width * made.height * made.channel)
    size = (made.width, made.height)
    return Image.frombytes(MODES[made.channel], size, raw).convert("RGB")
