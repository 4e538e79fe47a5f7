"""Looks at the devices: what workers hold at their peak, what others use, what comes back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from proxy.budget import Devices
from proxy.demand import AT_READY, Demands, RequestClass
from proxy.memory import HOST, DeviceLost, Held, hold, seen_free, tree
from proxy.scheduler import Demand, Device
from proxy.seat import Seat

log = logging.getLogger(__name__)

LOOK_BUSY_S = 0.1  # NVML keeps no peaks: the only way to see one is to look often
LOOK_IDLE_S = 1.0


class Watch:
    """The devices of one server, as far as they can be looked at; nothing here raises."""

    def __init__(self, devices: Devices, demands: Demands, *, yields: bool) -> None:
        self._gpus = devices.gpus.meters
        self._budgets = devices.budgets
        self._demands = demands
        self._yields = yields
        self._told = dict(demands.budget)
        self._lower: dict[Device, int] = {}  # seen once; twice is no accident
        self.lost: str | None = None  # why a device cannot be looked at, while it cannot

    @property
    def has_work(self) -> bool:
        """Tell whether there is anything that changes by itself."""
        return bool(self._gpus) or any(one.limit == "auto" for one in self._budgets.values())

    # Footprints

    async def look_at_ready(self, seat: Seat) -> None:
        """Learn what the worker holds before it serves anybody."""
        if not self._budgets or seat.process.pid is None:
            return
        seat.pids = await asyncio.to_thread(tree, seat.process.pid)
        seat.held = await hold(self._gpus, seat.pids)
        self._note_peaks(seat)
        if peak := self._peak(seat):
            self._demands.learn(seat.model, AT_READY, peak)

    def begin(self, seat: Seat, request_class: RequestClass) -> None:
        """Note that the worker serves such a request from now on."""
        seat.classes.add(request_class)
        if request_class == seat.serves:
            return
        seat.serves, seat.peaks = request_class, {}
        if HOST in self._budgets and (meter := self._budgets[HOST].meter) is not None:
            meter.forget_peaks(seat.pids)

    def end(self, seat: Seat, request_class: RequestClass) -> bool:
        """Learn what the worker has held while it served it; True when that is news."""
        peak = self._peak(seat) if request_class == seat.serves else {}
        return bool(peak) and self._demands.learn(seat.model, request_class, peak)

    def _peak(self, seat: Seat) -> Demand:
        peak = dict(seat.peaks)
        if HOST in self._budgets and (meter := self._budgets[HOST].meter) is not None:
            peak[HOST] = meter.peak_bytes(seat.pids) or 0
        return {device: count for device, count in peak.items() if count}

    def _note_peaks(self, seat: Seat) -> None:
        for held in seat.held:
            device = held.meter.device
            if device in self._budgets and held.held_bytes is not None:
                seat.peaks[device] = max(seat.peaks.get(device, 0), held.held_bytes)

    # What a worker leaves behind

    async def seen_free(self, held: Iterable[Held]) -> None:
        """Return when the memory of a worker that is gone is free, if that ever happens."""
        await seen_free(held, within_s=math.inf)

    # What others use

    async def run(
        self,
        seats: Callable[[], Iterable[Seat]],
        charged: Callable[[], Demand],
        tell: Callable[[Demand], None],
    ) -> None:
        """Look again and again; tell the budget when it has changed."""
        while True:
            loaded = [seat for seat in seats() if seat.pids and not seat.must_stop.is_set()]
            await self._look(loaded, charged(), is_steady=len(loaded) == len(list(seats())))
            budget = {**self._demands.budget, **self._told}
            tell(budget)
            await asyncio.sleep(LOOK_BUSY_S if self._gpus and loaded else LOOK_IDLE_S)

    async def _look(self, loaded: list[Seat], charged: Demand, *, is_steady: bool) -> None:
        try:
            for seat in loaded:
                seat.held = await hold(self._gpus, seat.pids) or seat.held
                self._note_peaks(seat)
            pids = frozenset().union(*(seat.pids for seat in loaded))
            for device, budget in self._budgets.items():
                now = await asyncio.to_thread(budget.now_bytes, pids, charged.get(device, 0))
                self._note_budget(device, now, charged.get(device, 0), is_steady=is_steady)
        except DeviceLost as error:
            if self.lost is None:
                log.warning("device_lost", extra={"why": str(error)})
            self.lost = str(error)
        else:
            self.lost = None

    def _note_budget(self, device: Device, now: int, charged: int, *, is_steady: bool) -> None:
        """Believe more at once; less only when it is seen twice, and nobody is on his way."""
        if not self._yields:
            now = max(now, charged)
        before = self._told[device]
        if not self._budgets[device].is_news(before, now):
            self._lower.pop(device, None)
        elif now > before:
            self._told[device] = now
        elif is_steady and device in self._lower:
            self._told[device] = max(now, self._lower.pop(device))
        elif is_steady:
            self._lower[device] = now
