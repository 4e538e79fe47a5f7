"""What the policy promises over time: few swaps, and nobody starves."""

from __future__ import annotations

import heapq
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.scheduler import (
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
from tests.scheduler.listener import Batch, Listener
from tests.scheduler.play import model

pytestmark = pytest.mark.timeout(1800)  # for the deep profile

RARELY = settings(max_examples=settings().max_examples // 3)
SOON = st.integers(1, 5)  # whole seconds: what is due at the same time comes in any order


class Simulation:
    """A shell whose processes and requests take a known time for each step."""

    def __init__(self, *models: Model, prepare_s=1, load_s=1, stop_s=1, serve_s=1) -> None:
        self.listener = Listener(list(models), budget=1)
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
    pace=st.fixed_dictionaries(
        {"prepare_s": SOON, "load_s": SOON, "stop_s": SOON, "serve_s": SOON}
    ),
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
