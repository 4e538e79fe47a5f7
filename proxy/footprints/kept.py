"""Learning, and forgetting what was not used for long."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from proxy.footprints.file import load, write
from proxy.footprints.values import Digest, Footprint, Key, Known, Times, most
from proxy.scheduler.types import Demand, ModelName

log = logging.getLogger(__name__)

MOST_KEPT = 500  # footprints, and as many times; the longest unused go first
TELLING = 1.01  # a peak that has grown by less is no news
CALM_RUNS = 3  # a neighbour of ours may have taken the memory that was missing
MORE_AFTER_FAILURE = 1.25  # than what was not enough
NEWEST_WEIGHS = 0.3  # in the mean of the times


class Footprints:
    """All that is known, loaded from the file if there is one; None: kept in memory only.

    No method raises for what is wrong with the file or the disk: that is logged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._has_warned = False
        known = load(path) if path else Known()
        self._peaks, self._times = dict(known.peaks), dict(known.times)

    def peak(self, model: ModelName, digest: Digest, request_class: str) -> Demand | None:
        found = self._peaks.get(Key(model, digest, request_class))
        return found.peak if found and found.runs else None

    def feared(self, model: ModelName, digest: Digest, request_class: str) -> Demand:
        """Tell what it may need, as less was not enough; nothing when all has gone well since."""
        found = self._peaks.get(Key(model, digest, request_class))
        return found.feared if found else {}

    def classes(self, model: ModelName, digest: Digest) -> Mapping[str, Demand]:
        """Give the peaks of the model by class of request."""
        return {
            key.request_class: one.peak
            for key, one in self._peaks.items()
            if key[:2] == (model, digest)
        }

    def runs(self, model: ModelName, digest: Digest, request_class: str) -> int:
        """Count how often its peak was measured."""
        found = self._peaks.get(Key(model, digest, request_class))
        return found.runs if found else 0

    def learn(
        self, model: ModelName, digest: Digest, request_class: str, peak: Demand, *, now: float
    ) -> bool:
        """Take in a measured peak; True when that is news: it grew by more than 1 %."""
        key = Key(model, digest, request_class)
        before = self._peaks.get(key, Footprint())
        grown = most(before.peak, peak)
        is_news = any(count > TELLING * before.told.get(on, 0) for on, count in grown.items())
        told = grown if is_news else before.told
        calm_runs = before.calm_runs + 1 if before.feared else 0
        is_over = calm_runs >= CALM_RUNS  # it was something else, or is seen in the peak now
        self._keep_peak(
            key,
            Footprint(
                grown,
                told,
                before.runs + 1,
                now,
                feared={} if is_over else before.feared,
                calm_runs=0 if is_over else calm_runs,
            ),
        )
        return is_news or is_over

    def note_out_of_memory(
        self, model: ModelName, digest: Digest, request_class: str, had: Demand, *, now: float
    ) -> None:
        """Reckon with more than what was not enough, until enough runs have gone well."""
        key = Key(model, digest, request_class)
        before = self._peaks.get(key, Footprint())
        feared: Demand = {device: int(count * MORE_AFTER_FAILURE) for device, count in had.items()}
        feared = most(before.feared, feared)
        told = most(before.told, feared)
        self._keep_peak(key, replace(before, told=told, feared=feared, calm_runs=0, used_at=now))

    def load_s(self, model: ModelName, digest: Digest) -> float | None:
        return self._times.get((model, digest), Times()).load_s

    def service_s(self, model: ModelName, digest: Digest) -> float | None:
        return self._times.get((model, digest), Times()).service_s

    def note_times(
        self,
        model: ModelName,
        digest: Digest,
        *,
        now: float,
        load_s: float | None = None,
        service_s: float | None = None,
    ) -> None:
        """Take in how long a load or a request has taken."""
        before = self._times.get((model, digest), Times())
        self._times[model, digest] = Times(
            _mean(before.load_s, load_s), _mean(before.service_s, service_s), now
        )
        _forget_oldest(self._times)

    def save(self) -> None:
        """Write the file anew, all or nothing; blocks for an fsync. May run in another thread."""
        if self._path is None:
            return
        # copied first: the loop thread may go on learning
        known = Known(dict(self._peaks), dict(self._times))
        try:
            write(self._path, known)
        except (OSError, ValueError) as error:
            if not self._has_warned:
                told = {"path": str(self._path), "error": str(error)}
                log.warning("footprints_not_saved", extra=told)
            self._has_warned = True
        else:
            self._has_warned = False

    def _keep_peak(self, key: Key, footprint: Footprint) -> None:
        self._peaks[key] = footprint
        _forget_oldest(self._peaks)


def _mean(before: float | None, newest: float | None) -> float | None:
    if before is None or newest is None:
        return before if newest is None else newest
    return before + NEWEST_WEIGHS * (newest - before)


K = TypeVar("K")
V = TypeVar("V", Footprint, Times)


def _forget_oldest(kept: dict[K, V]) -> None:
    while len(kept) > MOST_KEPT:
        del kept[min(kept, key=lambda key: kept[key].used_at)]
