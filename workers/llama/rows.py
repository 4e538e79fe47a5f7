"""What the inference thread knows of each answer, and of each sequence of its context."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from workers.llama.album import Item, bare
from workers.llama.sampling import Sampled, Sampler
from workers.llama.timings import Stopwatch

Finish = Literal["stop", "length", "error", "out_of_memory"]


@dataclass(eq=False, slots=True)
class Generation:
    """One answer to make. From `submit` to `on_end` it is the inference thread's.

    `on_token` says whether to go on. Both callbacks run on the inference thread; `on_end` is the
    last, and comes exactly once, also after a cancel.
    """

    prompt: Sequence[Item]
    sampler: Sampler
    max_tokens: int | None
    on_token: Callable[[Sampled], bool]
    on_end: Callable[[Finish], None]
    cached_tokens: int = 0  # cells of the prompt that were found in the cache
    generated: list[int] = field(default_factory=list)
    watch: Stopwatch = field(default_factory=Stopwatch)
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class Row:
    """One of the context's sequences: what is, and what shall be, in its part of the cache."""

    id: int
    items: list[Item] = field(default_factory=list)
    done: int = 0  # items in the cache
    position: int = 0  # of the next item
    generation: Generation | None = None
    turn: int = 0  # when it was last given a generation

    def awaits(self, kind: type[Item]) -> bool:
        """Say whether the next thing to decode for its generation is of that kind."""
        return self.generation is not None and isinstance(self.items[self.done], kind)

    def tokens_ahead(self, most: int) -> list[int]:
        """Give the tokens to decode next, up to the next picture."""
        ahead = self.items[self.done : self.done + most]
        return list(itertools.takewhile(lambda item: isinstance(item, int), ahead))  # type: ignore[arg-type]  # so they are

    @property
    def held(self) -> list[Item]:
        """What is in the cache."""
        return self.items[: self.done]

    def rest(self) -> None:
        """Be left by a generation: what is in the cache stays, for the next that begins so."""
        self.generation = None
        self.items = bare(self.held)


def common(left: Sequence[Item], right: Sequence[Item]) -> int:
    """Count the items that both begin with."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
