"""A tiny language for stories about the scheduler: events as they are told, commands as text."""

from __future__ import annotations

from typing import Self, assert_never

from proxy.scheduler import (
    Arrived,
    BecameReady,
    Command,
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
    ShutdownAsked,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
)

PASSING_TICKET = 999  # of a request that came, was served and went while the stage was set


def model(name: str, demand: int = 1, **rest) -> Model:
    return Model(ModelName(name), demand, **rest)


class Play:
    """Tells the scheduler a story; whatever it says has to be expected, alarms aside.

    A worker is written `a#1`: its model, and its number in the order of the processes.
    """

    def __init__(self, *models: Model, budget: int = 1) -> None:
        self.scheduler = Scheduler(list(models), budget)
        self.now = 0.0
        self.alarm: float | None = None
        self._names: dict[WorkerId, str] = {}
        self._said: list[str] = []

    # What happens

    def at(self, now: float) -> Self:
        assert now >= self.now
        self.now = now
        return self

    def arrives(self, name: str, *tickets: int) -> Self:
        for ticket in tickets:
            self._tell(Arrived(TicketId(ticket), ModelName(name)))
        return self

    def leaves(self, *tickets: int) -> Self:
        for ticket in tickets:
            self._tell(Left(TicketId(ticket)))
        return self

    def prepared(self, worker: str) -> Self:
        return self._tell(Prepared(_id(worker)))

    def ready(self, worker: str) -> Self:
        return self._tell(BecameReady(_id(worker)))

    def exits(self, worker: str) -> Self:
        return self._tell(Exited(_id(worker)))

    def unload(self, name: str | None, by: float) -> Self:
        return self._tell(UnloadAsked(None if name is None else ModelName(name), by))

    def shutdown(self, by: float) -> Self:
        return self._tell(ShutdownAsked(by))

    def wakes(self) -> Self:
        self.alarm = None  # this was it
        return self._tell(Woke())

    def seated(self, name: str, *serving: int, load_s: float = 0.0) -> Self:
        """Set the stage: load the model, to serve those tickets, or nobody."""
        tickets = serving or (PASSING_TICKET,)
        self.arrives(name, *tickets)
        worker = list(self._names.values())[-1]
        self.prepared(worker).at(self.now + load_s).ready(worker)
        if not serving:
            self.leaves(PASSING_TICKET)
        granted = {f"grant {ticket} on {worker}" for ticket in tickets}
        assert granted | {f"prepare {worker}", f"load {worker}"} == set(self._said)
        self._said = []
        return self

    # What the scheduler says to it

    def expect(self, *commands: str) -> Self:
        """Check all that was said since the last time, in whatever order."""
        said, self._said = self._said, []
        assert sorted(said) == sorted(commands)
        return self

    def expect_alarm(self, when: float | None) -> Self:
        assert self.alarm == when
        return self

    def _tell(self, event: Event) -> Self:
        for command in self.scheduler.handle(event, self.now):
            if isinstance(command, WakeAt):
                self.alarm = command.when
            else:
                self._said.append(self._text(command))
        return self

    def _text(self, command: Command) -> str:
        match command:
            case Prepare(worker, name):
                self._names[worker] = f"{name}#{worker}"
                return f"prepare {name}#{worker}"
            case Load(worker):
                return f"load {self._names[worker]}"
            case Grant(ticket, worker):
                return f"grant {ticket} on {self._names[worker]}"
            case Refuse(ticket, why, None):
                return f"refuse {ticket}: {why.value}"
            case Refuse(ticket, why, retry_after_s):
                return f"refuse {ticket}: {why.value}, retry after {retry_after_s:g} s"
            case Terminate(worker):
                return f"stop {self._names[worker]}"
            case WakeAt():
                raise AssertionError("an alarm is kept apart")
            case _:
                assert_never(command)


def _id(worker: str) -> WorkerId:
    return WorkerId(int(worker.rpartition("#")[2]))
