"""The scheduler against everything a shell may do to it; `listener.py` has the rules it must keep.

`HYPOTHESIS_PROFILE=deep` looks longer.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy.scheduler import (
    Arrived,
    BecameReady,
    Event,
    Exited,
    Left,
    Model,
    ModelName,
    Prepared,
    ShutdownAsked,
    TicketId,
    UnloadAsked,
    Woke,
    WorkerId,
)
from tests.scheduler.listener import Listener, Process

SECONDS = st.sampled_from([0.5, 1.0, 2.0, 5.0])
DEMANDS = st.sampled_from([0, 1, 2, 2, 2, 3, 3, 4, 5, 6])  # mixed, to need several victims
ANY = st.integers(0, 11)  # which one of those there are


@st.composite
def plans(draw) -> tuple[list[Model], int]:
    """Draw a configuration: one seat, or bytes."""
    by_seats = draw(st.integers(0, 3)) == 0
    models = []
    for name in "abcde"[: draw(st.integers(2, 5))]:
        pinned = draw(st.integers(0, 6)) == 6
        models.append(
            Model(
                ModelName(name),
                demand=int(not pinned)
                if by_seats
                else draw(st.integers(0, 2) if pinned else DEMANDS),
                concurrency=draw(st.integers(1, 3)),
                ttl_s=draw(st.sampled_from([0.0, 3.0, 10.0])),
                patience_s=draw(st.sampled_from([0.0, 2.0, 5.0])),
                queue_limit=draw(st.sampled_from([1000, 1000, 1000, 2])),
                pinned=pinned,
            )
        )
    return models, 1 if by_seats else draw(st.integers(5, 7))


class Shell(RuleBasedStateMachine):
    """Does whatever clients, processes and clocks do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.tickets_count = 0
        self.steps_count = 0
        self.has_failed = False

    @initialize(plan=plans(), warm=st.lists(st.tuples(ANY, SECONDS, st.booleans()), max_size=6))
    def configure(
        self, plan: tuple[list[Model], int], warm: list[tuple[int, float, bool]]
    ) -> None:
        """Start with some models loaded, which took them some time, and some of them idle."""
        self.listener = Listener(*plan)
        for which, load_s, stays_busy in warm:
            self.arrive(which, 1)
            self.all_goes_well(1)
            self.stall(load_s)
            self.all_goes_well(1)
            if not stays_busy:
                self.tell(Left(TicketId(self.tickets_count)))

    # Clients

    @rule(which=ANY, count=st.integers(1, 3))
    def arrive(self, which: int, count: int) -> None:
        names = list(self.listener.models)
        for _ in range(count):
            self.tickets_count += 1
            self.tell(Arrived(TicketId(self.tickets_count), names[which % len(names)]))

    @precondition(lambda self: self.running())
    @rule(which=ANY)
    def finish(self, which: int) -> None:
        self.tell(Left(_pick(self.running(), which)))

    @precondition(lambda self: any(self.listener.waiting.values()))
    @rule(which=ANY)
    def give_up(self, which: int) -> None:
        waiting = [ticket for queue in self.listener.waiting.values() for ticket in queue]
        self.tell(Left(_pick(waiting, which)))

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

    @precondition(lambda self: self.listener.processes)
    @rule(rounds=st.integers(1, 3))
    def all_goes_well(self, rounds: int) -> None:
        """Let every process take its next steps."""
        for _ in range(rounds):
            for process in self.starting():
                if process in self.starting():
                    self.proceed(self.starting().index(process))
            for worker in self.stopping():
                self.tell(Exited(worker))

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

    # What seldom happens

    @rule(kind=st.sampled_from(["crash", "unload", "shut down", *3 * ["late"]]), which=ANY)
    def mishap(self, kind: str, which: int) -> None:
        deadline = self.clock + 2.0 * (which % 5)
        match kind:
            case "crash" if self.processes():
                self.tell(Exited(_pick(self.processes(), which).id))
            case "unload":
                self.tell(UnloadAsked(_pick([*self.listener.models, None], which), deadline))
            case "shut down" if self.steps_count > 60:
                self.tell(ShutdownAsked(deadline))
            case "late":
                self._hear_late(which)

    def _hear_late(self, which: int) -> None:
        """Hear of processes that were told to stop, or are gone already, and of no alarm."""
        self.tell(Woke())
        for worker in [*self.stopping(), *self.listener.gone[-2:]]:
            self.tell(_pick([Prepared, BecameReady], which)(worker))
        for worker in self.listener.gone[-1:]:
            self.tell(Exited(worker))

    # The end

    def teardown(self) -> None:
        """Let everything run down: nobody may starve."""
        if self.has_failed or not hasattr(self, "listener"):
            return
        for _ in range(10 * self.tickets_count + 50):
            if not any(self.listener.waiting.values()) and not self.running():
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

    def processes(self) -> list[Process]:
        return [p for p in self.listener.processes.values() if not p.is_told_to_stop]

    def starting(self) -> list[Process]:
        return [p for p in self.processes() if p.is_loading or not p.is_prepared]

    def stopping(self) -> list[WorkerId]:
        return [p.id for p in self.listener.processes.values() if p.is_told_to_stop]

    def running(self) -> list[TicketId]:
        return [ticket for p in self.listener.processes.values() for ticket in sorted(p.leases)]


def _pick(some, which: int):
    return some[which % len(some)]


TestScheduler = pytest.mark.timeout(1800)(Shell.TestCase)
