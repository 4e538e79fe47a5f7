"""Holds each answer of the scheduler against the rules of its docstring.

It goes by events and commands alone, but for one thing that no command tells: who drains. That is
read from the scheduler's repr. A batch of commands is judged as a whole: the order within it is
the scheduler's own affair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable

from proxy.scheduler import (
    Arrived,
    Cause,
    Demand,
    Event,
    Model,
    ModelName,
    Refusal,
    Scheduler,
    TicketId,
    WakeAt,
    Woke,
    WorkerId,
    outlooks,
)
from tests.scheduler.batch import Batch
from tests.scheduler.books import Books, Place, Process, less, short, summed
from tests.scheduler.hearing import Due, hear
from tests.scheduler.prospects import check_outlooks
from tests.scheduler.rules import Anybody, Rules, least_cost
from tests.scheduler.standing import (
    Standing,
    evictable,
    spared_until,
    standings,
    still_lacking,
)
from tests.scheduler.victims import check_shrinking, check_victims, excess


class Listener:
    """Passes events on to a scheduler, and complains where an answer breaks a rule."""

    def __init__(self, models: list[Model], budget: Demand, rules: Rules | None = None) -> None:
        rules = rules or Anybody()
        self.scheduler = Scheduler(models, budget, rules.told())
        self.books = Books(models, budget, rules)
        self.alarm: float | None = None
        self.loads_count = 0
        self._lost: list[Arrived] = []  # refused, as somebody's pinned room or own seat went away

    def tell(self, event: Event, now: float) -> Batch:
        """Pass the event on, and judge the answer."""
        books = self.books
        assert now >= books.now
        books.now = now
        due = hear(books, event)
        if isinstance(event, Woke):
            self.alarm = None
        hopeless = books.hopeless()
        commands = self.scheduler.handle(event, now)
        batch = Batch.of(commands)
        for command in commands:
            if isinstance(command, WakeAt):
                self.alarm = command.when
        drained = {p for p in books.processes.values() if p.drains}
        self._check_refusals(batch, due, hopeless)
        books.line_up()
        stopped = {books.processes[worker] for worker in batch.stops if worker in books.processes}
        over = excess(books, drained - stopped - self._draining())
        idle = [p for p in evictable(books) if books.is_idle(p)]
        self._note_prepares(batch)
        victims = self._check_stops(batch, over)
        self._check_loads(batch)
        self._check_grants(batch)
        self._note_drains()
        books.line_up(is_at_rest=True)
        new = [p for p in books.processes.values() if p.drains and p not in drained]
        check_shrinking(books, batch, over, idle)
        check_victims(books, [*victims, *new], batch)
        self._check_rest(batch)
        self._check_settled()
        return batch

    # Commands

    def _check_refusals(self, batch: Batch, due: Due, hopeless: set[TicketId]) -> None:
        assert due.keys() <= batch.refusals.keys()
        for ticket, refusal in batch.refusals.items():
            assert refusal.why in due.get(ticket, {Refusal.NO_ROOM})
            match refusal.why:
                case Refusal.COOLING_DOWN | Refusal.START_FAILED:
                    untils = [until for until, _ in self.books.cooling.values()]
                    assert refusal.retry_after_s in [until - self.books.now for until in untils]
                case Refusal.QUEUE_FULL:
                    assert refusal.retry_after_s is not None
                    assert refusal.retry_after_s >= 1
                case _:
                    assert refusal.retry_after_s is None
        late = batch.refusals.keys() - due.keys() - hopeless
        waiters = [w.asked for queue in self.books.waiting.values() for w in queue]
        self._lost = [asked for asked in waiters if asked.ticket in late]
        self.books.give_up(batch.refusals)

    def _check_stops(self, batch: Batch, over: Demand) -> list[Process]:
        """Check the causes; return those that go to make room."""
        books, victims = self.books, []
        for worker, stop in batch.stops.items():
            process = books.processes[worker]
            assert not process.is_told_to_stop
            assert stop.made_room_for is not None or stop.cause is not Cause.SWAP
            match stop.cause:
                case Cause.UNLOAD | Cause.RELOAD | Cause.SHUTDOWN:
                    assert stop.cause is process.cause
                    deadline = process.retire_by
                    is_done = deadline is not None and not process.leases
                    is_late = deadline is not None and books.now >= deadline
                    assert process.must_stop or is_done or is_late
                    process.leases.clear()
                case Cause.TTL:
                    assert books.now >= books.expiry(process)
                case Cause.UNWANTED:
                    assert process.is_coming
                    assert not books.waiting[process.name]
                case Cause.OVER_BUDGET:
                    assert over, "there is enough"
                case Cause.SWAP if not process.drains:
                    victims.append(process)
            assert not process.leases
        for worker in batch.stops:
            process = books.processes[worker]
            if process.is_seated:
                books.line.pop(process.name, None)  # it stands anew
            process.is_told_to_stop = True
        books.line_up()
        return victims

    def _note_prepares(self, batch: Batch) -> None:
        books = self.books
        for worker, name in batch.prepares.items():
            assert worker not in books.processes
            assert worker not in books.gone
            books.processes[worker] = Process(worker, name)

    def _check_loads(self, batch: Batch) -> None:
        books = self.books
        demands = {worker: books.demand(books.processes[worker].name) for worker in batch.loads}
        for worker, demand in demands.items():
            process = books.processes[worker]
            assert process.is_coming
            assert process.is_prepared
            process.place, process.load_began = books.line[process.name], books.now
            process.charge = demand
            process.is_alone = books.must_be_alone(process.name)
        before = list(books.line)
        for worker in demands:
            process = books.processes[worker]
            self._check_nobody_is_overtaken(
                process.charge, before[: before.index(process.name)], [*batch.loads]
            )
        self._check_company(batch)
        for worker in demands:
            books.line.pop(books.processes[worker].name, None)
        self.loads_count += len(batch.loads)

    def _check_nobody_is_overtaken(
        self, taken: Demand, before: Iterable[ModelName], loading: Collection[WorkerId]
    ) -> None:
        """Check that what is left still suffices for those who stand before."""
        books = self.books
        loaded = {books.processes[worker].name for worker in loading}
        set_aside = [books.demand(name) for name in before if name not in loaded]
        left = less(books.free(), summed(set_aside))
        assert all(left.get(device, 0) >= 0 for device, amount in taken.items() if amount)

    def _check_company(self, batch: Batch) -> None:
        """Check that nobody loads beside whom he expels, nor to the cost of who stands before."""
        books, loading = self.books, [self.books.processes[worker] for worker in batch.loads]
        if isinstance(books.rules, Anybody):
            return
        there = [p for p in books.company() if p not in loading]
        names = {p.name for p in loading}
        for process in loading:
            if books.models[process.name].pinned:
                continue
            sitting = [p.name for p in there]
            assert process.name not in sitting, "beside its own former self"
            assert not least_cost(books.rules, process.name, sitting), "beside whom it expels"
            line = list(books.line)
            for name in line[: line.index(process.name)]:
                is_there = name in names or books.models[name].pinned or books.seat(name)
                if not is_there:
                    staying = [p.name for p in there if not (p.is_leaving or p.drains)]
                    cost = least_cost(books.rules, name, staying)
                    more = least_cost(books.rules, name, [*staying, process.name])
                    assert more == cost, "who stands before has to pay for it"
            there.append(process)

    def _check_grants(self, batch: Batch) -> None:
        books = self.books
        for ticket, worker in batch.grants.items():
            process = books.processes[worker]
            waiter = books.front(process.name)
            assert waiter is not None
            assert waiter.asked.ticket == ticket, "not his turn"
            assert process.is_ready
            more = short(waiter.asked.demand, process.charge)
            if more:
                self._grow(process, more, waiter.asked.priority)
            process.leases[ticket] = waiter.asked.priority
            process.keep_alive_s = waiter.asked.keep_alive_s
            process.idle_since = books.now
            del books.waiting[process.name][0]
            if not books.waiting[process.name]:
                books.alone.discard(process.name)
            assert len(process.leases) <= books.models[process.name].concurrency
        books.line_up()

    def _grow(self, process: Process, more: Demand, priority: int) -> None:
        """Check that it may; it may have been spared just now, and then stands there just now."""
        books = self.books
        books.line_up()
        place = books.line.get(process.name, Place(books.now, priority, books.events_count))
        line, order = {**books.line, process.name: place}, list(books.models)
        names = sorted(line, key=lambda n: (line[n].rank, line[n].entered, order.index(n)))
        # who has no room for another lease just now keeps his place, and takes nothing
        before = [n for n in names[: names.index(process.name)] if books.wants_memory(n)]
        process.charge = summed([process.charge, more])
        self._check_nobody_is_overtaken(more, before, [])

    def _note_drains(self) -> None:
        draining = self._draining()
        for process in self.books.processes.values():
            process.drains = process in draining and not process.is_leaving

    def _draining(self) -> set[Process]:
        """Find who drains, as the scheduler says of itself."""
        numbers = re.findall(r"#(\d+) draining", repr(self.scheduler))
        return {p for p in self.books.processes.values() if str(p.id) in numbers}

    # At rest

    def _check_rest(self, batch: Batch) -> None:
        books = self.books
        assert not any(map(books.is_servable, self._lost)), "there is room for them"
        assert not books.hopeless(), "there is no room for them"
        assert self.alarm is None or self.alarm > books.now
        assert repr(self.scheduler).endswith(self._sums()), "other sums than ours"
        for process in books.processes.values():
            if not process.is_told_to_stop:
                self._check_process(process)
        line = standings(books)
        turns = {standing.name for standing in line if standing.is_turn}
        assert turns.issuperset(self._newly_coming(batch)), "it is not its turn"
        for standing in line:
            if standing.is_turn:
                assert standing.process is not None, "nobody works on it"
                assert not (standing.may_take and standing.fits), "it could go on"
        heads = [standing for standing in line if standing.is_head]
        self._check_drains(heads)
        for head in heads:
            self._check_room_is_made(head)
        check_outlooks(books, line, outlooks(self.scheduler.state, books.now))

    def _sums(self) -> str:
        """Say who waits and what is charged, as the scheduler says it."""
        books = self.books
        charged = books.charged()
        sums = [f"{charged.get(on, 0)}/{amount} of {on}" for on, amount in books.budget.items()]
        told = ", ".join(sums) or "no budget"
        return f"| {sum(map(len, books.waiting.values()))} waiting | {told}>"

    def _newly_coming(self, batch: Batch) -> list[ModelName]:
        processes = [self.books.processes[worker] for worker in batch.prepares]
        names = [process.name for process in processes if process.is_coming]
        assert len(set(names)) == len(names)
        return names

    def _check_process(self, process: Process) -> None:
        books = self.books
        assert not process.must_stop
        assert not process.is_coming or books.waiting[process.name], "nobody wants it"
        if process.retire_by is not None:
            assert process.leases
            self._check_alarm(process.retire_by)
        elif process.is_ready and not process.drains:
            self._check_alarm(books.expiry(process))
            front = books.front(process.name)
            has_room = len(process.leases) < books.models[process.name].concurrency
            if front is not None and has_room:
                assert short(front.asked.demand, process.charge), "it could serve"

    def _check_drains(self, heads: list[Standing]) -> None:
        """Check that each draining worker is still needed."""
        draining = [p for p in self.books.processes.values() if p.drains and not p.is_leaving]
        for process in draining:
            assert process.leases
            assert not self.books.model(process).pinned
            rest = {p for p in draining if p is not process}
            assert any(process in h.expels or still_lacking(h, rest) for h in heads), (
                "it drains for nothing"
            )

    def _check_room_is_made(self, head: Standing) -> None:
        """Check that the head does not wait for nothing, nor longer than its patience."""
        books = self.books
        drained = {p for p in books.processes.values() if p.drains}
        need, expelled = still_lacking(head, drained), head.expels - drained
        if not need and not expelled:
            return
        candidates = evictable(books, head)
        if not expelled <= {*candidates}:
            return  # somebody loads, and will serve those who wait for him first
        assert any(p.is_charged for p in books.processes.values() if p is not head.process), (
            "it waits for nobody"
        )
        due = {p: -math.inf for p in candidates if books.is_idle(p)}
        due |= {p: spared_until(books, p, head) for p in candidates if p not in due}
        for when in sorted({*due.values(), -math.inf}):
            able = {p for p in candidates if due[p] <= when}
            if expelled <= able and not short(need, summed(p.charge for p in able - expelled)):
                self._check_alarm(when)
                return

    def _check_alarm(self, due: float) -> None:
        assert self.books.now < due, "missed"
        if due < math.inf:
            assert self.alarm is not None
            assert self.alarm <= due, "will be missed"

    def _check_settled(self) -> None:
        before = repr(self.scheduler)
        said = self.scheduler.handle(Woke(), self.books.now)
        assert said == ([] if self.alarm is None else [WakeAt(self.alarm)])
        assert repr(self.scheduler) == before
