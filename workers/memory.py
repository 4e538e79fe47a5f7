"""What a worker will hold, reckoned before it loads: the values of the contract's `memory`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Place = Literal["device", "host", "context"]
"""Where a part lives: `device` is the GPU where there is one, else the host; `host` is host memory
whatever happens; `context` is the GPU's too, and nowhere where there is none."""

MIB = 1 << 20
GPU_CONTEXT_BYTES = 400 * MIB  # what CUDA takes for a process before it has any data


@dataclass(frozen=True, slots=True)
class Part:
    """Something that stays from load on."""

    what: str
    place: Place
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rung:
    """What one request needs on top, on the device, while it paints so many pixels."""

    up_to_pixels: int
    size_bytes: int
    least_bytes: int | None = None  # what it makes do with where there is no more


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate: what a worker holds, and the ladder of what its requests need on top."""

    parts: tuple[Part, ...]
    requests: tuple[Rung, ...] = ()  # ascending in pixels
    plain_pixels: int | None = None  # of a picture whose size the request does not say

    def held_bytes(self, *places: Place) -> int:
        return sum(part.size_bytes for part in self.parts if part.place in places)

    def as_json(self) -> dict[str, object]:
        """Put it in the contract's words."""
        return {
            "parts": [
                {"what": part.what, "place": part.place, "bytes": part.size_bytes}
                for part in self.parts
            ],
            "requests": [
                {
                    "up_to_pixels": rung.up_to_pixels,
                    "bytes": rung.size_bytes,
                    "least_bytes": rung.size_bytes
                    if rung.least_bytes is None
                    else rung.least_bytes,
                }
                for rung in self.requests
            ],
            "plain_pixels": self.plain_pixels,
        }


def gpu_context() -> Part:
    return Part("GPU context", "context", GPU_CONTEXT_BYTES)


def of(
    parts: Iterable[Part], requests: Iterable[Rung] = (), plain_pixels: int | None = None
) -> Memory:
    """Make an estimate of the parts that are not empty."""
    held = tuple(part for part in parts if part.size_bytes)
    return Memory(held, tuple(requests), plain_pixels)


def file_bytes(path: str | Path) -> int:
    """Give the size of a file, for one whose head tells nothing; 0 if there is none."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def return_freed() -> None:
    """Give the system back what was freed: glibc keeps hundreds of MB of a large picture's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # another libc may have none
    if trim is not None:
        trim(0)


def available_bytes() -> int:
    """Tell what the host can still give, inside the control group's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if not limit.exists() or (most := limit.read_text(encoding="ascii").strip()) == "max":
        return free_kib << 10
    # `anon` and not memory.current: the page cache gives way
    stat = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii")
    used = next(int(line.split()[1]) for line in stat.splitlines() if line.startswith("anon "))
    return min(free_kib << 10, int(most) - used)
