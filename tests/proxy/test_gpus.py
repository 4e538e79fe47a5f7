"""GPUs: a scripted driver under the real NVML bindings, and real processes that hold memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from proxy.memory import DeviceLost, GpuMeter, Gpus, HostMeter, hold, open_gpus, seen_free, tree
from tests.nvml import device
from tests.nvml.device import GIB, SONAME, ScriptedNvml
from tests.proxy import holders
from tests.proxy.holders import NOBODY, Start

scripted_library = device.scripted_library
scripted_nvml = device.scripted_nvml
start = holders.start

MIB = 1 << 20
UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST = 1, 9, 15


@pytest.fixture
def gpus(scripted_nvml: ScriptedNvml) -> Iterator[Gpus]:
    """Open two GPUs of 24 GiB, each with its folder in `scripted_nvml`."""
    for _ in range(2):
        scripted_nvml.add_gpu()
    with open_gpus() as opened:
        yield opened


@pytest.fixture
def meter(gpus: Gpus) -> GpuMeter:
    """Give the first of the two GPUs."""
    return gpus.meters[0]


# What they tell.


def test_gpus_tell_what_they_are(gpus: Gpus, scripted_nvml: ScriptedNvml) -> None:
    """Each has its device, name, UUID and size, in the driver's order."""
    one, other = gpus.meters

    assert gpus.missing == ""
    assert (one.device, other.device) == ("gpu0", "gpu1")
    assert (one.label, one.uuid) == ("Scripted 0", "GPU-0a8f-scripted")
    assert one.total_bytes == one.free_bytes() == 24 * GIB
    assert scripted_nvml.folder.is_dir()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(0, 0), (1, 1), ("1", 1), ("gpu1", 1), ("GPU-1a8f-scripted", 1), ("gpu-0A", 0)],
)
def test_a_gpu_is_found_by_any_of_its_names(gpus: Gpus, wanted: int | str, index: int) -> None:
    """Index, device, UUID and the beginning of a UUID all do."""
    assert gpus.find(wanted) is gpus.meters[index]


@pytest.mark.parametrize("wanted", [2, "GPU-9", "", "GPU-", "Scripted 0"])
def test_a_gpu_that_is_not_there_is_refused(gpus: Gpus, wanted: int | str) -> None:
    """What fits none, or more than one, raises LookupError, which says what there is."""
    with pytest.raises(LookupError, match=r"0 = GPU-0a8f-scripted \(Scripted 0\)"):
        gpus.find(wanted)


def test_an_only_gpu_must_be_named_too(scripted_nvml: ScriptedNvml) -> None:
    """A name that says nothing is not taken for the only GPU there is."""
    scripted_nvml.add_gpu()

    with open_gpus() as gpus, pytest.raises(LookupError, match="is no GPU here"):
        gpus.find("")


