"""Looks at the devices: what workers hold at their peak, what others use, what comes back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence

from proxy.budget import Budget
from proxy.demand import AT_READY, RequestClass, Source
from proxy.memory import HOST, DeviceLost, GpuMeter, hold, seen_free, tree
from proxy.scheduler import Demand, Device, Measured, State, larger
from proxy.seat import Seat
from proxy.setup import Setup

log = logging.getLogger(__name__)

LOOK_BUSY_S = 0.1  # NVML keeps no peaks: the only way to see one is to look often
LOOK_IDLE_S = 1.0


class Watch:
    """The devices of one server, as far as they can be looked at."""

    def __init__(self, setup: Setup) -> None:
        self._gpus = setup.devices.gpus.meters
        self._lower: dict[Device, int] = {}  # seen once; twice is no accident
        self._lost: dict[Device, str] = {}  # why a device cannot be looked at, while it cannot
        self._take(setup)
        self.budget: dict[Device, int] = dict(setup.demands.budget)

    def _take(self, setup: Setup) -> None:
        self._budgets = setup.devices.budgets
        self._yields = setup.config.gpu.yields

    def reload(self, setup: Setup) -> None:
        """Have other budgets; what others were seen to use of a device is believed further."""
        before, known = self._budgets, self.budget
        self._take(setup)
        self._lower.clear()
        self._lost = {on: why for on, why in self._lost.items() if on in self._budgets}
        self.budget = dict(setup.demands.budget)
        for device, budget in self._budgets.items():
            if budget.limit == "auto" and device in before:
                others = before[device].most_bytes - known[device]
                self.budget[device] = max(0, budget.most_bytes - others)

    @property
    def gpus(self) -> Sequence[GpuMeter]:
        """Give what looks at the GPUs, for who wants to know more of them than their memory."""
        return self._gpus

    @property
    def has_work(self) -> bool:
        """Tell whether there is anything that changes by itself."""
        return bool(self._gpus) or any(one.limit == "auto" for one in self._budgets.values())

    @property
    def counts_bytes(self) -> bool:
        """Tell whether any device has a budget, so that there is more to count than seats."""
        return bool(self._budgets)

    @property
    def alarms(self) -> Iterable[str]:
        return self._lost.values()

    # Footprints

    async def look_at_ready(self, seat: Seat) -> None:
        """Learn what the worker holds before it serves anybody."""
        await self.look_at(seat)
        if peak := self._peak(seat):
            seat.setup.demands.learn(seat.model, AT_READY, peak)

    async def look_at(self, seat: Seat) -> None:
        """Note what the worker holds now. What one held that has just died stays as it was."""
        pid, now = seat.process.pid, asyncio.get_running_loop().time()
        if pid is None or not (self._gpus or self._budgets):
            return
        if now - seat.pids_at >= LOOK_IDLE_S:  # to find them is dearer than to look at them
            seat.pids, seat.pids_at = await asyncio.to_thread(tree, pid) or seat.pids, now
        seat.held = await hold(self._gpus, seat.pids) or seat.held
        for held in seat.held:
            device = held.meter.device
            if device in self._budgets and held.held_bytes is not None:
                seat.peaks[device] = max(seat.peaks.get(device, 0), held.held_bytes)

    def begin(self, seat: Seat, request_class: RequestClass) -> None:
        """Note that the worker serves such a request from now on."""
        seat.classes.add(request_class)
        seat.served_count += 1

    def end(self, seat: Seat, request_class: RequestClass, *, was_well: bool) -> bool:
        """Learn what the worker has held while it served such a request; True: that is news.

        Engines keep what they have once taken: after a larger request, nothing can be learned of
        smaller ones.
        """
        seat.served_count -= 1
        demands = seat.setup.demands
        rank = demands.rank(seat.model, request_class)
        largest = max(demands.rank(seat.model, one) for one in seat.classes)
        peak = self._peak(seat) if was_well and rank >= largest else {}
        return bool(peak) and demands.learn(seat.model, request_class, peak)

    def measured(self, seat: Seat, room: Demand) -> Measured | None:
        """Tell what the worker and its model are now known to need; None: that is not known.

        Then it keeps all there is until it was seen at work. Of what is feared, as much as there
        is room for is counted.
        """
        if not self._budgets:
            return None
        demands = seat.setup.demands
        reckoned = demands.reckon(seat.model)
        if reckoned.source is Source.UNKNOWN:
            return None
        if drift := demands.drifts(seat.model):
            declared, measured = drift
            told = {"model": seat.model, "declared": dict(declared), "measured": dict(measured)}
            log.warning("holds_more_than_declared", extra=told)
        charge = reckoned.within(room)
        for request_class in seat.classes:
            charge = larger(charge, demands.reckon(seat.model, request_class).within(room))
        return Measured(seat.id, charge, reckoned.demand, reckoned.feared)

    def _peak(self, seat: Seat) -> Demand:
        peak = dict(seat.peaks)
        if HOST in self._budgets and (meter := self._budgets[HOST].meter) is not None:
            peak[HOST] = meter.peak_bytes(seat.pids) or 0
        return {device: count for device, count in peak.items() if count}

    # What a worker leaves behind

    async def look_before_stop(self, seat: Seat) -> None:
        """Note what there will be to come back."""
        if self._gpus:
            await self.look_at(seat)

    async def seen_free(self, seat: Seat) -> None:
        """Return when the memory of a worker that is gone is free, if that ever happens."""
        await seen_free(seat.held, within_s=math.inf)

    # What others use

    async def look_first(self) -> None:
        """Find what others use before anything of ours runs."""
        for budget in self._budgets.values():
            now = await self._now(budget, frozenset(), charged=0, stuck=0)
            if now is not None:
                self.budget[budget.device] = now

    async def run(
        self,
        state: State,
        seats: Callable[[], Iterable[Seat]],
        tell: Callable[[Demand], None],
    ) -> None:
        """Look again and again; tell the budget when it has changed."""
        while True:
            await asyncio.sleep(self._pause_s(seats()))  # what others take, nobody tells us
            try:
                await self._look(state, list(seats()))
                tell(dict(self.budget))
            except Exception:  # looking must not end the server
                log.exception("look_broke")

    def _pause_s(self, seats: Iterable[Seat]) -> float:
        is_busy = any(seat.served_count or seat.is_moving for seat in seats)
        return LOOK_BUSY_S if self._gpus and is_busy else LOOK_IDLE_S

    async def _look(self, state: State, seats: list[Seat]) -> None:
        there = [seat for seat in seats if seat.may_load.is_set() and not seat.is_stuck]
        for seat in there:
            if not seat.must_stop.is_set():
                await self.look_at(seat)
        pids = frozenset(pid for seat in there for pid in seat.pids)
        is_steady = not any(seat.is_moving for seat in seats)
        for device, budget in self._budgets.items():
            stuck = sum(w.charge.get(device, 0) for w in state.workers.values() if w.is_stuck)
            charged = state.charged.get(device, 0)
            now = await self._now(budget, pids, charged=charged, stuck=stuck)
            is_current = self._budgets.get(device) is budget  # no reload came in between
            if now is not None and is_steady and is_current:
                self._note_budget(budget, now, charged)

    async def _now(
        self, budget: Budget, pids: frozenset[int], *, charged: int, stuck: int
    ) -> int | None:
        try:
            now = await asyncio.to_thread(budget.now_bytes, pids, charged=charged, stuck=stuck)
        except DeviceLost as error:
            if self._lost.get(budget.device) != str(error):
                log.warning("device_lost", extra={"why": str(error)})
            self._lost[budget.device] = str(error)
            return None
        self._lost.pop(budget.device, None)
        return now

    def _note_budget(self, budget: Budget, now: int, charged: int) -> None:
        """Believe more at once; less only when it is seen twice."""
        device, before = budget.device, self.budget[budget.device]
        if not self._yields:
            now = max(now, min(before, charged))  # who sits may stay
        if not budget.is_news(before, now):
            self._lower.pop(device, None)
        elif now > before:
            self.budget[device] = now
        elif device in self._lower:
            self.budget[device] = max(now, self._lower.pop(device))
        else:
            self._lower[device] = now
