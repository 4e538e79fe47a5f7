"""Times the scheduler alone: no processes, no clock, a fixed play of many models and waiters."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from proxy.scheduler import (
    Arrived,
    BecameReady,
    Command,
    Device,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Model,
    ModelName,
    Prepare,
    Prepared,
    Refuse,
    Scheduler,
    Terminate,
    TicketId,
    WakeAt,
    Woke,
)
from scripts.benchmarks.report import percentile
from scripts.benchmarks.traces import SEED

GPU = Device("gpu")
GIB = 1 << 30
BUDGET_BYTES = 80 * GIB
WAITERS = 1000
MODELS = (10, 30, 100, 300)
DECISIONS = 3000

HEAD = """\
| models | waiting | loaded, on average | a decision: mean | p99 |
|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a decision costs among so many."""

    models: int
    waiters: int
    loaded: float
    mean_us: float
    p99_us: float


@dataclass(slots=True)
class Play:
    """A crowd that asks again as soon as it is served, and the shell that the scheduler needs."""

    names: Sequence[ModelName]
    dice: random.Random
    tickets: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    order: Iterator[int] = field(default_factory=itertools.count)
    agenda: list[tuple[float, int, Event]] = field(default_factory=list)

    def next(self) -> tuple[float, Event]:
        now, _, event = heapq.heappop(self.agenda)
        return now, event

    def ask(self, now: float) -> None:
        ticket = TicketId(next(self.tickets))
        self.put(now, Arrived(ticket, self.dice.choice(self.names)))

    def put(self, when: float, event: Event) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), event))

    def forget_alarm(self) -> None:
        self.agenda = [entry for entry in self.agenda if not isinstance(entry[2], Woke)]
        heapq.heapify(self.agenda)

    def carry_out(self, command: Command, now: float) -> None:
        """Let what the command starts end after a while."""
        match command:
            case Prepare(worker, _):
                self.put(now + 1, Prepared(worker))
            case Load(worker):
                self.put(now + self.dice.uniform(5, 15), BecameReady(worker))
            case Terminate(worker):
                self.put(now + 0.3, Exited(worker))
            case Grant(ticket, _):
                self.put(now + self.dice.uniform(1, 5), Left(ticket))
                self.ask(now)
            case Refuse(ticket, why):
                raise AssertionError(f"{ticket} was refused: {why}")
            case WakeAt(when):
                self.forget_alarm()
                if when is not None:
                    self.put(when, Woke())


def measure_and_tell() -> list[dict[str, object]]:
    """Print the table; gives it as data too."""
    print(f"\nThe scheduler alone, {BUDGET_BYTES // GIB} GiB, models of 2 to 12 GiB:\n")
    print(HEAD)
    timings = []
    for count in MODELS:
        timings.append(timing := measure(count, WAITERS))
        print(
            f"| {timing.models} | {timing.waiters} | {timing.loaded:.1f} "
            f"| {timing.mean_us:.0f} µs | {timing.p99_us:.0f} µs |",
            flush=True,
        )
    return [asdict(timing) for timing in timings]


def measure(model_count: int, waiters: int) -> Timing:
    """Time DECISIONS decisions, from when everybody has asked."""
    dice = random.Random(SEED)  # noqa: S311  # the same play every time
    models = [
        Model(
            ModelName(f"m{number}"),
            demand={GPU: dice.randint(2, 12) * GIB},
            concurrency=4,
            queue_limit=waiters,
            patience_s=5.0,
        )
        for number in range(model_count)
    ]
    scheduler = Scheduler(models, {GPU: BUDGET_BYTES})
    play = Play([model.name for model in models], dice)
    for _ in range(waiters):
        play.ask(0.0)
    for _ in range(waiters):
        step(scheduler, play)
    took_s, loaded = [], []
    for _ in range(DECISIONS):
        took_s.append(step(scheduler, play))
        loaded.append(sum(worker.is_serving for worker in scheduler.state.workers.values()))
    return Timing(
        model_count,
        waiters,
        statistics.mean(loaded),
        statistics.mean(took_s) * 1e6,
        percentile(took_s, 0.99) * 1e6,
    )


def step(scheduler: Scheduler, play: Play) -> float:
    """Let the next thing happen; gives the seconds that the decision took."""
    now, event = play.next()
    began = time.perf_counter()
    commands = scheduler.handle(event, now)
    took_s = time.perf_counter() - began
    for command in commands:
        play.carry_out(command, now)
    return took_s
