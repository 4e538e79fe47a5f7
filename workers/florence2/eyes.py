"""Pictures as they came → what the engine looks at, while it works on others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from workers import pictures
from workers.florence2.engine import Engine


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture that is ready for the engine; of a large one little is left."""

    pixels: torch.Tensor
    width: int  # px of the upright original
    height: int


class Eyes:
    """Decodes one picture at a time: so many large ones never lie in memory together."""

    def __init__(self, engine: Engine, max_pixels: int) -> None:
        self._engine = engine
        self._max_pixels = max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    async def see(self, read: Callable[[], bytes], *, param: str) -> Seen:
        """Decode what `read` gives, on a thread. Raises ApiError 400."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._seen, read, param)

    def _seen(self, read: Callable[[], bytes], param: str) -> Seen:
        picture = pictures.decode(
            read(), param=param, side_px=self._engine.side_px, max_pixels=self._max_pixels
        )
        return Seen(self._engine.prepare(picture.image), picture.width, picture.height)
