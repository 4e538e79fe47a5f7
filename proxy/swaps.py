"""What each swap took, part by part: kept, logged and measured once it is told."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proxy.metrics import Metrics

log = logging.getLogger(__name__)

KEPT = 200


@dataclass(frozen=True, slots=True)
class Victim:
    """Who left, why, and what it took, in seconds."""

    model: str
    cause: str
    made_room_for: str | None
    at: float  # the loop's time when its memory was free
    drain_s: float  # until its last request was done
    stop_s: float  # until its process was gone
    memory_free_s: float  # until the device had its memory back


@dataclass(slots=True)
class Swap:
    """How a model came to its seat; durations in seconds, None for what did not happen.

    spawn: process up, files checked · import: the engine's code · read: its files, ahead, while it
    waits · wait: for memory, which others drain, stop and give back · load · first_byte: from
    ready to the first byte of an answer.
    """

    model: str
    cause: str  # request, load (asked for by hand), pin
    at: float = field(default_factory=time.time)  # asked for, wall clock
    victims: Sequence[Victim] = ()
    spawn_s: float | None = None
    import_s: float | None = None
    read_s: float | None = None
    wait_s: float | None = None
    load_s: float | None = None
    first_byte_s: float | None = None
    total_s: float = 0.0  # from asked to ready, or to the failure
    error: str | None = None
    is_told: bool = False

    def phases(self) -> Iterator[tuple[str, float]]:
        """Yield what is known of how long each part took."""
        for name in ("drain", "stop", "memory_free"):
            times = [getattr(victim, f"{name}_s") for victim in self.victims]
            if times:
                yield name, max(times)
        for name in ("spawn", "import", "read", "wait", "load", "first_byte", "total"):
            seconds = getattr(self, f"{name}_s")
            if seconds is not None:
                yield name, seconds

    def as_json(self) -> dict[str, object]:
        victims = [
            {
                "model": v.model,
                "drain_s": v.drain_s,
                "stop_s": v.stop_s,
                "memory_free_s": v.memory_free_s,
            }
            for v in self.victims
        ]
        seconds = {f"{name}_s": round(value, 4) for name, value in self.phases()}
        return {
            "model": self.model,
            "at": self.at,
            "cause": self.cause,
            "victims": victims,
            **seconds,
            "error": self.error,
        }


class SwapLog:
    """The last swaps, newest last."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._swaps: deque[Swap] = deque(maxlen=KEPT)
        self._left: deque[Victim] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[Swap]:
        return iter(self._swaps)

    def add(self, swap: Swap, since: float) -> None:
        """Keep it; victims are those who made room for it since then, by the loop's time."""
        swap.victims = [v for v in self._left if v.at >= since and v.made_room_for == swap.model]
        self._swaps.append(swap)

    def note_departure(self, victim: Victim) -> None:
        self._left.append(victim)
        self._metrics.departures.labels(victim.model, victim.cause).inc()

    def tell(self, swap: Swap) -> None:
        """Say it, once: one line, and what it took in the histograms."""
        if swap.is_told:
            return
        swap.is_told = True
        phases = {f"{name}_s": seconds for name, seconds in swap.phases()}
        left = ",".join(victim.model for victim in swap.victims) or "nobody"
        if swap.error is None:
            log.info(
                "swap", extra={"came": swap.model, "left": left, "cause": swap.cause, **phases}
            )
        for name, seconds in swap.phases():
            self._metrics.swap_seconds.labels(swap.model, name).observe(seconds)
