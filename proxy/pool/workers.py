"""The workers that there are: each one's life is begun here, and what came of it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator

from proxy import errors
from proxy.metrics import Metrics
from proxy.pool.charges import Charges
from proxy.pool.launcher import Launcher
from proxy.pool.life import Life, World
from proxy.process import Process
from proxy.refusals import with_charge
from proxy.scheduler import (
    BecameReady,
    Ended,
    Event,
    Exited,
    ModelName,
    State,
    Terminate,
    WorkerId,
)
from proxy.seat import Seat
from proxy.setup import Setup
from proxy.swaps import Swap, SwapLog

log = logging.getLogger(__name__)


class Workers:
    """Carries out what the scheduler orders of workers, and feeds back what becomes of them."""

    def __init__(  # noqa: PLR0913  # the pool's parts
        self,
        launcher: Launcher,
        charges: Charges,
        state: State,
        *,
        swaps: SwapLog,
        metrics: Metrics,
        seats: dict[WorkerId, Seat],
        is_closing: asyncio.Event,
        feed: Callable[[Event], None],
        spawn: Callable[[Coroutine[object, object, None]], None],
        died: Callable[[ModelName], None],
    ) -> None:
        """`died` is told whose worker has ended when it served."""
        self._launcher = launcher
        self._charges = charges
        self._swaps = swaps
        self._metrics = metrics
        self._state = state
        self._seats = seats
        self._feed = feed
        self._spawn = spawn
        self._died = died
        self.failures: dict[ModelName, errors.StartFailed] = {}  # of each model's last start
        self._world = World(
            charges.watch,
            swaps,
            feed=feed,
            seated=self._seated,
            ended=self._ended,
            is_closing=is_closing,
        )

    def begin(self, setup: Setup, worker: WorkerId, name: ModelName, cause: str) -> None:
        """Let a worker's process be started; it waits for the order to load."""
        process = self._launcher.process(setup, worker, name)
        self._seats[worker] = seat = Seat(
            worker,
            name,
            setup,
            process,
            _now(),
            Swap(name, cause),
            self._swaps.tell,
            forerunners=list(self._forerunners(setup, name, process)),
        )
        self._spawn(self._live(seat))

    def _forerunners(self, setup: Setup, name: ModelName, process: Process) -> Iterator[Seat]:
        """Find who leaves, and has what a user's command may need: its port, or its name."""
        is_command = setup.config.models[name].kind == "cmd"
        for seat in self._seats.values():
            has_port = seat.process.own_port is not None
            has_its_port = has_port and seat.process.own_port == process.own_port
            is_in_the_way = has_its_port or (is_command and seat.model == name)
            if is_in_the_way and self._state.workers[seat.id].is_leaving:
                yield seat

    def order_load(self, worker: WorkerId) -> None:
        self._seats[worker].order_load(_now())

    def order_stop(self, order: Terminate) -> None:
        now, began = _now(), self._state.workers[order.worker].drain_began
        self._seats[order.worker].order_stop(order, now, now - began if began is not None else 0.0)

    async def _live(self, seat: Seat) -> None:
        try:
            await Life(seat, self._world).live()
        finally:
            seat.gone.set()  # whatever happens: there may be who waits for it
        if seat.order is not None:
            stop_s, cause = _now() - (seat.stop_began_at or 0.0), seat.order.cause.value
            log.info("unloaded", extra={"model": seat.model, "cause": cause, "stop_s": stop_s})
        if seat.ready_at is not None:
            self._swaps.tell(seat.swap)
        del self._seats[seat.id]
        self._feed(Exited(seat.id))

    def _seated(self, seat: Seat) -> None:
        self._feed(BecameReady(seat.id))
        self._charges.tell_measured(seat)
        if not self._state.workers[seat.id].leases:
            self._swaps.tell(seat.swap)  # no answer's first byte is to be waited for

    def _ended(self, seat: Seat, failure: errors.StartFailed | None) -> None:
        """Take in that a process is over, unasked, and why it did not get ready, if so."""
        if failure is not None:
            self._note_failure(seat, failure)
        else:
            words = seat.process.last_words()
            log.warning("worker_died", extra={"model": seat.model, "last_words": words})
            self._died(seat.model)
        ran_out = failure is not None and failure.reason == "out_of_memory"
        self._feed(Ended(seat.id, out_of_memory=ran_out))

    def _note_failure(self, seat: Seat, failure: errors.StartFailed) -> None:
        if failure.reason == "out_of_memory":
            self._metrics.out_of_memory.labels(seat.model, "load").inc()
            charge = self._state.workers[seat.id].charge
            failure = with_charge(failure, charge, self._state.budget)
        self.failures[seat.model] = failure
        log.warning("start_failed", extra={"model": seat.model, "why": failure.message})


def _now() -> float:
    return asyncio.get_running_loop().time()
