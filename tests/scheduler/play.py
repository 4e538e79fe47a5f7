"""A tiny language for stories about the scheduler: events as they are told, commands as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self, assert_never

from proxy.scheduler import (
    Arrived,
    BecameReady,
    BudgetChanged,
    Command,
    Company,
    Demand,
    Device,
    Ended,
    Event,
    Exited,
    Grant,
    Left,
    Load,
    Measured,
    Model,
    ModelName,
    Outlook,
    Prepare,
    Prepared,
    Refuse,
    Reloaded,
    Scheduler,
    ShutdownAsked,
    Stuck,
    Terminate,
    TicketId,
    UnloadAsked,
    WakeAt,
    Woke,
    WorkerId,
    outlooks,
)

PASSING_TICKET = 999  # of a request that came, was served and went while the stage was set


ONE = Device("one")  # the device of a story that tells of no more than one


def amounts(of: int | Mapping[str, int]) -> Demand:
    """Read a plain number as so much of the one device; nothing of it as nothing at all."""
    if isinstance(of, int):
        return {ONE: of} if of else {}
    return {Device(device): amount for device, amount in of.items()}


def model(
    name: str, demand: int | Mapping[str, int] = 1, *, patience_s: float | None = 5.0, **rest
) -> Model:
    return Model(ModelName(name), amounts(demand), patience_s=patience_s, **rest)


class Play:
    """Tells the scheduler a story; whatever it says has to be expected, alarms aside.

    A worker is written `a#1`: its model, and its number in the order of the processes.
    """

    def __init__(
        self,
        *models: Model,
        budget: int | Mapping[str, int] = 1,
        company: Company | None = None,
    ) -> None:
        self.scheduler = Scheduler(list(models), amounts(budget), company)
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

    def asks(
        self,
        name: str,
        ticket: int,
        *,
        demand: int | Mapping[str, int] = 0,
        priority: int = 0,
        keep_alive_s: float | None = None,
    ) -> Self:
        """Let a request with wishes arrive."""
        wishes = priority, amounts(demand), keep_alive_s
        return self._tell(Arrived(TicketId(ticket), ModelName(name), *wishes))

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

    def ends(self, worker: str) -> Self:
        """Let the process be over, unasked; what it held is not seen free yet."""
        return self._tell(Ended(_id(worker)))

    def runs_out(self, worker: str) -> Self:
        """Let a load fail for want of memory."""
        return self._tell(Exited(_id(worker), out_of_memory=True))

    def sticks(self, worker: str) -> Self:
        return self._tell(Stuck(_id(worker)))

    def measured(
        self, worker: str, charge: int | Mapping[str, int], of_model: int | Mapping[str, int]
    ) -> Self:
        return self._tell(Measured(_id(worker), amounts(charge), amounts(of_model)))

    def budget(self, of: int | Mapping[str, int]) -> Self:
        return self._tell(BudgetChanged(amounts(of)))

    def reload(
        self,
        *models: Model,
        budget: int | Mapping[str, int] = 1,
        changed: Iterable[str] = (),
        by: float = 1000,
        company: Company | None = None,
    ) -> Self:
        names = frozenset(map(ModelName, changed))
        event = Reloaded(models, amounts(budget), names, by, company or Company())
        return self._tell(event)

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

    def outlook(self, ticket: int) -> Outlook:
        """Find what the ticket is told about its wait."""
        everybody = outlooks(self.scheduler.state, self.now)
        return next(one for one in everybody if one.ticket == ticket)

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
