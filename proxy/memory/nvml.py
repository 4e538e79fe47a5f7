"""NVML with types: the one place that knows nvidia-ml-py."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NewType

from proxy.memory.meter import DeviceLost

Handle = NewType("Handle", object)


class NotTold(DeviceLost):
    """The driver is well, and has no answer to this question."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """What a GPU says of its work and its warmth; None: it does not say."""

    temp_c: float | None = None
    gpu_util_pct: float | None = None
    memory_util_pct: float | None = None
    fan_pct: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


class Nvml:
    """An NVML that is open. All methods raise DeviceLost."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._silences = (
            library.NVML_ERROR_NOT_SUPPORTED,
            library.NVML_ERROR_FUNCTION_NOT_FOUND,
            library.NVML_ERROR_NO_PERMISSION,
        )

    def count(self) -> int:
        return int(self._ask("nvmlDeviceGetCount"))

    def handle(self, index: int) -> Handle:
        return Handle(self._ask("nvmlDeviceGetHandleByIndex", index))

    def name(self, handle: Handle) -> str:
        return str(self._ask("nvmlDeviceGetName", handle))

    def uuid(self, handle: Handle) -> str:
        return str(self._ask("nvmlDeviceGetUUID", handle))

    def total_bytes(self, handle: Handle) -> int:
        return int(self._ask("nvmlDeviceGetMemoryInfo", handle).total)

    def free_bytes(self, handle: Handle) -> int:
        return int(self._ask("nvmlDeviceGetMemoryInfo", handle).free)

    def holders(self, handle: Handle) -> Mapping[int, int | None]:
        """Tell what each process holds; None: not told how much. Raises NotTold."""
        found: dict[int, int | None] = {}
        for kind in ("Compute", "Graphics"):
            for process in self._ask(f"nvmlDeviceGet{kind}RunningProcesses_v3", handle):
                # who is on both lists has all that it holds on either
                found[int(process.pid)] = process.usedGpuMemory
        return found

    def sensors(self, handle: Handle) -> Sensors:
        rates = self._told("nvmlDeviceGetUtilizationRates", handle)
        power_mw = self._told("nvmlDeviceGetPowerUsage", handle)
        limit_mw = self._told("nvmlDeviceGetEnforcedPowerLimit", handle)
        return Sensors(
            temp_c=self._told("nvmlDeviceGetTemperature", handle, 0),  # of the chip
            gpu_util_pct=None if rates is None else float(rates.gpu),
            memory_util_pct=None if rates is None else float(rates.memory),
            fan_pct=self._told("nvmlDeviceGetFanSpeed", handle),
            power_w=None if power_mw is None else power_mw / 1000,
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
        )

    def driver_version(self) -> str | None:
        told = self._told("nvmlSystemGetDriverVersion")
        return None if told is None else str(told)

    def _told(self, function: str, *args: object) -> Any:
        """Ask what a device need not know."""
        try:
            return self._ask(function, *args)
        except NotTold:
            return None

    def _ask(self, function: str, *args: object) -> Any:
        try:
            return getattr(self._library, function)(*args)
        except self._library.NVMLError as error:
            lost = NotTold if error.value in self._silences else DeviceLost
            raise lost(f"the NVIDIA driver says: {error}") from error


@contextmanager
def open_nvml() -> Iterator[Nvml]:
    """Open NVML for the length of the block. Raises DeviceLost, which says what is missing."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceLost("nvidia-ml-py is not installed: pip install 'hotseat[gpu]'") from error
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise DeviceLost(f"NVML does not start: {error}") from error
    try:
        yield Nvml(library)
    finally:
        with suppress(library.NVMLError):  # a driver that is gone has nothing to close
            library.nvmlShutdown()
