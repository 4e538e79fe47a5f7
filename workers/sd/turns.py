"""The requests under way: how far each is, and how others than its client end one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL import Image

from workers import wire
from workers.sd.job import Step


class Interrupted(wire.ApiError):
    """The request was ended by `POST /interrupt`; to send it again would undo that."""

    headers: Mapping[str, str] = {"x-should-retry": "false"}

    def __init__(self) -> None:
        super().__init__(409, "the painting was interrupted, as asked", code="interrupted")


class Turn:
    """One request under way. Belongs to the event loop."""

    def __init__(self, job: str, task: asyncio.Task[Any]) -> None:
        self.job = job
        self.image = 1
        self.images = 1
        self.step = 0
        self.steps = 0
        self.preview: Image.Image | None = None
        self.is_interrupted = False
        self._task = task
        self._step_s: float | None = None

    def plan(self, steps: int, images: int) -> None:
        """Say how much there is to do."""
        self.steps, self.images = steps, images

    def begin(self, image: int) -> None:
        """Begin with a picture, counted from 1."""
        self.image, self.step, self.preview = image, 0, None

    def take(self, step: Step) -> None:
        """Be one step further."""
        self.step, self.steps, self.preview = step.step, step.steps, step.preview
        if step.step > 0:
            self._step_s = step.step_s

    def interrupt(self) -> None:
        """End the request at its next step."""
        self.is_interrupted = True
        self._task.cancel()

    @property
    def eta_s(self) -> float | None:
        """Seconds of steps that are left, decoding aside; None before the first one is done."""
        if self._step_s is None:
            return None
        left = self.steps - self.step + (self.images - self.image) * self.steps
        return round(left * self._step_s, 3)

    @property
    def progress(self) -> dict[str, object]:
        """Tell it as JSON."""
        return {
            "step": self.step,
            "steps": self.steps,
            "image": self.image,
            "images": self.images,
            "eta_s": self.eta_s,
        }


class Turns:
    """All requests under way, in the order of their coming."""

    def __init__(self) -> None:
        self._open: list[Turn] = []

    def __iter__(self) -> Iterator[Turn]:
        return iter(tuple(self._open))

    @contextmanager
    def open(self, job: str) -> Iterator[Turn]:
        """Be listed for the length of the block. Raises Interrupted."""
        task = asyncio.current_task()
        assert task is not None, "handlers run in tasks"  # noqa: S101  # asyncio's promise
        turn = Turn(job, task)
        self._open.append(turn)
        try:
            yield turn
        except asyncio.CancelledError:
            # where the client left as well, that comes first: nobody is there to be answered
            if turn.is_interrupted and task.uncancel() == 0:
                raise Interrupted from None
            raise
        finally:
            self._open.remove(turn)

    def interrupt(self, job: str | None) -> list[str]:
        """Interrupt one job, or all; returns those that were under way."""
        ended = [turn for turn in self if job in (None, turn.job) and not turn.is_interrupted]
        for turn in ended:
            turn.interrupt()
        return [turn.job for turn in ended]
