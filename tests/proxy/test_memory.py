"""The host's memory: real processes that hold some of it, and control groups in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from proxy.memory import HOST, HostMeter, tree
from proxy.memory.host import own_cgroups
from tests.proxy import holders
from tests.proxy.holders import NOBODY, Start

start = holders.start

MIB = 1 << 20

HAS_A_FAMILY = """
import os, signal
line = f"{os.getpid()}"
for _ in range(2):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)
    line += f" {os.getpid()}"
print(line, flush=True)
signal.pause()
"""
MAPS = """
import mmap, sys
with open(sys.stdin.readline().strip(), "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[::4096])
print("mapped", flush=True)
sys.stdin.read()
"""


def test_resident_memory_is_seen(start: Start) -> None:
    """What a process holds, alone or with others, grows by what it takes and ends with it."""
    meter, one, other = HostMeter(), start(), start()
    one.hold(1)
    other.hold(1)
    before = meter.held_bytes([one.pid, other.pid])
    assert 0 < before < 100 * MIB

    one.hold(64 * MIB)
    other.hold(32 * MIB)
    held = meter.held_bytes([one.pid, other.pid, NOBODY])
    assert held - before == pytest.approx(96 * MIB, rel=0.1)
    assert meter.held_bytes([one.pid]) > meter.held_bytes([other.pid])

    one.end()
    assert meter.held_bytes([one.pid]) == 0
    assert meter.held_bytes([]) == 0


def test_peaks_stay(start: Start) -> None:
    """The most that was held is still known when it is held no more."""
    meter, process = HostMeter(), start()
    process.hold(64 * MIB)
    process.hold(1)
    assert meter.held_bytes([process.pid]) < 64 * MIB
    assert meter.peak_bytes([process.pid, NOBODY]) > 64 * MIB


def test_mapped_files_are_held_and_free(start: Start, tmp_path: Path) -> None:
    """A mapped model is resident, but the end of the process would free its own memory only."""
    meter, process, file = HostMeter(), start(MAPS), tmp_path / "model"
    file.write_bytes(bytes(64 * MIB))
    process.say(str(file))
    assert process.line() == "mapped"
    assert meter.held_bytes([process.pid]) > 64 * MIB
    assert 0 < meter.would_free_bytes([process.pid, NOBODY]) < 32 * MIB

    other = start()
    other.hold(64 * MIB)
    assert meter.would_free_bytes([other.pid]) > 64 * MIB


def test_a_process_that_was_not_reaped_holds_nothing(start: Start) -> None:
    """The kernel takes the memory back at the end of a process, not when its parent asks."""
    meter, process = HostMeter(), start()
    process.hold(64 * MIB)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert meter.held_bytes([process.pid]) == 0
    assert meter.peak_bytes([process.pid]) == 0


def test_the_host_without_groups_is_the_machine() -> None:
    """Free, others' and own memory make up all of it."""
    meter = HostMeter([])
    free, ours = meter.free_bytes(), meter.held_bytes([os.getpid()])

    assert (meter.device, meter.label) == (HOST, "host memory")
    assert meter.total_bytes == psutil.virtual_memory().total
    assert 0 < free < meter.total_bytes
    whole = meter.free_bytes() + ours + meter.others_bytes([os.getpid()])
    assert whole == pytest.approx(meter.total_bytes, rel=0.05)


def group(folder: Path, limit: str, current: int = 0, **stat: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    lines = {"anon": 5, "file": 7, "sock": 0, **stat}.items()
    (folder / "memory.stat").write_text("".join(f"{name} {count}\n" for name, count in lines))
    return folder


def test_the_narrowest_group_counts(tmp_path: Path) -> None:
    """Of a group and those around it, the smallest limit and the smallest rest are the host's."""
    outer = group(tmp_path / "outer", str(300 * MIB), current=250 * MIB)
    inner = group(tmp_path / "outer/inner", str(200 * MIB), current=50 * MIB)

    assert HostMeter([inner, outer]).total_bytes == 200 * MIB
    assert HostMeter([inner, outer]).free_bytes() == 50 * MIB
    assert HostMeter([inner]).free_bytes() == 150 * MIB


def test_the_cache_of_a_group_gives_way(tmp_path: Path) -> None:
    """Pages of files and what else can be taken back is not held; anonymous memory is."""
    cache = {"active_file": 30 * MIB, "inactive_file": 40 * MIB, "slab_reclaimable": 5 * MIB}
    one = group(tmp_path / "one", str(100 * MIB), current=95 * MIB, anon=20 * MIB, **cache)
    full = group(tmp_path / "full", str(100 * MIB), current=101 * MIB, anon=101 * MIB)

    assert HostMeter([one]).free_bytes() == 80 * MIB
    assert HostMeter([full]).free_bytes() == 0


def test_groups_without_a_limit_do_not_count(tmp_path: Path) -> None:
    """`max` is no limit, and neither is a group that has no memory files at all."""
    endless = group(tmp_path / "endless", "max", current=MIB)

    for groups in ([endless], [tmp_path], [tmp_path / "nowhere"], [endless / "memory.max"]):
        assert HostMeter(groups).total_bytes == psutil.virtual_memory().total
        assert HostMeter(groups).free_bytes() > MIB


@pytest.mark.parametrize(
    ("membership", "expected"),
    [
        ("0::/\n", ["."]),
        ("0::/a/b\n", ["a/b", "a", "."]),
        ("4:memory:/x\n1:name=systemd:/y\n0::/a\n", ["a", "."]),
        ("0::/a/not-here\n", ["."]),
        ("0::/../a\n", ["."]),
        ("4:memory:/x\n", ["."]),
        ("", ["."]),
        (None, ["."]),
    ],
)
def test_our_groups_are_found(tmp_path: Path, membership: str | None, expected: list[str]) -> None:
    """From our own group outwards; where its name means nothing here, the root stands for it."""
    root = tmp_path / "cgroup"
    (root / "a/b").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    told = tmp_path / "membership"
    if membership is not None:
        told.write_text(membership)

    assert own_cgroups(root, told) == tuple(root / name for name in expected)


def test_a_tree_has_the_children_and_theirs(start: Start) -> None:
    """Whoever a process has started belongs to its tree, as long as it lives."""
    parent = start(HAS_A_FAMILY)
    family = [int(pid) for pid in parent.line().split()]
    assert family[0] == parent.pid
    assert tree(parent.pid) == set(family)
    assert tree(family[1]) == set(family[1:])

    psutil.Process(family[2]).kill()
    parent.end()
    assert tree(parent.pid) == frozenset()
    assert tree(NOBODY) == frozenset()
