"""What the engine's device can still give, as the engine sees it."""

from __future__ import annotations

import ctypes

import stable_diffusion_cpp.stable_diffusion_cpp as sd

from workers import memory

GPU = 1  # ggml_backend_dev_type

_lib = sd._lib  # noqa: SLF001  # the binding does not wrap these
_lib.ggml_backend_dev_by_type.argtypes = [ctypes.c_int]
_lib.ggml_backend_dev_by_type.restype = ctypes.c_void_p
_lib.ggml_backend_dev_memory.argtypes = [
    ctypes.c_void_p,
    *(ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)),
]


def has_gpu() -> bool:
    """Tell whether the engine was built for a GPU that is here."""
    return bool(_lib.ggml_backend_dev_by_type(GPU))


def free_bytes() -> int:
    """Tell what is free on the GPU, where there is one; else on the host."""
    gpu = _lib.ggml_backend_dev_by_type(GPU)
    if not gpu:
        return memory.available_bytes()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _lib.ggml_backend_dev_memory(gpu, ctypes.byref(free), ctypes.byref(total))
    return free.value
