"""What is left for decoding a picture, of what the proxy set aside for its request."""

from __future__ import annotations

from dataclasses import dataclass

from workers.memory import Memory, Place

HEADER = "X-Hotseat-Memory"
"""The bytes on the worker's device that its weights and this request are thought to need."""

SURELY_LESS = 0.85
"""Of what is reckoned: what was measured once, and is set aside since, may be a little below."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a worker holds where its pictures are decoded."""

    held_bytes: int

    def left_bytes(self, charged: str | None) -> int | None:
        """Read the header; None where the proxy sets nothing aside."""
        if charged is None or not charged.isdecimal():
            return None
        return max(0, int((int(charged) - self.held_bytes) / SURELY_LESS))


def of(memory: Memory, *, on_gpu: bool) -> Room:
    places: tuple[Place, ...] = ("device", "context") if on_gpu else ("device", "host")
    return Room(memory.held_bytes(*places))
