"""What an echo holds: real memory of the host, and bytes of a card that is a folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from workers.echo.options import EchoOptions


class NoMemory(Exception):
    """There is not as much as was asked for."""


class Card:
    """A GPU played by a folder: each file in it tells what an allocation holds, in bytes.

    A file is named `PID` or `PID-WORD` and counts while that process is alive, as a driver frees
    what the dead held; `stuck-WORD` counts always, as what a driver does not give back. Names
    that begin with a dot are ignored. The file `total` beside the folder tells the card's bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str, more_bytes: int) -> None:
        """Let the allocation `name` hold so much more. Raises NoMemory, and takes nothing then."""
        with self._locked():
            free_bytes = self._total_bytes() - self._held_bytes()
            if more_bytes > free_bytes:
                raise NoMemory(
                    f"CUDA error: out of memory, {more_bytes} bytes asked, {free_bytes} free"
                )
            self._write(name, self._read(name) + more_bytes)

    def give_back(self, name: str, less_bytes: int) -> None:
        """Let the allocation `name` hold so much less; one that holds nothing has no file."""
        with self._locked():
            self._write(name, self._read(name) - less_bytes)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two that load at once do not get the same bytes
            yield

    def _total_bytes(self) -> int:
        return int((self._folder.parent / "total").read_text())

    def _held_bytes(self) -> int:
        names = [path.name for path in self._folder.iterdir() if path.name[0] != "."]
        return sum(self._read(name) for name in names if _counts(name))

    def _read(self, name: str) -> int:
        path = self._folder / name
        return int(path.read_text()) if path.exists() else 0

    def _write(self, name: str, size_bytes: int) -> None:
        path, draft = self._folder / name, self._folder / f".{name}"
        if size_bytes <= 0:
            path.unlink(missing_ok=True)
            return
        draft.write_text(str(size_bytes))
        draft.rename(path)


def _counts(name: str) -> bool:
    owner, _, _ = name.partition("-")
    return owner == "stuck" or Path("/proc", owner).exists()


class Held:
    """What this process holds."""

    def __init__(self) -> None:
        self._ballast = bytearray()
        self._card: Card | None = None

    def take(self, options: EchoOptions) -> None:
        """Hold from now on what the model is told to. Raises NoMemory or MemoryError."""
        self._ballast = bytearray(options.ballast_bytes)  # its zeros are written: real pages
        if options.allocate is not None:
            self._card = Card(Path(options.allocate.path))
            self._card.take(str(os.getpid()), options.allocate.size_bytes)

    @asynccontextmanager
    async def more(self, more_bytes: int) -> AsyncIterator[None]:
        """Hold so much more for the length of the block: of the card, if there is one.

        Raises NoMemory or MemoryError.
        """
        if not more_bytes:
            yield
        elif self._card is None:
            ballast = await asyncio.to_thread(bytearray, more_bytes)
            yield
            del ballast
        else:
            name = f"{os.getpid()}-request"  # of all requests together
            self._card.take(name, more_bytes)
            try:
                yield
            finally:
                self._card.give_back(name, more_bytes)
