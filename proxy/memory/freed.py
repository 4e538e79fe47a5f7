"""Waiting until the memory of a worker that is gone is seen free.

A driver may take a moment to give back what a process held, and now and then it does not. So the
devices are looked at before the stop (`hold`) and after it (`seen_free`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from proxy.memory.meter import DeviceLost, Meter

POLL_S = 0.015  # NVML has no event for it; a look takes about a millisecond
ENOUGH = 0.9  # of what was held: the driver's numbers are not exact to the byte
LOOKS = 5  # at a device that changes all the time
SETTLED_S = 0.25  # without growth, where nobody tells who holds what


@dataclass(frozen=True, slots=True)
class Held:
    """One device just before a worker's end."""

    meter: Meter
    pids: frozenset[int]
    held_bytes: int | None = None  # by the pids; None: not told
    others_bytes: int = 0
    free_bytes: int = 0


async def hold(meters: Iterable[Meter], pids: Collection[int]) -> tuple[Held, ...]:
    """Look at the devices just before these processes are stopped.

    Devices that they do not hold, or that give back at once, are left out. Never raises.
    """
    slow = [meter for meter in meters if not meter.frees_at_once]
    ours = frozenset(pids)
    looks = await asyncio.to_thread(lambda: [_look(meter, ours) for meter in slow])
    return tuple(look for look in looks if look.held_bytes != 0)


async def seen_free(held: Iterable[Held], *, within_s: float) -> bool:
    """Wait until what the processes held is free again; to be called when they are reaped.

    False: not within the bound. What others take meanwhile does not count against it, nor what
    they give back for it. Where nobody tells who holds what, free memory that has ceased to grow
    must do. A device that cannot be looked at is not seen free.
    """
    waits: Sequence[_Wait] = [_Wait(one) for one in held]
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(within_s):  # around the looks too: a driver may hang
            while waits:
                waits = await asyncio.to_thread(_unfinished, waits, clock())
                if waits:
                    await asyncio.sleep(POLL_S)  # no driver tells when memory comes back
    except TimeoutError:
        return False
    return True


def _look(meter: Meter, pids: frozenset[int]) -> Held:
    """Look until nothing has changed under the look, within reason.

    A driver is asked for one number at a time: a neighbour that ends in between would be missed
    in one number and counted in the other.
    """
    look = Held(meter, pids)
    try:
        for _ in range(LOOKS):
            free_bytes = meter.free_bytes()
            held_bytes, others_bytes = meter.held_bytes(pids), meter.others_bytes(pids)
            look = Held(meter, pids, held_bytes, others_bytes, free_bytes)
            if meter.free_bytes() == free_bytes:
                break
    except DeviceLost:
        return Held(meter, pids)
    return look


class _Wait:
    """What is still to be seen of one device."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._most_free_bytes = -1
        self._grown_at = 0.0

    def is_over(self, now: float) -> bool:
        try:
            return self._is_settled(now) if self._held.held_bytes is None else self._is_back()
        except DeviceLost:
            return False

    def _is_back(self) -> bool:
        before = self._held
        if before.meter.held_bytes(before.pids):
            return False
        after = _look(before.meter, before.pids)
        others_took_bytes = after.others_bytes - before.others_bytes
        grown_bytes = after.free_bytes - before.free_bytes + others_took_bytes
        return grown_bytes >= ENOUGH * (before.held_bytes or 0)

    def _is_settled(self, now: float) -> bool:
        free_bytes = self._held.meter.free_bytes()
        if free_bytes > self._most_free_bytes:
            self._most_free_bytes, self._grown_at = free_bytes, now
        return now - self._grown_at >= SETTLED_S


def _unfinished(waits: Sequence[_Wait], now: float) -> Sequence[_Wait]:
    return [one for one in waits if not one.is_over(now)]
