"""The engine's thread and the queue before it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from PIL import Image

from workers import serve
from workers.sd.engine import Engine, OutOfMemory, PaintFailed
from workers.sd.job import Job, Step
from workers.sd.options import SdOptions

log = logging.getLogger(__name__)

GIVEN_UP = 75
"""The exit status of a process whose engine works on for nobody (EX_TEMPFAIL of sysexits.h)."""

MOST_UNHEARD = 32
"""Steps that wait for who listens slowly; previews are pictures, and would fill the memory."""


class Painter:
    """Paints one picture at a time, in the order of asking."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "engine")
        self._engine: Engine | None = None
        self._wanted = 0
        self._painted = 0
        self._dropped = 0
        self._cancel_after_s = 0.0

    def load(
        self, options: SdOptions, warm_up: Job, *, flash_attn: bool, progress: serve.Progress
    ) -> bool:
        """Load the model and paint once, so that what aborts does it now; call from a thread.

        Returns whether pictures can be stopped under way. Raises serve.LoadFailed.
        """
        self._cancel_after_s = options.cancel_after_s

        def work() -> Engine:
            engine = Engine(self._cannot_stop)
            engine.load(options, flash_attn, progress)
            try:
                engine.paint(warm_up, 0, threading.Event(), lambda _: None)
            except OutOfMemory as error:
                raise serve.LoadFailed("out_of_memory", str(error)) from error
            except PaintFailed as error:
                raise serve.LoadFailed("engine_error", str(error)) from error
            return engine

        self._engine = self._thread.submit(work).result()
        return self._engine.can_stop

    @property
    def counts(self) -> dict[str, int]:
        """Requests under way; pictures painted, and dropped because their client left."""
        return {"wanted": self._wanted, "painted": self._painted, "dropped": self._dropped}

    async def paint(self, job: Job, seed: int) -> AsyncGenerator[Step | Image.Image, None]:
        """Paint in turn: yields the steps, and the picture at last. Close it to leave.

        Who leaves before has no turn; after, the engine is stopped. Who listens slowly misses
        steps. Raises PaintFailed.
        """
        assert self._engine is not None, "load comes first"  # noqa: S101  # the shell's promise
        loop = asyncio.get_running_loop()
        left = threading.Event()
        seen: asyncio.Queue[Step | None] = asyncio.Queue()

        def put(step: Step) -> None:
            if seen.qsize() < MOST_UNHEARD:
                seen.put_nowait(step)

        def tell(step: Step) -> None:
            loop.call_soon_threadsafe(put, step)

        engine = self._engine
        painted = loop.run_in_executor(self._thread, engine.paint, job, seed, left, tell)
        painted.add_done_callback(lambda _: seen.put_nowait(None))
        try:
            while (step := await seen.get()) is not None:
                yield step
            image = await painted
        finally:
            if not painted.done():
                left.set()
                painted.cancel()
                self._dropped += 1
        self._painted += 1
        yield image

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Keep the process for as long as the block, whoever else leaves."""
        self._wanted += 1
        try:
            yield
        finally:
            self._wanted -= 1

    def _cannot_stop(self, remaining_s: float) -> None:
        """Give the process up, if that is cheaper than to paint on for nobody."""
        if remaining_s > self._cancel_after_s and self._wanted == 0:
            log.warning("given_up: nobody wants the picture of another %.0f s", remaining_s)
            os._exit(GIVEN_UP)
