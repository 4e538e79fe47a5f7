"""GPUs without hardware: under the real nvidia-ml-py, an NVML that reads them from a folder.

`scripted.c` says what each file of the folder means.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

GIB = 1 << 30
SOURCE = Path(__file__).with_name("scripted.c")
SONAME = "libnvidia-ml.so.1"


class ScriptedGpu:
    """One GPU: what it has, and who holds what of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = folder / "held"  # for the echo worker's `allocate`
        self.held.mkdir(parents=True)

    def set(self, name: str, value: object) -> None:
        """Write one of its files, at once as a whole."""
        target = self.folder / name
        target.with_name(f".{target.name}").write_text(f"{value}\n", encoding="utf-8")
        target.with_name(f".{target.name}").replace(target)

    def allocate(self, pid: int, count_bytes: int, what: str = "") -> None:
        """Let the process hold so much, while it lives; `what` tells its allocations apart.

        With `graphics`, the process is on the graphics list.
        """
        self.set(f"held/{pid}-{what}" if what else f"held/{pid}", count_bytes)

    def free(self, pid: int, what: str = "") -> None:
        (self.held / (f"{pid}-{what}" if what else str(pid))).unlink()

    def stick(self, count_bytes: int) -> None:
        """Use so much that no process holds; 0: give it back."""
        self.set("held/stuck-1", count_bytes)

    def fail(self, code: int) -> None:
        """Let all calls for it fail with the NVML code; 0: no more."""
        self.set("error", code)


class ScriptedNvml:
    """A driver and its GPUs."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.gpus: list[ScriptedGpu] = []
        self._library = library

    def add_gpu(self, total_bytes: int = 24 * GIB) -> ScriptedGpu:
        """Put in one more, which is the next index."""
        index = len(self.gpus)
        gpu = ScriptedGpu(self.folder / f"gpu{index}")
        gpu.set("name", f"Scripted {index}")
        gpu.set("uuid", f"GPU-{index}a8f-scripted")
        gpu.set("total", total_bytes)
        self.gpus.append(gpu)
        return gpu

    def fail(self, code: int) -> None:
        """Let all calls fail with the NVML code; 0: no more."""
        (self.folder / "error").write_text(str(code), encoding="ascii")

    @property
    def env(self) -> Mapping[str, str]:
        """What a process needs in its environment to see this driver and no other."""
        return {"SCRIPTED_NVML_DIR": str(self.folder), "LD_LIBRARY_PATH": str(self._library)}


def build(folder: Path) -> Path:
    """Compile the library into the folder; gives the folder."""
    argv = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    argv += [f"-Wl,-soname,{SONAME}", "-o", str(folder / SONAME), str(SOURCE)]
    subprocess.run(argv, check=True)
    return folder


def load(folder: Path) -> None:
    """Bring it into our own process: who asks for this soname gets what is loaded already."""
    ctypes.CDLL(str(folder / SONAME), ctypes.RTLD_GLOBAL)


@pytest.fixture(scope="session")
def scripted_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a freshly compiled libnvidia-ml.so.1, which is also loaded here."""
    folder = build(tmp_path_factory.mktemp("nvml"))
    load(folder)
    return folder


@pytest.fixture
def scripted_nvml(
    tmp_path: Path, scripted_library: Path, monkeypatch: pytest.MonkeyPatch
) -> ScriptedNvml:
    """Give a driver without GPUs; `add_gpu` puts them in."""
    nvml = ScriptedNvml(tmp_path / "nvml", scripted_library)
    nvml.folder.mkdir()
    monkeypatch.setenv("SCRIPTED_NVML_DIR", str(nvml.folder))
    return nvml
