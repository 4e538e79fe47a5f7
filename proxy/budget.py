"""How much of each device may be used: what the config says, and what others leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.config import Config, Gpu, ModelConfig, Share
from proxy.memory import HOST, Gpus, HostMeter, Meter
from proxy.scheduler import Demand, Device

SEAT = Device("seat")
"""What is scarce where the GPU's memory has no budget: the right to be on it."""
ONE_SEAT: Demand = {SEAT: 1}
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")
COUNTED = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""These take -1 for none; CUDA reads an empty value so too, HIP does not."""
LEAST_CHANGE = 0.01  # of a device; less is no news


class NoBudget(Exception):
    """The config asks for a budget that cannot be told here; `where` is its key."""

    def __init__(self, where: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of one device, in bytes."""

    device: Device
    limit: int | Share | Literal["auto"]
    most_bytes: int  # when nobody else uses the device
    meter: Meter | None  # None: nobody can look at it, so the limit is a size

    def now_bytes(self, ours: Collection[int], *, charged: int, stuck: int) -> int:
        """Tell what it is now; with `auto`, what others use is not ours to have.

        `ours` are the pids of our workers; `charged` is what all workers are thought to hold, in
        bytes, where the driver does not tell; `stuck` is what those are charged that do not go
        away. Blocks as a meter does. Raises DeviceLost.
        """
        if self.meter is None:
            return self.most_bytes
        used = self.meter.total_bytes - self.meter.free_bytes()  # a device that is lost says so
        if self.limit != "auto":
            return self.most_bytes
        held = self.meter.would_free_bytes(ours)
        others = used - stuck - (charged - stuck if held is None else held)
        return max(0, self.most_bytes - max(0, others))

    def is_news(self, before: int, now: int) -> bool:
        return abs(now - before) > LEAST_CHANGE * max(self.most_bytes, 1)


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of one server."""

    gpus: Gpus
    budgets: Mapping[Device, Budget]

    def named(self, gpu: Gpu) -> Device:
        """Name a GPU as the scheduler does. Raises LookupError: there are GPUs, but not this."""
        if not self.gpus.meters and isinstance(gpu, int):
            return Device(f"gpu{gpu}")
        return self.gpus.find(gpu).device

    def _index(self, gpu: Gpu) -> str:
        return str(self.gpus.find(gpu).index if self.gpus.meters else gpu)

    def environment(self, config: Config, model: ModelConfig) -> Mapping[str, str]:
        """Hide from a worker the GPUs that are not its own, where the config speaks of any."""
        if config.device_of(model) == "cpu":
            return {name: "-1" if name in COUNTED else "" for name in VISIBLE}
        if model.gpu is None and config.gpu.devices is None and config.gpu.memory is None:
            return {}
        own = ",".join(self._index(gpu) for gpu in config.gpus_of(model))
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **dict.fromkeys(VISIBLE, own)}


def budgets_of(config: Config, gpus: Gpus) -> Mapping[Device, Budget]:
    """Make the budgets that the config asks for; a GPU without one is a seat. Raises NoBudget."""
    out: dict[Device, Budget] = {}
    if config.host.memory is not None:
        out[HOST] = _budget(HOST, config.host.memory, config.host.reserve, HostMeter())
    for gpu in devices_of(config, gpus):
        budget = _gpu_budget(config, gpus, gpu)
        out[budget.device] = budget
    return out


def devices_of(config: Config, gpus: Gpus) -> Sequence[Gpu]:
    """Name the GPUs that have a budget."""
    if config.gpu.memory is None:
        return ()
    if config.gpu.devices is not None:
        return config.gpu.devices
    named = {gpu for model in config.models.values() for gpu in model.gpu or ()}
    return tuple(meter.index for meter in gpus.meters) or tuple(sorted(named, key=str)) or (0,)


def _gpu_budget(config: Config, gpus: Gpus, gpu: Gpu) -> Budget:
    where = ("gpu", "memory")
    try:
        meter = gpus.find(gpu) if gpus.meters else None
    except LookupError as error:
        raise NoBudget(("gpu", "devices"), str(error)) from error
    index = meter.index if meter is not None else gpu
    limit = config.gpu.limit(index if isinstance(index, int) else -1, meter.uuid if meter else "")
    if limit is None:
        raise NoBudget(
            where, f"says nothing of GPU {gpu}; name it, or leave it out of gpu.devices"
        )
    if meter is None and (not isinstance(limit, int) or not isinstance(gpu, int)):
        told = f"needs to look at the GPU, and cannot: {gpus.missing}"
        raise NoBudget(where, f'{told}; pip install "hotseat[gpu]", or say a size such as 22GiB')
    device = meter.device if meter is not None else Device(f"gpu{gpu}")
    return _budget(device, limit, config.gpu.reserve, meter)


def _budget(
    device: Device, limit: int | Share | Literal["auto"], reserve_bytes: int, meter: Meter | None
) -> Budget:
    total_bytes = meter.total_bytes if meter is not None else 0
    match limit:
        case int():
            size_bytes = limit
        case Share():
            size_bytes = limit.of(total_bytes)
        case _:
            size_bytes = total_bytes
    return Budget(device, limit, max(0, size_bytes - reserve_bytes), meter)
