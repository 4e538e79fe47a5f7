"""The few acts that change a worker or a queue, and the commands that go with them."""

from __future__ import annotations

from proxy.scheduler.amounts import total
from proxy.scheduler.line import Turn
from proxy.scheduler.queue import Waiting
from proxy.scheduler.state import Leased, Place, State, Worker
from proxy.scheduler.types import (
    Arrived,
    Cause,
    Command,
    Demand,
    Grant,
    Load,
    Model,
    ModelName,
    Phase,
    Prepare,
    Refusal,
    Refuse,
    Terminate,
    TicketId,
    WorkerId,
)


class Hand:
    """Acts on the state, and notes the commands until they are taken."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.turns: list[Turn] | None = None  # of the line, as it was walked; None: walk it anew
        self._last_worker = 0
        self._commands: list[Command] = []

    def say(self, command: Command) -> None:
        self._commands.append(command)

    def take_commands(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    # Requests

    def take_in(self, asked: Arrived, now: float) -> None:
        """Let the ticket wait."""
        queue = self.state.queues[asked.model]
        self.state.where[asked.ticket] = asked.model
        queue.push(asked, now)
        self.state.has_priorities = self.state.has_priorities or asked.priority != 0
        self.state.stirred.add(asked.model)
        if queue.front.asked is asked:
            self.turns = None  # what is demanded follows from who waits foremost

    def remove(self, ticket: TicketId) -> Waiting:
        """Let the ticket wait no more."""
        name = self.state.where[ticket]
        queue = self.state.queues[name]
        waiting = queue.remove(ticket)
        if not queue:
            self.state.alone.discard(name)
        self.state.stirred.add(name)
        if name in self.state.line:
            self.turns = None
        return waiting

    def refuse(self, ticket: TicketId, why: Refusal, retry_after_s: float | None = None) -> None:
        self.remove(ticket)
        del self.state.where[ticket]
        self.say(Refuse(ticket, why, retry_after_s))

    def refuse_waiting(
        self, name: ModelName, why: Refusal, retry_after_s: float | None = None
    ) -> None:
        for ticket in [waiting.ticket for waiting in self.state.queues[name]]:
            self.refuse(ticket, why, retry_after_s)

    def serve(self, worker: Worker, now: float) -> None:
        """Grant the worker's foremost tickets, as many as it has room and memory for."""
        queue = self.state.queues.get(worker.model.name)
        while queue and worker.has_room and not self.state.growth(worker):
            asked = self.remove(queue.front.ticket).asked
            worker.leases[asked.ticket] = Leased(now, asked.priority)
            worker.keep_alive_s = asked.keep_alive_s
            worker.idle_since = now
            self.say(Grant(asked.ticket, worker.id))

    # Workers

    def prepare(self, model: Model, now: float) -> None:
        self.turns = None
        self._last_worker += 1
        worker = Worker(WorkerId(self._last_worker), model, asked_at=now)
        self.state.workers[worker.id] = worker
        self.say(Prepare(worker.id, model.name))

    def line_up(self, name: ModelName, place: Place) -> None:
        """Let the model stand in the line, at its place.

        Of equals, who came first; of those who came with one event, as they are configured.
        """
        line, order = {**self.state.line, name: place}, self.state.order
        ranks = sorted((one.rank, one.entered, order[name], name) for name, one in line.items())
        self.state.line = {rank[-1]: line[rank[-1]] for rank in ranks}
        self.turns = None

    def load(self, worker: Worker, demand: Demand, now: float) -> None:
        """Let it load, with the memory that its model stood in the line for."""
        worker.is_alone = self.state.must_be_alone(worker.model)
        worker.phase, worker.is_charged = Phase.LOADING, True
        worker.load_began, worker.lined_up = now, self.state.line.pop(worker.model.name)
        self.charge(worker, demand)
        self.say(Load(worker.id))

    def charge(self, worker: Worker, demand: Demand) -> None:
        """Let the worker's charge be this, whatever it was."""
        charged = self.state.charged
        for device, amount in worker.charge.items():
            charged[device] -= amount
        for device, amount in demand.items():
            charged[device] = charged.get(device, 0) + amount
        worker.charge = demand
        self.touch(worker)
        if worker.model.pinned:
            self.state.has_less_room = True

    def grow(self, worker: Worker, more: Demand) -> None:
        self.charge(worker, total([worker.charge, more]))

    def evict(self, worker: Worker, makes_room_for: ModelName, now: float) -> None:
        """Let it finish what it serves, and go."""
        worker.makes_room_for, worker.drain_began = makes_room_for, now
        self.touch(worker)
        if worker.leases:
            worker.phase = Phase.DRAINING
        else:
            self.stop(worker, Cause.SWAP)

    def reprieve(self, worker: Worker) -> None:
        worker.phase, worker.drain_began, worker.makes_room_for = Phase.READY, None, None
        self.touch(worker)

    def retire(self, worker: Worker, deadline: float, cause: Cause) -> None:
        """Let it finish what it serves, until the deadline; the first asking says the cause."""
        self.touch(worker)
        if not worker.is_serving:
            self.stop(worker, cause)
        elif worker.retire_by is None:
            self.lose_seat(worker)
            worker.retire_by, worker.retire_cause = deadline, cause
        else:
            worker.retire_by = min(worker.retire_by, deadline)

    def touch(self, worker: Worker) -> None:
        """Note that the worker is not what it was: its model may serve, or need memory."""
        self.state.stirred.add(worker.model.name)
        self.turns = None

    def lose_seat(self, worker: Worker) -> None:
        """Let who waits for more of its memory stand in the line anew: for all of it."""
        if worker.is_charged and not worker.is_leaving:
            self.state.line.pop(worker.model.name, None)

    def stop(self, worker: Worker, cause: Cause) -> None:
        if worker.phase is not Phase.STOPPING:
            self.lose_seat(worker)
            worker.phase = Phase.STOPPING
            self.touch(worker)
            self.say(Terminate(worker.id, cause, worker.makes_room_for))
