"""Where answers and pictures are kept: for a while, and no more of them than there is room for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.jobs.answer import KeptAnswer

KEEP_S = 3600.0
MOST_BYTES = 1 << 30  # some hundred pictures; temporary directories often lie in RAM


@dataclass(frozen=True, slots=True)
class _Item:
    answer: KeptAnswer
    clock: asyncio.TimerHandle


class Shelf:
    """Answers by name, oldest first. Loop thread only, but for `new`."""

    def __init__(
        self, folder: Path, *, keep_s: float = KEEP_S, most_bytes: int = MOST_BYTES
    ) -> None:
        self.keep_s = keep_s
        self._folder = folder
        self._most_bytes = most_bytes
        self._items: dict[str, _Item] = {}

    def new(self, name: str, *, is_held_back: bool = False) -> KeptAnswer:
        """Make an answer that is still to come; it is nobody's before it is kept."""
        return KeptAnswer(self._folder / name, self._most_bytes, is_held_back)

    def keep(self, name: str, answer: KeptAnswer) -> None:
        """Keep it from now on; the oldest ones leave when there is no room."""
        self.drop(name)
        clock = asyncio.get_running_loop().call_later(self.keep_s, self.drop, name)
        self._items[name] = _Item(answer, clock)
        while self._size_bytes > self._most_bytes:
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
