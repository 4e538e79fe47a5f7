"""What machine this is: looked at once, in the shape that is told."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from proxy.memory import DeviceLost, GpuMeter

SCHEMA = 1
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}


def hardware(gpus: Sequence[GpuMeter], version: str) -> Mapping[str, object]:
    """Describe the machine. Blocks for some milliseconds. Raises OSError."""
    machine, release = platform.machine(), _os_release()
    detector = {"name": "hotseat", "version": version}
    return {
        "schema_version": SCHEMA,
        "captured_at": datetime.now(UTC).isoformat(),
        "capture": {"scope": "host", "method": "native", "detector": detector},
        "architecture": {"name": ARCHITECTURES.get(machine, machine), "raw_name": machine},
        "operating_system": {
            "family": platform.system().lower(),
            "name": release.get("NAME", platform.system()),
            "version": release.get("VERSION_ID", ""),
            "kernel": platform.release(),
        },
        "environment": _environment(),
        "cpu": _cpu(),
        "memory": {"capacity_bytes": psutil.virtual_memory().total},
        "accelerators": [_accelerator(gpu) for gpu in gpus],
    }


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _environment() -> Mapping[str, str]:
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    name = next((name for mark, name in marks.items() if Path(mark).exists()), "")
    name = name or ("kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else "")
    return {"kind": "container" if name else "host", "name": name, "version": ""}


def _cpu() -> Mapping[str, object]:
    processors = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    fields: dict[str, set[str]] = {}
    for line in processors.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), set()).add(value.strip())
    return {
        "vendor": min(fields.get("vendor_id", {""})),
        "model": min(fields.get("model name", {platform.processor()})),
        "socket_count": len(fields.get("physical id", {"0"})),
        "physical_core_count": psutil.cpu_count(logical=False) or 0,
        "logical_thread_count": psutil.cpu_count() or 0,
    }


def _accelerator(gpu: GpuMeter) -> Mapping[str, object]:
    try:
        limit_w, driver = gpu.sensors().power_limit_w, gpu.driver_version() or ""
    except DeviceLost:
        limit_w, driver = None, ""
    return {
        "index": gpu.index,
        "kind": "gpu",
        "vendor": "NVIDIA",
        "model": gpu.label,
        "architecture": "",
        "memory": {"kind": "dedicated", "capacity_bytes": gpu.total_bytes},
        "driver": {"name": "nvidia", "version": driver},
        "power_limit_watts": limit_w or 0,
    }