def test_what_processes_hold_of_a_gpu(
    gpus: Gpus, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """Each process counts with all that it holds of this GPU, and only while it lives."""
    folder = scripted_nvml.gpus[0]
    one, other, meter = start(), start(), gpus.meters[0]
    folder.allocate(one.pid, 2 * GIB)
    folder.allocate(one.pid, GIB, "context")
    folder.allocate(other.pid, 4 * GIB)

    assert meter.held_bytes([one.pid]) == 3 * GIB
    assert meter.held_bytes({one.pid, other.pid, NOBODY}) == 7 * GIB
    assert meter.held_bytes([os.getpid()]) == 0
    assert meter.others_bytes([one.pid]) == 4 * GIB
    assert meter.peak_bytes([one.pid]) == meter.would_free_bytes([one.pid]) == 3 * GIB
    assert meter.free_bytes() == 17 * GIB
    assert gpus.meters[1].held_bytes([one.pid]) == 0

    folder.free(one.pid, "context")
    other.end()
    assert meter.held_bytes([one.pid, other.pid]) == meter.peak_bytes([one.pid]) == 2 * GIB
    assert meter.free_bytes() == 22 * GIB


def test_graphics_count_too_and_once(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """A process that draws is seen; one that draws and computes is on both lists, and is one."""
    game, both = start(), start()
    folder = scripted_nvml.gpus[0]
    folder.allocate(game.pid, GIB, "graphics")
    folder.allocate(both.pid, 2 * GIB, "graphics")
    folder.allocate(both.pid, 2 * GIB)

    assert meter.held_bytes([game.pid]) == GIB
    assert meter.held_bytes([both.pid]) == 4 * GIB
    assert meter.others_bytes([NOBODY]) == 5 * GIB


@pytest.mark.parametrize("silence", ["untold", "unlisted"])
def test_a_driver_may_not_tell_who_holds_what(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start, silence: str
) -> None:
    """Then what a process holds is not known, which is not the same as nothing."""
    process = start()
    scripted_nvml.gpus[0].allocate(process.pid, GIB)
    scripted_nvml.gpus[0].set(silence, 1)

    assert meter.held_bytes([process.pid]) is None
    assert meter.peak_bytes([process.pid]) is None
    assert meter.others_bytes([]) == 0
    assert meter.free_bytes() == 23 * GIB


def test_pids_of_another_world_are_not_ours(meter: GpuMeter, scripted_nvml: ScriptedNvml) -> None:
    """In a container the driver may tell pids that we cannot see: ours may be among them."""
    scripted_nvml.gpus[0].set("held/foreign-1", GIB)

    assert meter.held_bytes([os.getpid()]) is None

    scripted_nvml.gpus[0].allocate(os.getpid(), GIB)
    assert meter.held_bytes([os.getpid()]) == GIB


@pytest.mark.parametrize("code", [UNINITIALIZED, GPU_IS_LOST])
def test_a_lost_device_is_one_exception(
    gpus: Gpus, scripted_nvml: ScriptedNvml, code: int
) -> None:
    """Whatever the driver fails with, it is DeviceLost and names the device; it may come back."""
    meter, other = gpus.meters
    scripted_nvml.gpus[0].fail(code)

    looks: tuple[Callable[[], object], ...] = (
        meter.free_bytes,
        lambda: meter.held_bytes([1]),
        lambda: meter.others_bytes([1]),
        lambda: meter.peak_bytes([1]),
    )
    for look in looks:
        with pytest.raises(DeviceLost, match=r"^gpu0 \(Scripted 0\): the NVIDIA driver says: \w"):
            look()
    assert other.free_bytes() == 24 * GIB

    scripted_nvml.gpus[0].fail(0)
    assert meter.free_bytes() == 24 * GIB


def test_a_gpu_that_fails_is_left_out(scripted_nvml: ScriptedNvml) -> None:
    """The others are there to be used, and people are told about that one."""
    scripted_nvml.add_gpu().fail(GPU_IS_LOST)
    scripted_nvml.add_gpu()

    with open_gpus() as gpus:
        assert [meter.device for meter in gpus.meters] == ["gpu1"]
        assert gpus.missing == "gpu0: the NVIDIA driver says: GPU is lost"


def test_no_gpu_is_no_error(scripted_nvml: ScriptedNvml) -> None:
    """Without a GPU, or a driver that is loaded, there are none, and people are told why."""
    with open_gpus() as gpus:
        assert gpus == Gpus((), "the NVIDIA driver knows of no GPU")
    with pytest.raises(LookupError, match="none, as the NVIDIA driver knows of no GPU"):
        gpus.find(0)

    scripted_nvml.fail(DRIVER_NOT_LOADED)
    with open_gpus() as gpus:
        assert gpus == Gpus((), "NVML does not start: Driver Not Loaded")


def test_no_bindings_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-ml-py there are no GPUs, and people are told what to install."""
    monkeypatch.setitem(sys.modules, "pynvml", None)  # Python's own way to say: not importable

    with open_gpus() as gpus:
        assert gpus.meters == ()
        assert "hotseat[gpu]" in gpus.missing


SAYS_WHAT_IS_THERE = """
from proxy.memory import open_gpus
with open_gpus() as gpus:
    print([meter.label for meter in gpus.meters], gpus.missing)
"""


def test_another_process_finds_the_scripted_driver(scripted_nvml: ScriptedNvml) -> None:
    """Its environment is all that a proxy needs to be given."""
    scripted_nvml.add_gpu()
    argv = [sys.executable, "-c", SAYS_WHAT_IS_THERE]
    env = {**os.environ, **scripted_nvml.env}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=env)

    assert done.stdout == "['Scripted 0'] \n"


def test_no_driver_is_no_error(tmp_path: Path) -> None:
    """Without a libnvidia-ml that can be loaded there are no GPUs, and people are told."""
    (tmp_path / SONAME).touch()  # found before a real one, if there is one, and no library
    argv = [sys.executable, "-c", SAYS_WHAT_IS_THERE]
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=env)

    assert done.stdout == "[] NVML does not start: NVML Shared Library Not Found\n"


# Seen free.


async def test_memory_that_is_gone_with_its_process_is_seen_free(
    gpus: Gpus, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """A process that ends and takes its memory along is over at the first look."""
    process = start()
    for folder in scripted_nvml.gpus:
        folder.allocate(process.pid, 8 * GIB)
    held = await hold([*gpus.meters, HostMeter()], {process.pid})
    assert [one.meter.device for one in held] == ["gpu0", "gpu1"]
    assert not await seen_free(held, within_s=0.05)

    process.end()
    assert await seen_free(held, within_s=5)


async def test_what_gives_back_at_once_is_not_waited_for(meter: GpuMeter, start: Start) -> None:
    """The host's memory is free when a process is reaped; a GPU may not be held at all."""
    process = start()
    process.hold(MIB)

    held = await hold([HostMeter(), meter], tree(process.pid))
    assert held == ()
    assert await seen_free(held, within_s=0)


async def test_stuck_memory_is_seen_until_it_comes_back(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """Memory that outlives its process is not free, until it is."""
    folder, process = scripted_nvml.gpus[0], start()
    folder.allocate(process.pid, 8 * GIB)
    held = await hold([meter], {process.pid})
    folder.stick(8 * GIB)
    process.end()
    assert not await seen_free(held, within_s=0.05)

    folder.stick(GIB)
    assert not await seen_free(held, within_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(seen_free(held, within_s=5))
        await asyncio.to_thread(folder.stick, GIB // 2)  # a rest of less than a tenth
    assert waiting.result()


@pytest.mark.parametrize(
    ("other_before", "other_after", "stuck", "is_free"),
    [
        (1, 9, 0, True),
        (1, 9, 4, False),
        (9, 1, 0, True),
        (9, 1, 8, False),
    ],
)
async def test_what_others_do_meanwhile_does_not_count(
    *,
    meter: GpuMeter,
    scripted_nvml: ScriptedNvml,
    start: Start,
    other_before: int,
    other_after: int,
    stuck: int,
    is_free: bool,
) -> None:
    """What a game takes hides nothing that came back; what it gives makes up for nothing."""
    folder, ours, game = scripted_nvml.gpus[0], start(), start()
    folder.allocate(ours.pid, 8 * GIB)
    folder.allocate(game.pid, other_before * GIB, "graphics")
    held = await hold([meter], {ours.pid})
    folder.allocate(game.pid, other_after * GIB, "graphics")
    folder.stick(stuck * GIB)
    ours.end()

    assert await seen_free(held, within_s=5 if is_free else 0.1) is is_free


@dataclass(frozen=True)
class WhileLooking(GpuMeter):
    """Something happens, once, between two questions of a look."""

    happens: Callable[[], None] = field(kw_only=True)

    def others_bytes(self, pids: Collection[int]) -> int:
        others_bytes = super().others_bytes(pids)
        self.happens()
        return others_bytes


async def test_a_neighbour_may_end_in_the_middle_of_a_look(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """Several that end at once are each seen free: no look counts a neighbour by halves."""
    folder, ours, neighbour = scripted_nvml.gpus[0], start(), start()
    for process in (ours, neighbour):
        folder.allocate(process.pid, 8 * GIB)
    same = {each.name: getattr(meter, each.name) for each in fields(meter)}
    held = await hold([WhileLooking(**same, happens=neighbour.end)], {ours.pid})
    ours.end()

    assert await seen_free(held, within_s=5)


async def test_one_of_a_tree_that_lives_on_is_not_free(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """As long as one of the processes holds anything, it is not over."""
    folder, leader, engine = scripted_nvml.gpus[0], start(), start()
    folder.allocate(leader.pid, 8 * GIB)
    folder.allocate(engine.pid, MIB)
    held = await hold([meter], {leader.pid, engine.pid})
    leader.end()
    assert not await seen_free(held, within_s=0.05)

    engine.end()
    assert await seen_free(held, within_s=5)


async def test_a_driver_that_does_not_tell_is_given_time_to_settle(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """Without knowing who holds what, free memory must have stopped to grow for a while."""
    folder, process = scripted_nvml.gpus[0], start()
    folder.allocate(process.pid, 8 * GIB)
    folder.set("untold", 1)
    held = await hold([meter], {process.pid})
    process.end()

    assert not await seen_free(held, within_s=0.05)
    assert await seen_free(held, within_s=5)


async def test_a_lost_device_is_not_seen_free(
    meter: GpuMeter, scripted_nvml: ScriptedNvml, start: Start
) -> None:
    """A driver that fails proves nothing, whether before the stop or after it."""
    folder, process = scripted_nvml.gpus[0], start()
    folder.allocate(process.pid, 8 * GIB)
    held = await hold([meter], {process.pid})
    folder.fail(GPU_IS_LOST)
    blind = await hold([meter], {process.pid})
    process.end()
    assert not await seen_free(held, within_s=0.05)
    assert not await seen_free(blind, within_s=0.4)

    folder.fail(0)
    assert await seen_free([*held, *blind], within_s=5)
