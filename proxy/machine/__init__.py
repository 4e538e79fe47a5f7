"""The machine that we run on: what it is, and how it does."""

from proxy.machine.hardware import hardware
from proxy.machine.performance import GpuLook, HostLook, Look, Performance

__all__ = [
    "GpuLook",
    "HostLook",
    "Look",
    "Performance",
    "hardware",
]
