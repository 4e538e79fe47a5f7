"""What the policy promises over time: few swaps, and nobody starves."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.scheduler import (
    PRIORITY_S,
    Arrived,
    BecameReady,
    Event,
    Exited,
    Left,
    Model,
    ModelName,
    Prepared,
    TicketId,
    Woke,
)
from tests.scheduler.batch import Batch
from tests.scheduler.listener import Listener
from tests.scheduler.play import Play, amounts, model

pytestmark = pytest.mark.timeout(1800)  # for the deep profile

RARELY = settings(max_examples=settings().max_examples // 3)
VERY_RARELY = settings(max_examples=settings().max_examples // 10)  # these are long
SOON = st.integers(1, 5)  # whole seconds: what is due at the same time comes in any order
PACE = st.fixed_dictionaries({"prepare_s": SOON, "load_s": SOON, "stop_s": SOON, "serve_s": SOON})


class Simulation:
    """A shell whose processes and requests take a known time for each step."""

    def __init__(
        self,
        *models: Model,
        budget: int | Mapping[str, int] = 1,
        prepare_s=1,
        load_s=1,
        stop_s=1,
        serve_s=1,
    ) -> None:
        self.listener = Listener(list(models), amounts(budget))
        self.took_s = {Prepared: prepare_s, BecameReady: load_s, Exited: stop_s, Left: serve_s}
        self.granted_at: dict[TicketId, float] = {}
        self._agenda: list[tuple[float, int, Event]] = []
        self._count = 0

    def add(self, time: float, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (time, self._count, event))

    def run(self, until: float) -> None:
        while True:
            alarm = self.listener.alarm
            if alarm is not None and (not self._agenda or alarm <= self._agenda[0][0]):
                now, event = alarm, Woke()
            elif self._agenda:
                now, _, event = heapq.heappop(self._agenda)
            else:
                return
            if now > until:
                return
            self._carry_out(self.listener.tell(event, now), now)

    def _carry_out(self, batch: Batch, now: float) -> None:
        events: list[Event] = [
            *map(Prepared, batch.prepares),
            *map(BecameReady, batch.loads),
            *map(Exited, batch.stops),
            *map(Left, batch.grants),
        ]
        for event in events:
            self.add(now + self.took_s[type(event)], event)
        self.granted_at |= dict.fromkeys(batch.grants, now)


@RARELY
@given(
    patience_s=st.integers(0, 12),
    concurrency=st.integers(1, 3),
    arrival=st.integers(0, 30),
    pace=PACE,
)
def test_a_flood_does_not_starve_the_other_model(patience_s, concurrency, arrival, pace) -> None:
    """Under an endless flood on A, B is granted within its patience, a drain and a load."""
    flooded, other = model("a", concurrency=concurrency), model("b", patience_s=patience_s)
    play = Simulation(flooded, other, **pace)
    a_loads_at = pace["prepare_s"]
    a_is_ready_at = a_loads_at + pace["load_s"]
    b_is_prepared_at = max(arrival, a_loads_at) + pace["prepare_s"]  # one is prepared at a time
    drains_at = max(b_is_prepared_at, max(arrival, a_is_ready_at) + patience_s)
    served_by = drains_at + pace["serve_s"] + pace["stop_s"] + pace["load_s"]
    for number in range(served_by):
        play.add(number, Arrived(TicketId(1000 + 2 * number), flooded.name))
        play.add(number, Arrived(TicketId(1001 + 2 * number), flooded.name))
    play.add(arrival, Arrived(TicketId(1), other.name))

    play.run(until=served_by)

    assert TicketId(1) in play.granted_at


@RARELY
@given(
    count=st.integers(1, 20),
    patience_s=st.integers(1, 40),
    concurrency=st.integers(1, 3),
    serve_s=st.integers(1, 4),
)
def test_interleaved_requests_cost_few_swaps(count, patience_s, concurrency, serve_s) -> None:
    """N requests for A and B in turns cost a load for each patience full of them, and not N."""
    names = ModelName("a"), ModelName("b")
    play = Simulation(
        *(model(name, concurrency=concurrency, patience_s=patience_s) for name in names),
        serve_s=serve_s,
    )
    for number in range(2 * count):
        play.add(0, Arrived(TicketId(number), names[number % 2]))

    play.run(until=10_000)

    assert len(play.granted_at) == 2 * count
    loads_each = ceil(count * serve_s / (concurrency * patience_s))
    assert play.listener.loads_count <= 2 * loads_each


@VERY_RARELY
@given(patience_s=st.integers(0, 12), arrival=st.integers(0, 30), pace=PACE)
def test_a_flood_on_small_models_does_not_starve_a_large_one(patience_s, arrival, pace) -> None:
    """Two flooded models that sit side by side both make room for one that needs it all."""
    small, large = [model("a", 5), model("b", 5)], model("c", 10, patience_s=patience_s)
    play = Simulation(*small, large, budget=10, **pace)
    step_s = sum(pace.values())
    served_by = arrival + patience_s + 3 * step_s
    for number in range(served_by):
        play.add(number, Arrived(TicketId(1000 + 2 * number), small[0].name))
        play.add(number, Arrived(TicketId(1001 + 2 * number), small[1].name))
    play.add(arrival, Arrived(TicketId(1), large.name))

    play.run(until=served_by)

    assert TicketId(1) in play.granted_at


@VERY_RARELY
@given(patience_s=st.integers(0, 12), arrival=st.integers(0, 30), pace=PACE)
def test_a_flood_on_one_gpu_does_not_slow_the_other(patience_s, arrival, pace) -> None:
    """A model with a GPU of its own is served as if there were no other."""
    one, other = {"gpu": 5, "host": 1}, {"other": 5, "host": 1}
    models = [model(name, one, patience_s=patience_s) for name in "ab"]
    calm = model("c", other)
    play = Simulation(*models, calm, budget={"gpu": 5, "other": 5, "host": 4}, **pace)
    served_by = arrival + pace["prepare_s"] + pace["load_s"]
    for number in range(served_by):
        for offset, flooded in enumerate(models):
            play.add(number, Arrived(TicketId(1000 + 2 * number + offset), flooded.name))
    play.add(arrival, Arrived(TicketId(1), calm.name))

    play.run(until=served_by)

    assert play.granted_at[TicketId(1)] == served_by


@VERY_RARELY
@given(patience_s=st.integers(0, 12), arrival=st.integers(0, 30), pace=PACE)
def test_a_flood_does_not_starve_a_larger_request(patience_s, arrival, pace) -> None:
    """A seated model that must grow for a request gets the memory from its flooded neighbour."""
    flooded, calm = model("a", 5), model("b", 5, patience_s=patience_s)
    play = Simulation(flooded, calm, budget=10, **pace)
    served_by = arrival + patience_s + 3 * sum(pace.values())
    play.add(0, Arrived(TicketId(1), calm.name))
    for number in range(served_by):
        play.add(number, Arrived(TicketId(1000 + number), flooded.name))
    play.add(arrival, Arrived(TicketId(2), calm.name, demand=amounts(8)))

    play.run(until=served_by)

    assert TicketId(2) in play.granted_at


def test_urgent_requests_do_not_starve_the_plain_one() -> None:
    """Under an endless flood of urgent requests a plain one waits for a bounded time."""
    urgent, plain = model("a"), model("b")
    play = Simulation(urgent, plain)
    for number in range(60):
        play.add(number, Arrived(TicketId(1000 + number), urgent.name, priority=2))
    play.add(5, Arrived(TicketId(1), plain.name))

    play.run(until=60)

    assert play.granted_at[TicketId(1)] <= 5 + 2 * PRIORITY_S + 5 + 1 + 1 + 1


def test_many_that_leave_cost_no_swap_and_leave_nothing_behind() -> None:
    """Ten thousand that waited and gave up are as if they had never come."""
    play = Play(model("a"), model("b", queue_limit=20_000)).seated("a", 1).arrives("b", 2)
    play.prepared("b#2").expect("prepare b#2")
    tickets = range(3, 10_003)

    play.arrives("b", *tickets).leaves(*tickets).expect()
    play.leaves(2).expect("stop b#2").exits("b#2").expect()
    play.arrives("a", 3).leaves(1).expect("grant 3 on a#1").leaves(3)

    state = play.scheduler.state
    assert repr(play.scheduler) == "<Scheduler a#1 ready 0 | 0 waiting | 1/1 of one>"
    assert not any([state.where, state.line, state.stirred, state.alone])
    assert [len(queue) for queue in state.queues.values()] == [0, 0]
