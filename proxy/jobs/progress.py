"""How far a worker is with its jobs, as it says itself at `GET /progress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from proxy.seat import Seat

ASKED_WITHIN_S = 1.0

Count = Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a job that runs; None: the worker does not say."""

    step: int | None = None  # of the picture that is painted now
    steps: int | None = None
    image: int | None = None
    images: int | None = None
    eta_s: float | None = None
    preview: str | None = None  # base64 of a small picture

    @property
    def part(self) -> float:
        """Tell how much of the whole is done, 0 to 1."""
        of_image = min(1.0, (self.step or 0) / self.steps) if self.steps else 0.0
        before = max(0, (self.image or 1) - 1)
        return min(1.0, (before + of_image) / max(1, self.images or 1))

    def as_json(self) -> Mapping[str, object]:
        return {
            "step": self.step,
            "steps": self.steps,
            "image": self.image,
            "images": self.images,
            "eta_s": self.eta_s,
        }


class _Told(BaseModel):
    id: str
    step: Count = None
    steps: Count = None
    image: Count = None
    images: Count = None
    eta_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    preview: str | None = None


class _Answer(BaseModel):
    jobs: list[_Told] = []


async def ask(seat: Seat) -> Mapping[str, Progress]:
    """Ask a worker of ours how far it is with each job; who does not answer knows nothing."""
    if seat.process.session.closed:
        return {}  # it is gone, and its request is about to hear of that
    limit = aiohttp.ClientTimeout(total=ASKED_WITHIN_S)
    url = f"{seat.process.url}/progress?preview=1"
    try:
        async with seat.process.session.get(url, timeout=limit) as answer:
            told = _Answer.model_validate_json(await answer.read())
    except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
        return {}
    return {
        one.id: Progress(one.step, one.steps, one.image, one.images, one.eta_s, one.preview)
        for one in told.jobs
    }
