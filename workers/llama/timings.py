"""What the engine took for an answer: measured as it goes, told in llama-server's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Stopwatch:
    """Measures one generation: its prompt, up to the first step, and the steps after that.

    A step ends with a token, or with the model's word that there are no more.
    """

    steps: int = 0  # after the first
    _began_at: float | None = None
    _first_at: float | None = None
    _last_at: float | None = None

    def begin(self, at: float) -> None:
        self._began_at = at

    def step(self, at: float) -> None:
        if self._first_at is None:
            self._first_at = at
        else:
            self.steps += 1
        self._last_at = at

    @property
    def prompt_s(self) -> float:
        """Tell how long the prompt took; 0 when it was not seen to its end."""
        return _between(self._began_at, self._first_at)

    @property
    def steps_s(self) -> float:
        return _between(self._first_at, self._last_at)


@dataclass(frozen=True, slots=True)
class Work:
    """What was done for one generation."""

    prompt: int  # of its tokens, those that were computed
    cached: int  # and those that were not
    generated: int
    prompt_s: float
    steps: int
    steps_s: float


def told(works: Iterable[Work]) -> dict[str, object]:
    """Write llama-server's `timings` of all generations together; without what is not known.

    The first token comes with the prompt. So the speed is that of the steps after it, which an
    answer of a single token has none of.
    """
    all_works = list(works)
    prompt = sum(work.prompt for work in all_works)
    steps = sum(work.steps for work in all_works)
    return {
        "cache_n": sum(work.cached for work in all_works),
        "prompt_n": prompt,
        **_pace("prompt", prompt, sum(work.prompt_s for work in all_works)),
        "predicted_n": sum(work.generated for work in all_works),
        **_pace("predicted", steps, sum(work.steps_s for work in all_works)),
    }


def _pace(name: str, count: int, seconds: float) -> dict[str, object]:
    if not count or not seconds:
        return {}
    return {
        f"{name}_ms": 1000 * seconds,
        f"{name}_per_token_ms": 1000 * seconds / count,
        f"{name}_per_second": count / seconds,
    }


def _between(begin_at: float | None, end_at: float | None) -> float:
    return 0.0 if begin_at is None or end_at is None else end_at - begin_at
