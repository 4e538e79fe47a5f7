"""The scheduler against everything a shell may do to it; `listener.py` has the rules it must keep.

`HYPOTHESIS_PROFILE=deep` looks longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy.scheduler import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Demand,
    Device,
    Ended,
    Event,
    Exited,
    Group,
    Left,
    Measured,
    Model,
    ModelName,
    Prepared,
    Reloaded,
    ShutdownAsked,
    Stuck,
    TicketId,
    UnloadAsked,
    Woke,
    WorkerId,
)
from tests.scheduler.books import Process
from tests.scheduler.listener import Listener
from tests.scheduler.rules import NAMES, Anybody, Groups, Rules, Sets

SECONDS = st.sampled_from([0.5, 1.0, 2.0, 5.0])
AMOUNTS = st.sampled_from([0, 1, 2, 2, 2, 3, 3, 4, 5, 6])  # mixed, to need several victims
ANY = st.integers(0, 11)  # which one of those there are
GPU, OTHER_GPU, HOST, SEAT = map(Device, ["gpu", "other gpu", "host", "seat"])
SEATS = {SEAT: 1}


def demands(budget: Demand, amounts=AMOUNTS) -> st.SearchStrategy[Demand]:
    """Draw what a model demands of the devices; most touch one, and some the host as well."""
    return st.fixed_dictionaries(dict.fromkeys(budget, amounts)).map(
        lambda demand: {device: amount for device, amount in demand.items() if amount}
    )


@st.composite
def models(draw, name: str, budget: Demand) -> Model:
    pinned = draw(st.integers(0, 6)) == 6
    if budget is SEATS:
        demand = {} if pinned else SEATS
    elif pinned:
        demand = draw(demands(budget, st.integers(0, 2)))
    else:
        whole = draw(demands(budget))
        kept = draw(st.sampled_from([*budget, None, HOST]))
        demand = {on: n for on, n in whole.items() if kept is None or on in (kept, HOST)}
    return Model(
        ModelName(name),
        demand=demand,
        concurrency=draw(st.integers(1, 3)),
        ttl_s=draw(st.sampled_from([0.0, 3.0, 10.0])),
        patience_s=draw(st.sampled_from([0.0, 2.0, 5.0, None])),
        queue_limit=draw(st.sampled_from([1000, 1000, 1000, 2])),
        pinned=pinned,
        load_s=draw(st.sampled_from([None, None, 3.0])),
        loads_alone=not pinned and draw(st.integers(0, 9)) == 9,
        feared={on: n + 2 for on, n in demand.items()} if draw(st.integers(0, 5)) == 5 else {},
    )


@st.composite
def rules(draw) -> Rules:
    """Draw who may be seated beside whom."""
    match draw(st.sampled_from(["anybody", "groups", "sets"])):
        case "groups":
            flags = st.tuples(st.booleans(), st.booleans(), st.integers(0, 3).map(lambda n: n > 2))
            homes = [draw(st.integers(0, 3)) for _ in NAMES]  # 3: in no group
            members = [
                [n for n, at in zip(NAMES, homes, strict=True) if at == g] for g in range(3)
            ]
            return Groups([Group(tuple(some), *draw(flags)) for some in members if some])
        case "sets":
            some = st.sets(st.sampled_from(NAMES), min_size=1, max_size=4).map(frozenset)
            sets = draw(st.lists(some, min_size=1, max_size=6, unique=True))
            costs = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), max_size=3)
            return Sets(sets, draw(costs))
        case _:
            return Anybody()


@st.composite
def plans(draw) -> tuple[list[Model], Demand, Rules]:
    """Draw a configuration: one seat, or bytes of one to three devices; rules of company.

    Where there are rules, nothing at all may be counted.
    """
    known = draw(rules())
    kinds = [[GPU], [GPU], [GPU, HOST], [GPU, OTHER_GPU], [GPU, OTHER_GPU, HOST]]
    bare = [[SEAT]] if isinstance(known, Anybody) else [[], [], []]
    devices = draw(st.sampled_from([*bare, *kinds]))
    budget = SEATS if devices == [SEAT] else {on: draw(st.integers(5, 7)) for on in devices}
    names = NAMES[: draw(st.integers(2, 5))]
    return _fearless_beside_pins(draw(models(name, budget)) for name in names), budget, known


def _fearless_beside_pins(those: Iterable[Model]) -> list[Model]:
    """Leave out fears where somebody is pinned.

    What is feared is wished for as far as there is room; that a pinned one grows with the same
    event would leave the books to guess which came first.
    """
    all_ = list(those)
    return [replace(m, feared={}) for m in all_] if any(m.pinned for m in all_) else all_


class Shell(RuleBasedStateMachine):
    """Does whatever clients, processes, devices and clocks do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.tickets_count = 0
        self.steps_count = 0
        self.has_failed = False

    @initialize(plan=plans(), warm=st.lists(st.tuples(ANY, SECONDS, st.booleans()), max_size=6))
    def configure(
        self, plan: tuple[list[Model], Demand, Rules], warm: list[tuple[int, float, bool]]
    ) -> None:
        """Start with some models loaded, which took them some time, and some of them idle."""
        self.budget = plan[1]
        self.listener = Listener(*plan)
        self.books = self.listener.books
        for which, load_s, stays_busy in warm:
            self.tell(Arrived(self.new_ticket(), self.name(which)))
            self.all_goes_well(1)
            self.stall(load_s)
            self.all_goes_well(1)
            if not stays_busy:
                self.tell(Left(TicketId(self.tickets_count)))

    # Clients

    @rule(which=ANY, count=st.integers(1, 3))
    def arrive(self, which: int, count: int) -> None:
        for _ in range(count):
            self.tell(Arrived(self.new_ticket(), self.name(which)))

    @rule(first=ANY)
    def everybody_arrives(self, first: int) -> None:
        """Want all models at once."""
        names = list(self.books.models)
        for number in range(len(names)):
            self.tell(Arrived(self.new_ticket(), _pick(names, first + number)))

    @rule(
        which=ANY,
        priority=st.sampled_from([0, 0, 1, -1, 3]),
        keep_alive_s=st.sampled_from([None, None, 0.0, 2.0, math.inf]),
        more=st.sampled_from([0, 0, 1, 1, 2, 3, 5]),
        device=ANY,
    )
    def arrive_with_wishes(
        self, which: int, priority: int, keep_alive_s: float | None, more: int, device: int
    ) -> None:
        name, on = self.name(which), _pick(list(self.budget) or [GPU], device)
        known = self.books.models[name].demand if name in self.books.models else {}
        grows = more and self.budget and self.budget is not SEATS
        demand = {**known, on: known.get(on, 0) + more} if grows else {}
        self.tell(Arrived(self.new_ticket(), name, priority, demand, keep_alive_s))

    @precondition(lambda self: self.running())
    @rule(which=ANY)
    def finish(self, which: int) -> None:
        self.tell(Left(_pick(self.running(), which)))

    @precondition(lambda self: self.waiting())
    @rule(which=ANY)
    def give_up(self, which: int) -> None:
        self.tell(Left(_pick(self.waiting(), which)))

    # Processes

    @precondition(lambda self: self.starting())
    @rule(which=ANY)
    def proceed(self, which: int) -> None:
        process = _pick(self.starting(), which)
        self.tell(BecameReady(process.id) if process.is_charged else Prepared(process.id))

    @precondition(lambda self: self.stopping())
    @rule(which=ANY)
    def exit(self, which: int) -> None:
        self.tell(Exited(_pick(self.stopping(), which)))

    @precondition(lambda self: self.books.processes)
    @rule(rounds=st.integers(1, 3))
    def all_goes_well(self, rounds: int) -> None:
        """Let every process take its next steps."""
        for _ in range(rounds):
            for process in self.starting():
                if process in self.starting():
                    self.proceed(self.starting().index(process))
            for worker in self.stopping():
                self.tell(Exited(worker))

    @precondition(lambda self: self.loading())
    @rule(which=ANY)
    def run_out_of_memory(self, which: int) -> None:
        ending = Exited if which % 2 else Ended
        self.tell(ending(_pick(self.loading(), which).id, out_of_memory=True))

    # Devices

    @precondition(lambda self: self.books.processes)
    @rule(
        kind=st.sampled_from([*4 * ["measured"], *3 * ["budget"], "stuck"]),
        which=ANY,
        device=ANY,
        by=st.sampled_from([-2, -1, 1, 1, 2]),
        amount=st.sampled_from([4, 5, 6, 7, 7, 8, 9]),
    )
    def learn_of_memory(self, kind: str, which: int, device: int, by: int, amount: int) -> None:
        on = _pick(list(self.budget) or [GPU], device)
        match kind:
            case "measured" if self.budget and self.budget is not SEATS:
                self._measure(_pick(list(self.books.processes.values()), which), on, by)
            case "budget" if self.budget and self.budget is not SEATS:
                self.tell(BudgetChanged({**self.books.budget, on: amount}))
            case "stuck" if self.stopping():
                self.tell(Stuck(_pick(self.stopping(), which)))

    def _measure(self, process: Process, on: Device, by: int) -> None:
        """Measure a worker; every other time, its model is known to demand as much."""
        charge = {**process.charge, on: max(0, process.charge.get(on, 0) + by)}
        known = self.books.model(process).demand
        learned = {**known, on: max(0, known.get(on, 0) + by)} if by % 2 else known
        demand = {device: amount for device, amount in learned.items() if amount}
        self.tell(Measured(process.id, charge, demand))

    # Clocks

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Let time pass, with every alarm on its time."""
        until = self.clock + seconds
        while self.listener.alarm is not None and self.listener.alarm <= until:
            self.wake()
        self.clock = max(self.clock, until)

    @rule(seconds=SECONDS)
    def stall(self, seconds: float) -> None:
        """Let time pass unnoticed: the next event is late, the alarm too."""
        self.clock += seconds

    @precondition(lambda self: self.listener.alarm is not None)
    @rule()
    def wake(self) -> None:
        assert self.listener.alarm is not None
        self.clock = max(self.clock, self.listener.alarm)
        self.tell(Woke())

    # What people ask

    @rule(
        kind=st.sampled_from(["crash", "unload", "shut down", "reload", "reload", *3 * ["late"]]),
        which=ANY,
        data=st.data(),
    )
    def mishap(self, kind: str, which: int, data) -> None:
        deadline = self.clock + 2.0 * (which % 5)
        match kind:
            case "crash" if self.processes():
                ending = Exited if which % 2 else Ended
                self.tell(ending(_pick(self.processes(), which).id))
            case "unload":
                self.tell(UnloadAsked(_pick([*self.books.models, None], which), deadline))
            case "shut down" if self.steps_count > 60:
                self.tell(ShutdownAsked(deadline))
            case "reload":
                kind = data.draw(st.sampled_from(["same", "changed", "gone", "new", "rules"]))
                self._reload(kind, self.name(which), deadline, data.draw)
            case "late":
                self._hear_late(which)

    def _reload(self, kind: str, name: ModelName, deadline: float, draw) -> None:
        """Change one model, or take it away, or bring one; or the rules; or little."""
        known, changed = dict(self.books.models), set[ModelName]()
        match kind:
            case "same" if name in known:
                known[name] = replace(known[name], ttl_s=draw(st.sampled_from([0.0, 3.0])))
            case "changed" if name in known:
                known[name] = draw(models(name, self.budget))
                changed.add(name)
            case "gone" if len(known) > 1:
                known.pop(name, None)
            case "new":
                known.setdefault(name, draw(models(name, self.budget)))
            case "rules":
                self.books.rules = draw(rules())
        budget, company = self.books.budget, self.books.rules.told()
        new = tuple(_fearless_beside_pins(known.values()))
        self.tell(Reloaded(new, budget, frozenset(changed), deadline, company))

    def _hear_late(self, which: int) -> None:
        """Hear of processes that were told to stop, or are gone already, and of no alarm."""
        self.tell(Woke())
        for worker in [*self.stopping(), *self.books.gone[-2:]]:
            self.tell(_pick([Prepared, BecameReady], which)(worker))
        for worker in self.books.gone[-1:]:
            self.tell(Exited(worker))
            self.tell(Stuck(worker))
            self.tell(Measured(worker, self.budget, self.budget))
        for process in self.processes()[:1]:
            self.tell(Stuck(process.id))  # nobody told it to stop

    # The end

    def teardown(self) -> None:
        """Let everything run down: nobody may starve."""
        if self.has_failed or not hasattr(self, "listener"):
            return
        for _ in range(10 * self.tickets_count + 50):
            if not self.waiting() and not self.running():
                return
            self.all_goes_well(1)
            for ticket in self.running():
                self.tell(Left(ticket))
            self.wait(1.0)
        raise AssertionError("somebody starved")

    # Who is there

    def tell(self, event: Event) -> None:
        self.steps_count += 1
        with self.noting_failure():
            self.listener.tell(event, self.clock)

    @contextmanager
    def noting_failure(self):
        """Keep `teardown` from hiding what went wrong before it."""
        try:
            yield
        except BaseException:
            self.has_failed = True
            raise

    def new_ticket(self) -> TicketId:
        self.tickets_count += 1
        return TicketId(self.tickets_count)

    def name(self, which: int) -> ModelName:
        """Pick a model, or one that was configured once."""
        return NAMES[which % 5] if which > 10 else _pick([*self.books.models], which)

    def processes(self) -> list[Process]:
        return [p for p in self.books.processes.values() if not p.is_told_to_stop]

    def starting(self) -> list[Process]:
        return [p for p in self.processes() if p.is_loading or not p.is_prepared]

    def loading(self) -> list[Process]:
        return [p for p in self.processes() if p.is_loading]

    def stopping(self) -> list[WorkerId]:
        return [p.id for p in self.books.processes.values() if p.is_told_to_stop]

    def running(self) -> list[TicketId]:
        return [ticket for p in self.books.processes.values() for ticket in sorted(p.leases)]

    def waiting(self) -> list[TicketId]:
        return [w.asked.ticket for queue in self.books.waiting.values() for w in queue]


def _pick(some, which: int):
    return some[which % len(some)]


TestScheduler = pytest.mark.timeout(3600)(Shell.TestCase)
