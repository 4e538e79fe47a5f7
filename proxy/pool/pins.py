"""Loads what nobody has asked for: the pinned, as often as it takes, and the preloaded, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from proxy.config import Config
from proxy.errors import HotseatError
from proxy.seat import Lease

log = logging.getLogger(__name__)

RETRY_S = 60.0


class Lend(Protocol):
    """Gives a lease of a model, for a cause."""

    def __call__(self, model: str, *, cause: str) -> AbstractAsyncContextManager[Lease]: ...


class Pins:
    """The wishes of the config itself."""

    def __init__(
        self,
        config: Callable[[], Config],
        lend: Lend,
        is_closing: asyncio.Event,
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._config = config
        self._lend = lend
        self._is_closing = is_closing
        self._spawn = spawn
        self._kept: set[str] = set()  # for whom somebody is at it
        self._news = asyncio.Event()

    def keep(self, model: str) -> None:
        """See to it that the model is loaded, if it is pinned."""
        if self._is_pinned(model) and model not in self._kept:
            self._kept.add(model)
            self._spawn(self._keep(model))

    def keep_all(self) -> None:
        """See to all of them, and try at once where a try has failed under another config."""
        self.wake()
        for model in self._config().models:
            self.keep(model)

    def wake(self) -> None:
        """Let nobody wait for his next try: the config is another one, or the server closes."""
        self._news.set()
        self._news = asyncio.Event()

    def preload(self) -> None:
        """Load what the config names for the start, one after the other."""
        self._spawn(self._preload(self._config().preload))

    def _is_pinned(self, model: str) -> bool:
        known = self._config().models.get(model)
        return known is not None and known.pin and not self._is_closing.is_set()

    async def _keep(self, model: str) -> None:
        """Try again as often as it fails, each time when it cools down."""
        try:
            while self._is_pinned(model):
                pause_s = await self._load(model, "pin")
                if pause_s is None or not self._is_pinned(model):
                    return  # it may have failed because the server closes: that wakes nobody again
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
        finally:
            self._kept.discard(model)

    async def _preload(self, models: tuple[str, ...]) -> None:
        for model in models:
            if not self._is_closing.is_set():
                await self._load(model, "preload")

    async def _load(self, model: str, cause: str) -> float | None:
        """Load it; gives when to try again, if it failed."""
        try:
            async with self._lend(model, cause=cause):
                return None
        except HotseatError as error:
            told = {"model": model, "cause": cause, "why": error.message}
            log.warning("load_failed", extra=told)
            return error.retry_after_s or RETRY_S
