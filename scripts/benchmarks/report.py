"""Figures into tables that fit a README, and into JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from scripts.benchmarks.client import Outcome
from scripts.benchmarks.traces import Trace

HEAD = """\
| trace | took | swaps | errors | model | requests | first byte: median | p99 | worst |
|---|--:|--:|--:|---|--:|--:|--:|--:|"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a trace came to."""

    trace: Trace
    makespan_s: float
    swaps: int
    outcomes: Sequence[Outcome]
    remark: str

    @property
    def errors(self) -> list[str]:
        return [outcome.error for outcome in self.outcomes if outcome.error is not None]


@dataclass(frozen=True, slots=True)
class Waits:
    """How long requests waited for the first byte of an answer."""

    requests: int
    p50_s: float
    p99_s: float
    max_s: float


def workers_seen(outcomes: Sequence[Outcome]) -> int:
    """Count the loads that served somebody."""
    return len({(outcome.model, outcome.worker) for outcome in outcomes if outcome.worker})


def rows(result: Result) -> Iterator[str]:
    """Write the trace's part of the table: a row for each model."""
    left = [
        result.trace.name,
        f"{result.makespan_s:.1f} s",
        str(result.swaps),
        str(len(result.errors)),
    ]
    for name, waits in by_model(result).items():
        told = [f"{seconds:.2f} s" for seconds in (waits.p50_s, waits.p99_s, waits.max_s)]
        yield f"| {' | '.join([*left, name, str(waits.requests), *told])} |"
        left = [""] * len(left)


def by_model(result: Result) -> Mapping[str, Waits]:
    groups: dict[str, list[float]] = {}
    for outcome in result.outcomes:
        if outcome.first_byte_s is not None:
            name = outcome.model.removeprefix(f"{result.trace.name}-")
            key = f"{len(result.trace.models)} together" if result.trace.in_one_row else name
            groups.setdefault(key, []).append(outcome.first_byte_s)
    return {name: waits_of(groups[name]) for name in sorted(groups)}


def waits_of(seconds: Sequence[float]) -> Waits:
    return Waits(len(seconds), *(percentile(seconds, part) for part in (0.5, 0.99, 1.0)))


def percentile(values: Sequence[float], part: float) -> float:
    """Give the smallest value that `part` of all are not above."""
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


def as_data(result: Result) -> dict[str, object]:
    """Tell everything, for a JSON file."""
    return {
        "trace": result.trace.name,
        "about": result.trace.about,
        "makespan_s": result.makespan_s,
        "swaps": result.swaps,
        "errors": result.errors,
        "remark": result.remark,
        "models": {name: asdict(waits) for name, waits in by_model(result).items()},
        "outcomes": [asdict(outcome) for outcome in result.outcomes],
    }
