"""Where answers and pictures are kept: for a while, and no more of them than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.config import JobsConfig
from proxy.jobs.answer import KeptAnswer


@dataclass(frozen=True, slots=True)
class _Item:
    answer: KeptAnswer
    clock: asyncio.TimerHandle


class Shelf:
    """Answers by name, oldest first. Loop thread only, but for `new`."""

    def __init__(self, folder: Path, bounds: Callable[[], JobsConfig] = JobsConfig) -> None:
        """`bounds` tells how long and how much now: what is there keeps the time it was given."""
        self._folder = folder
        self._bounds = bounds
        self._items: dict[str, _Item] = {}

    @property
    def keep_s(self) -> float:
        """How long what comes now will be kept."""
        return self._bounds().keep

    def new(self, name: str, *, is_held_back: bool = False) -> KeptAnswer:
        """Make an answer that is still to come; it is nobody's before it is kept."""
        return KeptAnswer(self._folder / name, self._bounds().max_bytes, is_held_back)

    def keep(self, name: str, answer: KeptAnswer) -> None:
        """Keep it from now on; the oldest ones leave when there is no room."""
        self.drop(name)
        clock = asyncio.get_running_loop().call_later(self.keep_s, self.drop, name)
        self._items[name] = _Item(answer, clock)
        while self._size_bytes > self._bounds().max_bytes:
            self.drop(next(iter(self._items)))

    def find(self, name: str) -> KeptAnswer | None:
        item = self._items.get(name)
        return item.answer if item is not None else None

    def drop(self, name: str) -> None:
        """Throw it away; who reads it now reads it to its end."""
        item = self._items.pop(name, None)
        if item is not None:
            item.clock.cancel()
            with suppress(OSError):  # it may never have been there
                item.answer.path.unlink()

    def clear(self) -> None:
        for name in list(self._items):
            self.drop(name)

    @property
    def _size_bytes(self) -> int:
        return sum(item.answer.size_bytes for item in self._items.values())
