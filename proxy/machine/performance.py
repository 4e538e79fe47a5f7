"""How the machine does: looked at now and then, and kept for an hour."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import psutil

from proxy.memory import DeviceLost, GpuMeter, Sensors

log = logging.getLogger(__name__)

KEPT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Net:
    """What has gone over a network interface since the machine is up."""

    name: str
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class HostLook:
    """The host at one moment."""

    at: datetime
    cpu_pct: tuple[float, ...]  # by core, since the look before
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    load: tuple[float, float, float]  # over 1, 5 and 15 minutes
    nets: tuple[Net, ...]


@dataclass(frozen=True, slots=True)
class GpuLook:
    """One GPU at one moment."""

    at: datetime
    index: int
    label: str
    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    sensors: Sensors


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment."""

    host: HostLook
    gpus: tuple[GpuLook, ...]


class Performance:
    """The looks of the last hour, oldest first."""

    def __init__(self, gpus: Sequence[GpuMeter], every_s: float) -> None:
        self._gpus = gpus
        self._every_s = every_s
        self._looks: deque[Look] = deque(maxlen=max(1, int(KEPT_S / every_s)))

    def __iter__(self) -> Iterator[Look]:
        return iter(self._looks)

    @property
    def last(self) -> Look | None:
        return self._looks[-1] if self._looks else None

    async def run(self) -> None:
        """Look again and again."""
        psutil.cpu_percent(percpu=True)  # the first one tells of no time; it counts by thread
        while True:
            try:
                self._looks.append(await look(self._gpus))
            except Exception:  # looking must not end the server
                log.exception("look_broke")
            await asyncio.sleep(self._every_s)  # figures over time: nothing tells of them unasked


async def look(gpus: Sequence[GpuMeter]) -> Look:
    """Look once; a GPU that cannot be looked at is left out."""
    at = datetime.now().astimezone()
    seen = await asyncio.to_thread(lambda: tuple(_gpus(at, gpus))) if gpus else ()
    return Look(_host(at), seen)


def _host(at: datetime) -> HostLook:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    nets = psutil.net_io_counters(pernic=True)
    return HostLook(
        at,
        tuple(psutil.cpu_percent(percpu=True)),
        memory.total,
        memory.used,
        memory.free,
        swap.total,
        swap.used,
        os.getloadavg(),
        tuple(Net(name, net.bytes_recv, net.bytes_sent) for name, net in sorted(nets.items())),
    )


def _gpus(at: datetime, gpus: Sequence[GpuMeter]) -> Iterator[GpuLook]:
    for gpu in gpus:
        try:
            used_bytes = gpu.total_bytes - gpu.free_bytes()
            sensors = gpu.sensors()
        except DeviceLost:
            continue
        yield GpuLook(at, gpu.index, gpu.label, gpu.uuid, gpu.total_bytes, used_bytes, sensors)
