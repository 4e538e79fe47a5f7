"""The machine's figures under the names that llama-swap's dashboards know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from proxy.machine import GpuLook, HostLook, Look
from proxy.metrics import Told

NAME = "llamaswap_"
LOADS = ("1m", "5m", "15m")
GPU_LABELS = ("id", "name", "uuid")

Figure = Callable[[GpuLook], float | None]
GPU_FIGURES: Sequence[tuple[str, str, Figure]] = (
    ("temperature_celsius", "Temperature.", lambda gpu: gpu.sensors.temp_c),
    ("vram_temperature_celsius", "Temperature of the memory; not known.", lambda _: 0.0),
    ("util_percent", "Part of the time that it worked.", lambda gpu: gpu.sensors.gpu_util_pct),
    (
        "memory_util_percent",
        "Part of the memory that is used.",
        lambda gpu: 100 * gpu.memory_used_bytes / gpu.memory_total_bytes,
    ),
    ("memory_used_bytes", "Memory in use.", lambda gpu: gpu.memory_used_bytes),
    ("memory_total_bytes", "Memory that there is.", lambda gpu: gpu.memory_total_bytes),
    ("fan_speed_percent", "Speed of the fan.", lambda gpu: gpu.sensors.fan_pct),
    ("power_draw_watts", "Power that it draws.", lambda gpu: gpu.sensors.power_w),
)


def gauges(look: Look | None) -> Iterator[Told]:
    """Tell the newest look at the machine; nothing before the first."""
    if look is None:
        return
    yield from _of_host(look.host)
    for name, told, figure in GPU_FIGURES:
        samples = [((str(g.index), g.label, g.uuid), figure(g) or 0.0) for g in look.gpus]
        if samples:
            yield f"{NAME}gpu_{name}", told, GPU_LABELS, samples


def _of_host(host: HostLook) -> Iterator[Told]:
    cores = [((str(core),), pct) for core, pct in enumerate(host.cpu_pct)]
    yield f"{NAME}cpu_util_percent", "Work of a CPU core.", ("core",), cores
    for name, told, value in (
        ("memory_total_bytes", "Memory that there is.", host.memory_total_bytes),
        ("memory_used_bytes", "Memory in use.", host.memory_used_bytes),
        ("memory_free_bytes", "Memory that nothing is in.", host.memory_free_bytes),
        ("swap_total_bytes", "Swap that there is.", host.swap_total_bytes),
        ("swap_used_bytes", "Swap in use.", host.swap_used_bytes),
    ):
        yield f"{NAME}{name}", told, (), [((), value)]
    loads = [((interval,), load) for interval, load in zip(LOADS, host.load, strict=True)]
    yield f"{NAME}load_average", "Load of the machine.", ("interval",), loads
    nets = [
        ((net.name, way), float(count))
        for net in host.nets
        for way, count in (("recv", net.received_bytes), ("sent", net.sent_bytes))
    ]
    told = "Bytes over a network interface since the machine is up."
    yield f"{NAME}network_bytes_total", told, ("interface", "direction"), nets
