"""What can be asked about any device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from proxy.scheduler.types import Device


class DeviceLost(Exception):
    """The driver does not answer for the device, as after a suspend; the message says which."""


class Meter(Protocol):
    """Looks at one device. Pids that have gone hold nothing; every method may raise DeviceLost."""

    @property
    def device(self) -> Device: ...

    @property
    def label(self) -> str:
        """Name the device for people."""

    @property
    def total_bytes(self) -> int: ...

    @property
    def frees_at_once(self) -> bool:
        """Tell whether a process that is reaped has given all back."""

    def free_bytes(self) -> int:
        """Tell what anybody could take now."""

    def held_bytes(self, pids: Collection[int]) -> int | None:
        """Tell what these processes hold; None: the driver does not tell."""

    def would_free_bytes(self, pids: Collection[int]) -> int | None:
        """Tell by how much `free_bytes` would grow without these; None: the driver does not tell.

        Less than they hold, where what they hold counts as free already.
        """

    def others_bytes(self, pids: Collection[int]) -> int:
        """Tell what all but these processes hold, as far as it is told."""

    def peak_bytes(self, pids: Collection[int]) -> int | None:
        """Tell the most that they have ever held, as far as it can be known."""
