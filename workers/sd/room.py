"""What decoding a picture may take, of what the proxy could give its worker."""

from __future__ import annotations

from dataclasses import dataclass

from workers.memory import Memory, Place

HEADER = "X-Hotseat-Memory"
"""The bytes that the worker may come to hold on its device, weights and all."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a worker holds where its pictures are decoded."""

    held_bytes: int

    def left_bytes(self, most: str | None) -> int | None:
        """Read the header; None where nobody counts."""
        if most is None or not most.isdecimal():
            return None
        return max(0, int(most) - self.held_bytes)


def of(memory: Memory, *, on_gpu: bool) -> Room:
    places: tuple[Place, ...] = ("device", "context") if on_gpu else ("device", "host")
    return Room(memory.held_bytes(*places))
