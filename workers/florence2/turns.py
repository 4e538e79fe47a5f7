"""One thread for the engine: requests take turns on it, in the order they came."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from workers import wire
from workers.florence2.engine import Engine, Left, is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")


class Turns:
    """Hands work to the engine, one piece at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    @contextmanager
    def started(self, work: Callable[[Engine], T]) -> Iterator[asyncio.Future[T]]:
        """Queue `work`; the block awaits its result, and leaving the block gives it up.

        Work that waits is then never begun, and work under way stops soon. Its result may be an
        ApiError: 503 `capacity_exceeded` when memory ran out.
        """
        left = threading.Event()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._turn, work, left)
        try:
            yield future
        finally:
            left.set()
            future.cancel()

    async def take(self, work: Callable[[Engine], T]) -> T:
        with self.started(work) as future:
            return await future

    def _turn(self, work: Callable[[Engine], T], left: threading.Event) -> T:
        if left.is_set():  # a cancelled future may not have told this thread's queue yet
            raise Left
        try:
            with self.engine.looking(left):
                return work(self.engine)
        except torch.AcceleratorError:  # also of memory that the driver itself could not get
            log.exception("device_lost")  # nothing on this device can work any more
            os._exit(1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # only here have the frames of that error let go of their tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise wire.OutOfMemory(
            "the device has no memory left for this picture; try again, or fewer at a time"
        )
