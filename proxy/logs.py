"""What happened: our own lines, every worker's output, and who wants to follow them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

HISTORY_BYTES = 100 << 10  # for each source
LINE_BYTES = 4 << 10  # a longer line is cut
FOLLOWER_LINES = 1000  # a slower follower loses the oldest
PROXY, UPSTREAM = "proxy", "upstream"
"""Sources: our own lines, and those of all workers together."""

Hear = Callable[[str, str], None]
"""What is called with the source and the text of each new line."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class Source:
    """The last lines of one writer, bounded in bytes."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._bytes = 0

    def append(self, line: str) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        while self._bytes > HISTORY_BYTES:
            self._bytes -= len(self._lines.popleft())

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)


class LogHub:
    """All sources by name (`proxy`, or a model's id), and their followers. Loop thread only."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._followers: dict[Hear, str | None] = {}

    def write(self, source: str, line: str) -> None:
        line = line[:LINE_BYTES]
        self._sources.setdefault(source, Source()).append(line)
        for hear, wanted in self._followers.items():
            if _is_wanted(source, wanted):
                hear(source, line)

    def history(self, wanted: str | None = None) -> list[str]:
        """Give the kept lines of one source, of all workers or of all, source by source."""
        names = [name for name in self._sources if _is_wanted(name, wanted)]
        return [line for name in names for line in self._sources[name]]

    @contextmanager
    def told_to(self, hear: Hear, wanted: str | None = None) -> Iterator[None]:
        """Let `hear` have every new line for the length of the block; it must not block."""
        self._followers[hear] = wanted
        try:
            yield
        finally:
            del self._followers[hear]

    @contextmanager
    def following(self, wanted: str | None = None) -> Iterator[AsyncIterator[str]]:
        """Follow new lines for the length of the block; None follows every source."""
        queue: asyncio.Queue[str] = asyncio.Queue(FOLLOWER_LINES)

        def keep(_source: str, line: str) -> None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(line)

        with self.told_to(keep, wanted):
            yield _lines_of(queue)


def _is_wanted(source: str, wanted: str | None) -> bool:
    return wanted in (None, source) or (wanted == UPSTREAM and source != PROXY)


async def _lines_of(queue: asyncio.Queue[str]) -> AsyncIterator[str]:
    while True:
        yield await queue.get()


class HubHandler(logging.Handler):
    """Puts our own log lines into the hub, and shows them; each is made once."""

    def __init__(self, hub: LogHub, shown_on: TextIO | None) -> None:
        super().__init__()
        self._hub = hub
        self._shown_on = shown_on
        self.setFormatter(EventFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self._hub.write(PROXY, line)
        if self._shown_on is not None:
            with suppress(OSError):  # nobody is there to see it any more
                self._shown_on.write(f"{line}\n")
                self._shown_on.flush()


class EventFormatter(logging.Formatter):
    """`2026-11-21T12:30:01 info swap model=painter load_s=0.61`: the event's name, then its data.

    A value with spaces or quotes is a JSON string, as in logfmt.
    """

    def __init__(self) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        data = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        told = [
            self.formatTime(record, self.datefmt),
            record.levelname.lower(),
            record.getMessage(),
            *(f"{key}={_quoted(value)}" for key, value in data.items()),
        ]
        text = " ".join(told)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    is_plain = text and text.isprintable() and " " not in text and '"' not in text
    return text if is_plain else json.dumps(text, ensure_ascii=not text.isprintable())
