"""The engine's own lines: passed on to stderr, and the last errors kept for a failed load."""

from __future__ import annotations

import re
import sys
from collections import deque

from llama_cpp import llama_cpp, mtmd_cpp

from workers import serve

INFO, WARNING, ERROR, CONTINUED = 2, 3, 4, 5  # ggml_log_level
KEPT_ERRORS = 6
_NO_MEMORY = re.compile(
    r"out of memory|OutOfDeviceMemory|(?:failed|unable) to allocate|cannot allocate memory"
    r"|alloc(?:_buffer|_tensor_range)?: .*failed|cudaMalloc failed|CUBLAS_STATUS_ALLOC_FAILED"
    r"|bad_alloc|not enough (?:space|memory)|insufficient memory",
    re.IGNORECASE,
)


class EngineLog:
    """Takes the engine's log lines, from whatever thread says them."""

    def __init__(self) -> None:
        self._level = self._least = INFO
        self._errors: deque[str] = deque(maxlen=KEPT_ERRORS)
        self._callback = llama_cpp.llama_log_callback(self._take)  # C keeps only its address

    def install(self) -> None:
        llama_cpp.llama_log_set(self._callback, None)
        mtmd_cpp.mtmd_log_set(self._callback, None)
        mtmd_cpp.mtmd_helper_log_set(self._callback, None)

    def loaded(self) -> None:
        """Pass on no more than warnings: the rest is a line for every picture."""
        self._least = WARNING
        self._errors.clear()

    def _take(self, level: int, text: bytes, _data: object) -> None:
        """Keep or drop one piece; CONTINUED goes on with the line before it."""
        if level != CONTINUED:
            self._level = level
        if self._level < self._least:
            return
        line = text.decode(errors="replace")
        sys.stderr.write(line)
        if self._level == ERROR and line.strip():
            self._errors.append(line.strip())

    def told_of_no_memory(self) -> bool:
        """Tell whether the last errors speak of memory, and forget them."""
        told = any(map(_NO_MEMORY.search, self._errors))
        self._errors.clear()
        return told

    def failure(self, what: str) -> serve.LoadFailed:
        """Make the error for a load that failed, with the engine's last errors as the reason."""
        told = "; ".join(dict.fromkeys(self._errors)) or "the engine gave no reason"
        if self.told_of_no_memory():
            return serve.LoadFailed(
                "out_of_memory", f"{what}: {told}; try a lower n_ctx or a smaller quant"
            )
        return serve.LoadFailed("engine_error", f"{what}: {told}")
