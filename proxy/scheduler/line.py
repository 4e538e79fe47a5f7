"""The line for memory and company: who may go on, whom nobody before him keeps from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.scheduler.amounts import fits, missing
from proxy.scheduler.company import Sitter, choose
from proxy.scheduler.queue import PRIORITY_S
from proxy.scheduler.state import Place, State, Worker
from proxy.scheduler.types import Demand, Device, Model, ModelName, Phase


@dataclass(frozen=True, slots=True)
class Turn:
    """A model in the line that nobody before it keeps from going on."""

    model: Model
    place: Place
    demand: Demand  # to load; or to grow by, when it is seated
    worker: Worker | None  # its coming process, or the seated one that must grow
    fits: bool  # into what is free now
    lack: Demand  # what is still missing once everyone who is leaving has left
    in_the_way: tuple[Worker, ...]  # who may not be there when it loads

    @property
    def may_take(self) -> bool:
        """Is ready to use memory as soon as there is some."""
        return self.worker is not None and self.worker.phase in (Phase.PREPARED, Phase.READY)

    @property
    def expels(self) -> list[Worker]:
        """List who has to leave for it, and would not for any other reason."""
        return [worker for worker in self.in_the_way if not worker.is_leaving]

    @property
    def is_head(self) -> bool:
        """Waits for others to leave who have to be asked."""
        return self.may_take and bool(self.lack or self.expels)


def turns(state: State) -> list[Turn]:
    """Walk the line, and list all whom nobody before them keeps from going on.

    Who comes later may only have what those before him leave: what they demand is set aside for
    them, his turn or not. Where one of them lacks something, nobody behind him gets anything.
    """
    walk = _Walk(state)
    out: list[Turn] = []
    for name, place in state.line.items():
        if walk.is_over:
            break
        turn = walk.next(state.models[name], place)
        if turn is not None:
            out.append(turn)
    return out


class _Walk:
    """How far the line is walked, and what is left for those who come now."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._free = state.free()  # now
        self._hope = dict(self._free)  # once everyone who is leaving has left
        self._workers: dict[ModelName, Worker] = {}
        for worker in state.workers.values():
            if worker.gives_back:
                for device, amount in worker.charge.items():
                    self._hope[device] = self._hope.get(device, 0) + amount
            elif not worker.is_stuck:
                self._workers[worker.model.name] = worker
        self._awaited: set[Device] = set()  # somebody before waits to take of them
        self._closed: set[Device] = set()  # somebody before lacks something there
        self._is_closed = False  # everywhere
        self._guests = _Guests(state) if state.company.beside else None

    @property
    def is_over(self) -> bool:
        return self._is_closed and self._state.all_demand

    def next(self, model: Model, place: Place) -> Turn | None:
        """Set aside what the model demands; give its turn, or nothing when it must wait."""
        state, worker = self._state, self._workers.get(model.name)
        seated = worker if worker is not None and worker.is_charged else None
        in_the_way = self._guests.receive(model, seated) if self._guests is not None else ()
        if self._is_closed and model.demand:
            return None
        demand = state.growth(seated) if seated is not None else state.demand(model)
        lack = {} if fits(demand, self._hope) else missing(demand, self._hope)
        is_clear = self._closed.isdisjoint(demand) and self._awaited.isdisjoint(lack)
        fits_now = not in_the_way and fits(demand, self._free)
        for device, amount in demand.items():
            self._free[device] = self._free.get(device, 0) - amount
            self._hope[device] = self._hope.get(device, 0) - amount
        if lack:
            self._closed.update(lack)
            self._is_closed = self._closed.issuperset(state.budget)
        if in_the_way is None or not is_clear:
            self._awaited.update(demand)
            return None
        turn = Turn(model, place, demand, worker, fits_now, lack, in_the_way)
        if not (fits_now and turn.may_take):
            self._awaited.update(demand)
        return turn


class _Guests:
    """Who is there, and whom those in the line who were looked at bear beside them."""

    def __init__(self, state: State) -> None:
        self._state = state
        workers = [w for w in state.workers.values() if w.is_charged and not w.model.pinned]
        self._there = [w for w in workers if not w.is_stuck]
        self._going = {w for w in self._there if w.phase is Phase.DRAINING}
        self._growing: set[Worker] = set()
        self._welcome: frozenset[ModelName] | None = None  # None: whoever comes

    def receive(self, model: Model, seated: Worker | None) -> tuple[Worker, ...] | None:
        """List who must leave before the model loads; None: it must wait for those before it.

        It must when one of them would expel it, or it one of them who is there.
        """
        if model.pinned:
            return ()
        if seated is not None:
            self._growing.add(seated)
            return ()
        is_welcome = self._welcome is None or model.name in self._welcome
        if not is_welcome and not self._welcome:
            return None  # nobody is any more
        beside = choose(self._state.company, model.name, self._sitters())
        self._welcome = beside if self._welcome is None else self._welcome & beside
        in_the_way = tuple(w for w in self._there if w.model.name not in beside)
        if not is_welcome or not self._growing.isdisjoint(in_the_way):
            return None
        self._going.update(in_the_way)
        return in_the_way

    def _sitters(self) -> list[Sitter]:
        return [
            Sitter(
                w.model.name,
                goes_anyway=w in self._going,
                is_busy=not self._state.is_idle(w),
                last_used=max(w.idle_since, w.load_began),
            )
            for w in self._there
            if not w.is_leaving
        ]


def evictable(state: State, head: Turn | None = None) -> list[Worker]:
    """List who may be asked to make room: READY ones, and loads that nobody waits for."""
    return [
        w
        for w in state.workers.values()
        if not w.model.pinned
        and not w.is_leaving
        and (head is None or w is not head.worker)
        and (w.phase is Phase.READY or (w.phase is Phase.LOADING and state.is_idle(w)))
    ]


def spared_until(state: State, worker: Worker, head: Turn) -> float:
    """Tell how long the head's patience lets a busy worker go on."""
    since = head.place.since - PRIORITY_S * (head.place.priority - state.priority(worker))
    return max(since, worker.ready_since) + state.patience_s(head.model)


def next_change(state: State, turns: list[Turn], now: float) -> float | None:
    """Tell when something will be due though no event comes."""
    times = [*_times_of_workers(state), *_times_of_heads(state, turns)]
    return min((time for time in times if time > now), default=None)


def _times_of_workers(state: State) -> Iterator[float]:
    for worker in state.workers.values():
        if not worker.is_serving or (worker.leases and worker.is_open):
            continue
        expiry = state.expiry(worker)
        if expiry is not None:
            yield expiry
        if worker.retire_by is not None:
            yield worker.retire_by


def _times_of_heads(state: State, turns: list[Turn]) -> Iterator[float]:
    for turn in turns:
        if turn.is_head:
            for worker in evictable(state, turn):
                if not state.is_idle(worker):
                    yield spared_until(state, worker, turn)
