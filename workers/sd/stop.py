"""Compiles `stop.cpp`, once for each machine, and calls the engine through it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("stop.cpp")
COMPILE_S = 60
WHAT_BYTES = 512
DONE, STOPPED, FAILED = range(3)

WantsStop = Callable[[int, int, float], bool]
"""Takes the step, the steps in all and the seconds that one took."""


class Stopped(Exception):
    """The generation was stopped, as asked."""


class Thrown(Exception):
    """The engine threw a C++ exception; its context is as good as before."""


class Stopper:
    """The compiled `stop.cpp`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.call.restype = ctypes.c_void_p
        library.call.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_int),
        ]
        self.progress = ctypes.cast(library.progress, ctypes.c_void_p)
        self.aborted = ctypes.cast(library.aborted, ctypes.c_void_p)
        self._asked: object = None

    def ask(self, wants_stop: WantsStop) -> None:
        """Ask `wants_stop` at each step of the engine; True stops it there."""
        kind = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_int, ctypes.c_int, ctypes.c_float)
        self._asked = kind(wants_stop)  # C keeps only its address
        self._library.stop_when(self._asked)

    def spare(self, computes: object) -> None:
        """Let no assertion be caught inside the C function `computes`: others work there too."""
        self._library.computed_by(ctypes.cast(computes, ctypes.c_void_p))  # type: ignore[arg-type]  # ctypes' own

    def call(self, function: object, first: object, second: object) -> int | None:
        """Call a C function of two pointers. Returns an address. Raises Stopped, Thrown."""
        outcome = ctypes.c_int()
        what = ctypes.create_string_buffer(WHAT_BYTES)
        pointers = [ctypes.cast(p, ctypes.c_void_p) for p in (function, first, second)]  # type: ignore[arg-type]  # ctypes' own
        result = self._library.call(*pointers, ctypes.byref(outcome), what, WHAT_BYTES)
        if outcome.value == STOPPED:
            raise Stopped
        if outcome.value == FAILED:
            raise Thrown(what.value.decode(errors="replace"))
        return int(result) if result else None


def load() -> Stopper | None:
    """Load the library, compiled at the first call; None where there is no working compiler."""
    try:
        return Stopper(ctypes.CDLL(str(_compiled())))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # Runtime: no home
        log.warning("no_stopper: pictures whose client left are painted to the end: %s", error)
        return None


def _compiled() -> Path:
    source = SOURCE.read_bytes()
    mark = hashlib.sha256(source + platform.machine().encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hotseat")
    library = cache / f"stop-{mark}.so"
    if library.exists():
        return library
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:  # two workers may start at once
        made = Path(folder, library.name)
        command = [compiler, "-O1", "-fPIC", "-shared", "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, timeout=COMPILE_S, capture_output=True)  # noqa: S603  # our own words
        made.replace(library)
    return library
