"""Another config while the server runs: read, checked, compared, and taken as a whole or not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from proxy.budget import NoBudget
from proxy.config import Config, ConfigError, Loaded, Problem, render
from proxy.pool import Pool
from proxy.reload.changes import Changes, compare
from proxy.setup import Setup

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the files. They are looked at, as events are no help with editors that
replace a file, with folders from another machine, or with a container's mounts."""

Sight: TypeAlias = Sequence[tuple[str, int, int, int]]
"""What files look like from outside."""


@dataclass(frozen=True, slots=True)
class Rereading:
    """Where the config came from, so that it can be read again."""

    read: Callable[[], Loaded]  # raises ConfigError
    files: Callable[[], Iterable[Path]]  # as they are now: there may be more of them
    is_watched: bool = False  # reload when they change


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reload: the new config with its changes, or the old one and why."""

    cause: str
    at: float  # wall clock
    problems: Sequence[str] = ()
    changes: Changes | None = None

    @property
    def is_well(self) -> bool:
        return self.changes is not None

    def as_json(self) -> dict[str, object]:
        told = self.changes.as_json() if self.changes is not None else {}
        return {
            "reloaded": self.is_well,
            "cause": self.cause,
            "at": self.at,
            "problems": list(self.problems),
            **told,
        }


class Refused(Exception):
    """The config stays as it is; the arguments are why."""


class Reloader:
    """Reloads one after the other; `run` is to run beside the server."""

    def __init__(
        self,
        pool: Pool,
        rereading: Rereading | None,
        prepare: Callable[[Loaded], Awaitable[tuple[Setup, Sequence[Problem]]]],
        take_over: Callable[[Config], None],
    ) -> None:
        """Make one.

        `prepare` tells what is wrong with single models, too, and raises NoBudget; `take_over`
        does what is to be done beside the pool's part.
        """
        self._pool = pool
        self._rereading = rereading
        self._seen = _sight(rereading.files) if rereading is not None else ()
        self._prepare = prepare
        self._take_over = take_over
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self._cause = ""
        self.last: Outcome | None = None

    def ask(self, cause: str) -> None:
        """Let there be a reload soon; what is asked for during one is done after it."""
        self._cause = cause
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, and when a watched file has changed; never returns."""
        async with asyncio.TaskGroup() as tasks:
            if self._rereading is not None and self._rereading.is_watched:
                tasks.create_task(self._watch(self._rereading.files))
            while True:
                await self._asked.wait()
                self._asked.clear()
                await self.reload(self._cause)

    async def reload(self, cause: str) -> Outcome:
        """Take the new config, if there is nothing wrong with it; else the old one stays."""
        async with self._one_at_a_time:
            at = time.time()
            try:
                self.last = Outcome(cause, at, changes=await self._exchange())
            except Refused as refused:
                self.last = Outcome(cause, at, problems=refused.args)
            except Exception as error:  # such as YAML that is nested too deep: the server goes on
                log.exception("reload_broke")
                self.last = Outcome(cause, at, problems=(f"{type(error).__name__}: {error}",))
            _log(self.last)
            return self.last

    async def _exchange(self) -> Changes:
        if self._rereading is None:
            raise Refused("this server was not told where its config comes from")
        try:
            loaded = await asyncio.to_thread(self._rereading.read)
            setup, problems = await self._prepare(loaded)
        except ConfigError as error:
            raise Refused(*str(error).splitlines()) from error
        except NoBudget as error:
            raise Refused(f"{'.'.join(error.where)}: {error}") from error
        changes = compare(self._pool.setup, setup)
        # what was wrong with a model before is no reason to keep all others from changing
        grave = [p for p in problems if changes.to_be_started.intersection(p.where[1:2])]
        if grave:
            raise Refused(*(render(setup.config.folder, problem) for problem in grave))
        if self._pool.is_closing:
            raise Refused("the server is shutting down")
        for problem in (*loaded.warnings, *problems):
            told = render(setup.config.folder, problem)
            log.warning("config_warning", extra={"told": told})
        self._pool.reload(setup, changes.changed)
        self._take_over(setup.config)
        return changes

    async def _watch(self, files: Callable[[], Iterable[Path]]) -> None:
        """Ask for a reload when the files have changed and then stayed as they are for a look."""
        known = before = self._seen
        while True:
            await asyncio.sleep(LOOK_S)  # events miss renames and network shares
            seen = await asyncio.to_thread(_sight, files)
            if seen == before and seen != known:
                known = seen
                self.ask("the file has changed")
            before = seen


def _sight(files: Callable[[], Iterable[Path]]) -> Sight:
    """Look at the files; one that is not there is not in it."""
    seen: list[tuple[str, int, int, int]] = []
    with suppress(OSError):  # of the folder
        for path in files():
            with suppress(OSError):
                told = path.stat()
                # not mtime: that does not tell of a permission, and tools set it back
                seen.append((str(path), told.st_ctime_ns, told.st_size, told.st_ino))
    return seen


def _log(outcome: Outcome) -> None:
    if outcome.changes is None:
        told = {"cause": outcome.cause, "mistakes": len(outcome.problems)}
        log.error("reload_failed", extra={**told, "kept": "the old config"})
        for problem in outcome.problems:
            log.error("config_mistake", extra={"told": problem})
        return
    for name, change in outcome.changes.models.items():
        told = {"model": name, "keys": ",".join(change.keys)}
        log.info("model_%s", change.fate.value, extra=told)
    if outcome.changes.needs_restart:
        keys = ",".join(outcome.changes.needs_restart)
        log.warning("needs_restart", extra={"keys": keys})
    keys = ",".join(outcome.changes.keys)
    log.info("reloaded", extra={"cause": outcome.cause, "keys": keys})
