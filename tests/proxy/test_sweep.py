"""What a proxy leaves behind that was killed with its guards, and what the next one does."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from proxy.rundir import sweep
from proxy.rundir.folder import NONCE, RECORD, Record, run_dir
from proxy.rundir.processes import started
from tests.proxy.served import is_alive, spawned, workers_of

WAITS = "import threading; print('here', flush=True); threading.Event().wait()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"
LEADS = f"import os; os.fork() or os.setsid(); {WAITS}"
STARTS_ONE = f"import os; pid = os.fork(); pid or os.setsid(); {WAITS}"
OPENS_A_SHELL = f"import pty; pid, fd = pty.fork(); {WAITS}"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a temporary directory of our own: nothing else on this machine is looked at."""
    folder = Path(tempfile.mkdtemp(prefix="sweep-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder / f"hotseat-{os.getuid()}"
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def process(code: str, nonce: str | None = None) -> AsyncIterator[psutil.Process]:
    """Run a program that says when it is there."""
    env = {**os.environ, **({NONCE: nonce} if nonce else {})}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", code),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert await child.stdout.readline()
    try:
        yield psutil.Process(child.pid)
    finally:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            for one in psutil.Process(child.pid).children(recursive=True):
                one.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


def leave(home: Path, record: Record) -> Path:
    """Make the folder of a proxy."""
    folder = home / f"of-{record.pid}-{record.nonce}"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(asdict(record)))
    (folder / "1.sock").touch()
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, as its proxy does."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def record_of(home: Path) -> Record:
    """Read who the only proxy is that has a folder there."""
    [folder] = home.iterdir()
    return Record(**json.loads((folder / RECORD).read_text()))


def end(one: psutil.Process) -> None:
    """Kill it; who has adopted it may take his time to remove it from the table."""
    one.kill()
    while is_alive(one):
        pass


async def test_what_escaped_from_a_killed_proxy_is_ended(tmp_path: Path, home: Path) -> None:
    """Proxy and guard are killed at once: the next start ends the worker and all it started."""
    options = json.dumps({"grandchild": True})
    command = f"{sys.executable} -P -m workers.echo --port ${{PORT}} --options '{options}'"
    config = json.dumps({"models": {"a": {"cmd": command}}})
    async with spawned(config, tmp_path) as (hotseat, proxy):
        assert (await hotseat.chat("a")).status == 200
        family = workers_of(proxy.pid)
        guard = psutil.Process((await hotseat.running())["a"]["pid"])
        family.remove(guard)
        guard.suspend()
        proxy.kill()
        await proxy.wait()
        await asyncio.to_thread(end, guard)
        left = record_of(home)

        assert len(family) == 2
        assert all(map(is_alive, family))
        async with spawned(config, tmp_path) as (again, second):
            assert not any(map(is_alive, family))
            line = await again.log_line("swept")
            assert all(str(one.pid) in line for one in family)
            assert (await again.chat("a")).status == 200
            assert (left.pid, record_of(home).pid) == (proxy.pid, second.pid)


async def test_only_what_carries_the_nonce_of_the_dead_is_ended(home: Path) -> None:
    """A pid that somebody else has now, a worker of another proxy, a namesake: all survive."""
    async with (
        process(WAITS) as stranger,
        process(WAITS, "of-another") as others,
        process(WAITS, "of-the-dead-") as namesake,
        process(WAITS, "of-the-dead") as left,
    ):
        # the dead proxy's pid is a stranger's by now
        dead = leave(home, Record(stranger.pid, 1, "of-the-dead"))
        await asyncio.to_thread(sweep)

        assert not is_alive(left)
        assert all(map(is_alive, (stranger, others, namesake)))
        assert not dead.exists()


async def test_a_living_proxy_keeps_its_workers(home: Path) -> None:
    """Several proxies of one user do not touch each other."""
    ticks = started(os.getpid())
    assert ticks is not None
    async with process(WAITS, "of-the-living") as worker:
        folder = leave(home, Record(os.getpid(), ticks, "of-the-living"))
        await asyncio.to_thread(sweep)

        assert is_alive(worker)
        assert folder.exists()


async def test_a_proxy_of_another_container_is_told_by_its_lock(home: Path) -> None:
    """Its pid means nothing here; while it holds its folder, it lives."""
    async with process(WAITS, "n") as worker:
        folder = leave(home, Record(worker.pid, 1, "n"))
        with locked(folder):
            await asyncio.to_thread(sweep)
            assert is_alive(worker)
            assert folder.exists()
        await asyncio.to_thread(sweep)

        assert not is_alive(worker)


def test_a_running_proxy_holds_its_folder(home: Path) -> None:
    """Whoever looks sees that it is locked; it stays, though its record was tidied up."""
    with run_dir() as ours:
        (ours.path / RECORD).unlink()
        os.utime(ours.path, (0, 0))
        sweep()
        assert ours.path.parent == home
        assert ours.path.exists()
        with pytest.raises(BlockingIOError), locked(ours.path):
            pass


async def test_a_users_shell_lives_though_a_worker_has_opened_it(home: Path) -> None:
    """What has a terminal, and what keeps that open, is somebody's who sits there."""
    async with process(OPENS_A_SHELL, "n") as keeper, process(WAITS, "n") as left:
        [shell] = keeper.children()
        leave(home, Record(left.pid, 1, "n"))
        await asyncio.to_thread(sweep, 0.2)

        assert not is_alive(left)
        assert all(map(is_alive, (keeper, shell)))


async def test_a_living_proxy_lives_though_a_dead_ones_worker_has_started_it(home: Path) -> None:
    """It has inherited the nonce, and so has what it starts."""
    async with process(STARTS_ONE, "n") as proxy:
        [checks] = proxy.children()
        ticks = started(proxy.pid)
        assert ticks is not None
        leave(home, Record(proxy.pid, ticks, "its own"))
        leave(home, Record(checks.pid, 1, "n"))
        await asyncio.to_thread(sweep, 0.2)

        assert all(map(is_alive, (proxy, checks)))


async def test_who_is_deaf_or_has_left_his_group_is_ended_too(home: Path) -> None:
    """SIGTERM, the grace, SIGKILL; and whoever was started by a worker, in whatever session."""
    async with process(DEAF, "n") as deaf, process(LEADS, "n") as leader:
        tree = [deaf, leader, *leader.children()]
        leave(home, Record(leader.pid, 1, "n"))
        await asyncio.to_thread(sweep, 0.2)

        assert len(tree) == 3
        assert not any(map(is_alive, tree))


def test_a_proxy_that_was_started_by_a_dead_ones_worker_lives(home: Path) -> None:
    """Whoever sweeps ends neither himself nor who has started him."""
    leave(home, Record(1, 0, "n"))
    code = "from proxy.rundir import sweep; sweep()"
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, NONCE: "n"}, check=False
    )

    assert ended.returncode == 0


def test_folders_without_a_record(home: Path) -> None:
    """One that is just being made is let be; an old one goes."""
    fresh, old = home / "fresh", home / "old"
    for folder in (fresh, old):
        folder.mkdir(parents=True)
        (folder / RECORD).write_text("{")
    os.utime(old, (0, 0))
    sweep()

    assert fresh.exists()
    assert not old.exists()


def test_the_folder_is_private_and_gone_with_us(home: Path) -> None:
    """Nobody else may connect to a worker; nothing stays."""
    home.mkdir(mode=0o755)
    with run_dir() as ours:
        assert ours.path.parent == home
        for folder in (home, ours.path):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert json.loads((ours.path / RECORD).read_text())["nonce"] == ours.nonce

    assert list(home.iterdir()) == []


def test_a_folder_that_is_not_ours_is_not_used(home: Path) -> None:
    """Somebody who was there first with our name gets nothing into his hands."""
    theirs = home.parent / "theirs"
    theirs.mkdir()
    home.symlink_to(theirs)
    sweep()
    with run_dir() as ours:
        assert theirs not in ours.path.parents
        assert stat.S_IMODE(ours.path.stat().st_mode) == 0o700

    assert list(theirs.iterdir()) == []
