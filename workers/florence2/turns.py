"""One thread for the engine: pictures are looked at in the order they came, and answered together.

A turn looks at one picture after another as long as some wait and there is room among the
questions that are answered together; those who come while it looks join it. So clients that ask
one after the other, as fast as they are answered, fall into step.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from workers import wire
from workers.florence2.answers import Answer
from workers.florence2.engine import Engine, is_out_of_memory
from workers.florence2.rows import Ask, Look, OnText
from workers.florence2.tasks import Question

log = logging.getLogger(__name__)

T = TypeVar("T")

NO_MEMORY = "the device has no memory left for this picture; try again, or fewer at a time"


class Turns:
    """Hands pictures and questions to the engine; `batch` questions are answered together."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self.engine = engine
        self._batch = batch
        self._waiting: deque[Look] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    @contextmanager
    def asked(
        self,
        pixels: torch.Tensor,
        questions: Sequence[Question],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[Sequence[asyncio.Future[Answer]]]:
        """Queue questions about a picture; the block awaits their answers, one future each.

        Leaving the block gives them up: a picture that waits is then never looked at, and work
        under way stops soon. An answer may be an ApiError: 400 for a prompt that is too long, 503
        `capacity_exceeded` when memory ran out.
        """
        look = Look.at(pixels, questions, max_tokens, on_text)
        futures = [asyncio.wrap_future(answer) for answer in look.answers]
        self._waiting.append(look)
        self._thread.submit(self._turn)
        try:
            yield futures
        finally:
            look.left.set()
            for future in futures:
                future.cancel()

    async def answers(
        self, pixels: torch.Tensor, questions: Sequence[Question], max_tokens: int | None = None
    ) -> Sequence[Answer]:
        with self.asked(pixels, questions, max_tokens=max_tokens) as futures:
            return await asyncio.gather(*futures)

    def _turn(self) -> None:
        asks: list[Ask] = []
        while self._waiting and len(asks) < self._batch:  # no other thread takes any
            asks += self._looked(self._waiting.popleft())
        for group in self.engine.together(asks):
            for start in range(0, len(group), self._batch):
                self._answer(group[start : start + self._batch])

    def _looked(self, look: Look) -> Sequence[Ask]:
        """Look at a picture; gives what is asked of it, or nothing if that failed."""
        asks = _tried(lambda: self.engine.look(look))
        if isinstance(asks, Exception):
            _fail(look.answers, asks)
            return ()
        return asks

    def _answer(self, asks: Sequence[Ask]) -> None:
        error = _tried(lambda: self.engine.answer(asks))
        if error is not None and len(asks) > 1:
            for ask in asks:  # alone, as if nobody else had come: it may be the fault of one
                if not ask.answer.done():
                    self._answer([ask])
        elif error is not None:
            _fail([ask.answer for ask in asks], error)


def _tried(work: Callable[[], T]) -> T | Exception:
    """Do a piece of work on the device; gives its result, or what went wrong for its clients."""
    try:
        return work()
    except torch.AcceleratorError:  # also of memory that the driver itself could not get
        log.exception("device_lost")  # nothing on this device can work any more
        os._exit(1)
    except Exception as error:  # noqa: BLE001  # the thread's last door: those who wait are told
        if not is_out_of_memory(error):
            return error
    # only here have the frames of that error let go of their tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return wire.OutOfMemory(NO_MEMORY)


def _fail(answers: Sequence[Future[Answer]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
