"""News for whoever listens: bounded for each, and free when nobody does. Loop thread only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from proxy.config import Owner

NEWS = 1024  # for each listener; a slower one loses the oldest

News = tuple[str, object]
"""What kind of news, and what it says: something that `json` can write."""


@dataclass(slots=True, eq=False)
class Listener:
    """What one reader has not been told yet."""

    sees: Callable[[Owner | None], bool]  # what has this owner; None: it is nobody's
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    news: deque[News] = field(default_factory=lambda: deque(maxlen=NEWS))
    has_lost: bool = False
    is_over: bool = False  # the server is about to leave

    def hear(self, kind: str, data: object) -> None:
        self.has_lost |= len(self.news) == NEWS
        self.news.append((kind, data))
        self.wake.set()

    def take(self) -> list[News]:
        """Give what is new, and forget it."""
        self.wake.clear()
        news = list(self.news)
        self.news.clear()
        return news


class Feed:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    @property
    def is_heard(self) -> bool:
        """Tell whether anybody listens: who has to work for his news asks first."""
        return bool(self._listeners)

    def tell(self, kind: str, data: object, owner: Owner | None = None) -> None:
        for listener in self._listeners:
            if listener.sees(owner):
                listener.hear(kind, data)

    @contextmanager
    def listening(self, sees: Callable[[Owner | None], bool]) -> Iterator[Listener]:
        """Listen to what `sees` lets through, for the length of the block."""
        listener = Listener(sees)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Let every listener go."""
        for listener in self._listeners:
            listener.is_over = True
            listener.wake.set()


FEED = web.AppKey("feed", Feed)
