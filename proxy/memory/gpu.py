"""NVIDIA's GPUs, and what processes hold of their memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psutil

from proxy.memory.meter import DeviceLost
from proxy.memory.nvml import Handle, NotTold, Nvml, Sensors, open_nvml
from proxy.scheduler.types import Device


@dataclass(frozen=True, slots=True)
class GpuMeter:
    """Looks at one GPU, for as long as `open_gpus` is open."""

    index: int  # in the order of the PCI bus, which need not be CUDA's
    uuid: str
    label: str
    total_bytes: int
    _nvml: Nvml = field(repr=False)
    _handle: Handle = field(repr=False)

    @property
    def device(self) -> Device:
        return Device(f"gpu{self.index}")

    @property
    def frees_at_once(self) -> bool:
        return False

    def free_bytes(self) -> int:
        with self._named():
            return self._nvml.free_bytes(self._handle)

    def held_bytes(self, pids: Collection[int]) -> int | None:
        """Tell what these hold; None also where the driver speaks of pids that we cannot see.

        In a container it may tell the host's pids, and ours would seem to hold nothing.
        """
        holders = self._holders()
        if holders is None:
            return None
        theirs = [count for pid, count in holders.items() if pid in pids]
        if not theirs and not all(map(psutil.pid_exists, holders)):
            return None
        told = [count for count in theirs if count is not None]
        return sum(told) if len(told) == len(theirs) else None

    def would_free_bytes(self, pids: Collection[int]) -> int | None:
        return self.held_bytes(pids)

    def others_bytes(self, pids: Collection[int]) -> int:
        holders = self._holders() or {}
        return sum(count or 0 for pid, count in holders.items() if pid not in pids)

    def peak_bytes(self, pids: Collection[int]) -> int | None:
        """Tell what they hold now: NVML keeps no peaks, and engines give little back."""
        return self.held_bytes(pids)

    def sensors(self) -> Sensors:
        """Tell how it does, as far as it says. Raises DeviceLost."""
        with self._named():
            return self._nvml.sensors(self._handle)

    def driver_version(self) -> str | None:
        with self._named():
            return self._nvml.driver_version()

    def _holders(self) -> Mapping[int, int | None] | None:
        try:
            with self._named():
                return self._nvml.holders(self._handle)
        except NotTold:
            return None

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DeviceLost as error:
            raise type(error)(f"{self.device} ({self.label}): {error}") from error


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that can be looked at, by index, and why there are not more of them."""

    meters: tuple[GpuMeter, ...] = ()
    missing: str = ""  # for people; empty: all is well

    def find(self, wanted: int | str) -> GpuMeter:
        """Find one by its index, its device or the beginning of its UUID.

        Raises LookupError, which says what there is.
        """
        name = str(wanted).lower()
        found = [meter for meter in self.meters if _goes_by(meter, name)]
        if len(found) == 1:
            return found[0]
        there = ", ".join(f"{one.index} = {one.uuid} ({one.label})" for one in self.meters)
        fits = "fits several GPUs" if found else "is no GPU here"
        raise LookupError(f"{wanted} {fits}; there are: {there or f'none, as {self.missing}'}")


def _goes_by(meter: GpuMeter, name: str) -> bool:
    if name in (str(meter.index), meter.device):
        return True
    return name.startswith("gpu-") and meter.uuid.lower().startswith(name)


@contextmanager
def open_gpus() -> Iterator[Gpus]:
    """Open NVML for the length of the block; what is missing is told, never raised.

    After a DeviceLost that stays, leave the block and open anew: a driver that was loaded again
    does not know the old handles.
    """
    with ExitStack() as opened:
        yield _open(opened)


def _open(opened: ExitStack) -> Gpus:
    try:
        nvml = opened.enter_context(open_nvml())
        count = nvml.count()
    except DeviceLost as error:
        return Gpus(missing=str(error))
    meters: list[GpuMeter] = []
    missing: list[str] = [] if count else ["the NVIDIA driver knows of no GPU"]
    for index in range(count):
        try:
            meters.append(_meter(nvml, index))
        except DeviceLost as error:
            missing.append(f"gpu{index}: {error}")
    return Gpus(tuple(meters), "; ".join(missing))


def _meter(nvml: Nvml, index: int) -> GpuMeter:
    handle = nvml.handle(index)
    total_bytes = nvml.total_bytes(handle)
    return GpuMeter(index, nvml.uuid(handle), nvml.name(handle), total_bytes, nvml, handle)
