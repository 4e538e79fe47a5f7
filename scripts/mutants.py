"""Break the scheduler on purpose, one line at a time, and see whether its tests notice.

    .venv/bin/python scripts/mutants.py [WORD …]    # only those whose description has the words

Each mutant is a copy of the package in a temporary folder; the tree is not touched. The stories
come first, as they are quick; the machine has the last word.
"""

# ruff: noqa: E501  # the lines are the scheduler's own

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORIES = ["test_table.py", "test_bytes.py", "test_wishes.py", "test_company.py"]
SUITES = [STORIES, ["test_machine.py"], ["test_eviction.py"], ["test_fairness.py"]]
LIMIT_S = 300

# No shrinking, no memory of former runs: only whether it is noticed counts.
CONFTEST = """
from hypothesis import Phase, settings
settings.register_profile(
    "mutants", max_examples=600, stateful_step_count=40, deadline=None,
    phases=[Phase.generate], database=None,
)
settings.load_profile("mutants")
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line that is wrong, and what it breaks."""

    breaks: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "loads over the budget by what is already charged",
        "state.py",
        "return {d: amount - self.charged.get(d, 0) for d, amount in self.budget.items()}",
        "return dict(self.budget)",
    ),
    Mutant(
        "never fills the budget to the brim",
        "amounts.py",
        "if amount > max(there.get(device, 0), 0)",
        "if amount >= max(there.get(device, 0), 0)",
    ),
    Mutant(
        "takes memory as free on Terminate",
        "hand.py",
        "            self.say(Terminate(worker.id, cause, worker.makes_room_for))",
        "            self.charge(worker, {})\n            self.say(Terminate(worker.id, cause, worker.makes_room_for))",
    ),
    Mutant(
        "evicts more than is needed: forgets who is leaving already",
        "line.py",
        "            if worker.gives_back:",
        "            if worker.gives_back and False:",
    ),
    Mutant(
        "evicts more than is needed: forgets who drains already",
        "settle.py",
        "need = _still_lacking(head, draining)\n",
        "need = _still_lacking(head, [])\n",
    ),
    Mutant(
        "evicts one victim too many",
        "eviction.py",
        "for count in range(1, len(helpful) + 1):",
        "for count in range(min(2, len(helpful)), len(helpful) + 1):",
    ),
    Mutant(
        "evicts busy ones as readily as idle ones",
        "eviction.py",
        "for candidates in (idle, [*idle, *busy]):",
        "for candidates in ([*idle, *busy],):",
    ),
    Mutant(
        "does not prefer the idle among mixed victims",
        "eviction.py",
        "sum(id(one) in disturbed for one in some),",
        "0,",
    ),
    Mutant(
        "evicts the dearest",
        "eviction.py",
        "sum(load_s for load_s, _ in costs)",
        "-sum(load_s for load_s, _ in costs)",
    ),
    Mutant(
        "evicts the largest",
        "eviction.py",
        "sum(sum(charge(one).values()) for one in some)",
        "-sum(sum(charge(one).values()) for one in some)",
    ),
    Mutant(
        "evicts the most recently used",
        "eviction.py",
        "max(used for _, used in costs)",
        "-max(used for _, used in costs)",
    ),
    Mutant(
        "evicts though it does not help",
        "eviction.py",
        "    return ()",
        "    return idle",
    ),
    Mutant(
        "weighs memory before load time",
        "eviction.py",
        "            sum(load_s for load_s, _ in costs),\n            sum(sum(charge(one).values()) for one in some),",
        "            sum(sum(charge(one).values()) for one in some),\n            sum(load_s for load_s, _ in costs),",
    ),
    Mutant(
        "of many: keeps a superfluous victim",
        "eviction.py",
        "            chosen = rest\n",
        "            pass\n",
    ),
    Mutant(
        "of many: never looks for a cheaper one",
        "eviction.py",
        "        if other is not None:",
        "        if other is None:\n            continue\n        if price(other) == price(one):",
    ),
    Mutant(
        "of many: takes the small ones first",
        "eviction.py",
        "key=frees, reverse=True",
        "key=frees",
    ),
    Mutant(
        "evicts the pinned",
        "line.py",
        "if not w.model.pinned\n        and not w.is_leaving",
        "if not w.is_leaving",
    ),
    Mutant(
        "evicts who must grow for the same request",
        "line.py",
        "        and (head is None or w is not head.worker)\n",
        "",
    ),
    Mutant(
        "stops a load that is waited for",
        "line.py",
        "(w.phase is Phase.LOADING and state.is_idle(w))",
        "(w.phase is Phase.LOADING)",
    ),
    Mutant(
        "never stops a load that nobody waits for",
        "line.py",
        " or (w.phase is Phase.LOADING and state.is_idle(w))",
        "",
    ),
    Mutant(
        "patience is not counted anew from ready",
        "line.py",
        "max(since, worker.ready_since)",
        "since",
    ),
    Mutant(
        "patience of the seated one, not of the head",
        "line.py",
        "+ state.patience_s(head.model)",
        "+ state.patience_s(worker.model)",
    ),
    Mutant(
        "no patience at all",
        "settle.py",
        "[w for w in candidates if not state.is_idle(w) and now >= spared_until(state, w, head)]",
        "[w for w in candidates if not state.is_idle(w)]",
    ),
    Mutant(
        "patience never ends",
        "settle.py",
        "not state.is_idle(w) and now >= spared_until(state, w, head)",
        "not state.is_idle(w) and now < spared_until(state, w, head)",
    ),
    Mutant(
        "drains before the head is prepared",
        "line.py",
        "return self.worker is not None and self.worker.phase in (Phase.PREPARED, Phase.READY)",
        "return self.worker is not None",
    ),
    Mutant(
        "nothing is set aside of what is free",
        "line.py",
        "            self._free[device] = self._free.get(device, 0) - amount\n",
        "",
    ),
    Mutant(
        "nothing is set aside of what will be free",
        "line.py",
        "            self._hope[device] = self._hope.get(device, 0) - amount\n",
        "",
    ),
    Mutant(
        "two heads make room on one device",
        "line.py",
        "self._closed.isdisjoint(demand) and self._awaited.isdisjoint(lack)",
        "self._closed.isdisjoint(demand)",
    ),
    Mutant(
        "a lack closes every device of the model",
        "line.py",
        "self._closed.update(lack)",
        "self._closed.update(demand)",
    ),
    Mutant(
        "a model without demand waits behind the head",
        "line.py",
        "if self._is_closed and model.demand:",
        "if self._is_closed:",
    ),
    Mutant(
        "a model without demand is forgotten when all is closed",
        "line.py",
        "return self._is_closed and self._state.all_demand",
        "return self._is_closed",
    ),
    Mutant(
        "who needs much sets nothing aside while he must wait",
        "line.py",
        "        if in_the_way is None or not is_clear:\n            self._awaited.update(demand)\n",
        "        if in_the_way is None or not is_clear:\n",
    ),
    Mutant(
        "who has just lost the seat stands first in line",
        "settle.py",
        "(now, state.event_count)",
        "(0.0, 0)",
    ),
    Mutant(
        "everybody's wait starts anew with each event",
        "settle.py",
        "(known.since, known.entered) if known else (now, state.event_count)",
        "(now, state.event_count)",
    ),
    Mutant(
        "the line is not sorted",
        "hand.py",
        "ranks = sorted((one.rank, one.entered, order[name], name) for name, one in line.items())",
        "ranks = [(one.rank, one.entered, order[name], name) for name, one in line.items()]",
    ),
    Mutant(
        "priority counts for nothing in the line",
        "state.py",
        "return self.since - PRIORITY_S * self.priority",
        "return self.since",
    ),
    Mutant(
        "priority counts for nothing in the queue",
        "queue.py",
        "now - PRIORITY_S * asked.priority",
        "now",
    ),
    Mutant(
        "priority is absolute in the queue",
        "queue.py",
        "now - PRIORITY_S * asked.priority",
        "now - 1000 * PRIORITY_S * asked.priority",
    ),
    Mutant(
        "a place does not follow its foremost ticket",
        "settle.py",
        "        if place != known:",
        "        if known is None:",
    ),
    Mutant(
        "the priority of the head does not shorten its patience",
        "line.py",
        "PRIORITY_S * (head.place.priority - state.priority(worker))",
        "PRIORITY_S * (0 - state.priority(worker))",
    ),
    Mutant(
        "the priority of the served does not lengthen patience",
        "line.py",
        "PRIORITY_S * (head.place.priority - state.priority(worker))",
        "PRIORITY_S * head.place.priority",
    ),
    Mutant(
        "the priority of the waiting does not spare their worker",
        "state.py",
        "waiting = [queue.front.asked.priority] if queue else []",
        "waiting: list[int] = []",
    ),
    Mutant(
        "a draining worker counts as absent",
        "state.py",
        "            w.model.name: w for w in self.workers.values() if w.is_charged and not w.is_leaving\n",
        "            w.model.name: w\n            for w in self.workers.values()\n            if w.is_charged and not w.is_leaving and w.phase is not Phase.DRAINING\n",
    ),
    Mutant(
        "a draining worker's model stands in line",
        "state.py",
        "seated = next((w for w in held if w.is_charged and not w.is_leaving), None)",
        "seated = next((w for w in held if w.is_charged and w.is_open), None)",
    ),
    Mutant(
        "a drained one never serves again",
        "settle.py",
        "            _reprieve(hand, line)\n            or ",
        "            ",
    ),
    Mutant(
        "reprieves those that the head still needs",
        "settle.py",
        "worker in head.expels or _still_lacking(head, rest) for head",
        "worker in head.expels for head",
    ),
    Mutant(
        "one reprieve too many",
        "settle.py",
        "if w is not worker and w not in spared]",
        "if w is not worker]",
    ),
    Mutant(
        "reprieves the one with less to do",
        "settle.py",
        "key=lambda w: -len(w.leases)",
        "key=lambda w: len(w.leases)",
    ),
    Mutant(
        "grants one lease too many",
        "state.py",
        "len(self.leases) < self.model.concurrency",
        "len(self.leases) <= self.model.concurrency",
    ),
    Mutant(
        "grants on draining workers",
        "state.py",
        "return self.phase is Phase.READY and self.retire_by is None",
        "return self.is_serving and self.retire_by is None",
    ),
    Mutant(
        "grants on a worker that is being unloaded",
        "state.py",
        "return self.phase is Phase.READY and self.retire_by is None",
        "return self.phase is Phase.READY",
    ),
    Mutant(
        "last in, first out",
        "queue.py",
        "return self._by_ticket[self._places[0][1]]",
        "return self._by_ticket[self._places[-1][1]]",
    ),
    Mutant(
        "believes a late ready",
        "core.py",
        "if worker is None or worker.phase is not Phase.LOADING:",
        "if worker is None:",
    ),
    Mutant(
        "believes a late prepared",
        "core.py",
        "if worker is not None and worker.phase is Phase.PREPARING:",
        "if worker is not None:",
    ),
    Mutant(
        "believes that a worker which serves is stuck",
        "core.py",
        "        if worker is not None and worker.phase is Phase.STOPPING:\n            worker.is_stuck",
        "        if worker is not None:\n            worker.is_stuck",
    ),
    Mutant(
        "keeps a process that nobody waits for",
        "settle.py",
        "unwanted = worker.is_coming and not state.is_wanted(worker.model.name)",
        "unwanted = False",
    ),
    Mutant(
        "stops a load that nobody waits for, though nobody needs its seat",
        "settle.py",
        "unwanted = worker.is_coming and",
        "unwanted = not worker.is_serving and",
    ),
    Mutant(
        "being granted does not count as being used",
        "hand.py",
        "            worker.idle_since = now\n            self.say(Grant",
        "            self.say(Grant",
    ),
    Mutant(
        "the ttl clock does not start anew when a lease ends",
        "core.py",
        "                worker.idle_since = now\n                self.state.stirred",
        "                self.state.stirred",
    ),
    Mutant(
        "the ttl counts from the load's beginning",
        "core.py",
        "worker.ready_since = worker.idle_since = now",
        "worker.ready_since = now; worker.idle_since = worker.load_began",
    ),
    Mutant(
        "pinned models have a ttl",
        "state.py",
        "        if self.model.pinned:\n            return math.inf\n",
        "",
    ),
    Mutant(
        "the ttl ends leases",
        "state.py",
        "if worker.phase is not Phase.READY or worker.leases:",
        "if worker.phase is not Phase.READY:",
    ),
    Mutant(
        "the ttl cuts off those that wait to grow",
        "state.py",
        "if math.isinf(ttl_s) or self.is_wanted(worker.model.name):",
        "if math.isinf(ttl_s):",
    ),
    Mutant(
        "keep-alive of nothing is no keep-alive",
        "state.py",
        "return self.keep_alive_s if self.keep_alive_s is not None else self.model.ttl_s or math.inf",
        "return self.keep_alive_s or self.model.ttl_s or math.inf",
    ),
    Mutant(
        "keep-alive is not taken from the request",
        "hand.py",
        "            worker.keep_alive_s = asked.keep_alive_s\n",
        "",
    ),
    Mutant(
        "a plain request keeps the last keep-alive",
        "hand.py",
        "            worker.keep_alive_s = asked.keep_alive_s\n",
        "            worker.keep_alive_s = asked.keep_alive_s or worker.keep_alive_s\n",
    ),
    Mutant(
        "no alarm for a ttl",
        "line.py",
        "            yield expiry\n",
        "            yield from ()\n",
    ),
    Mutant(
        "no alarm for patience",
        "line.py",
        "                    yield spared_until(state, worker, turn)",
        "                    yield from ()",
    ),
    Mutant(
        "no alarm for a deadline",
        "line.py",
        "            yield worker.retire_by\n",
        "            yield from ()\n",
    ),
    Mutant(
        "who waits for what is unloaded has it come again",
        "core.py",
        "if worker.is_awaited:",
        "if False:",
    ),
    Mutant(
        "an unload refuses who waits for a model that serves",
        "core.py",
        "if worker.is_awaited:",
        "if True:",
    ),
    Mutant(
        "a second unload takes the deadline back",
        "hand.py",
        "worker.retire_by = min(worker.retire_by, deadline)",
        "worker.retire_by = deadline",
    ),
    Mutant(
        "an unload cuts leases at once",
        "settle.py",
        "(not worker.leases or now >= worker.retire_by)",
        "True",
    ),
    Mutant(
        "an unload has no deadline",
        "settle.py",
        "(not worker.leases or now >= worker.retire_by)",
        "not worker.leases",
    ),
    Mutant(
        "who lost his seat keeps his place to grow",
        "hand.py",
        "            self.state.line.pop(worker.model.name, None)\n",
        "            pass\n",
    ),
    Mutant(
        "an asked-for exit counts as a failed start",
        "core.py",
        "if worker is None or worker.phase is Phase.STOPPING:\n            return\n        was_serving",
        "if worker is None:\n            return\n        was_serving",
    ),
    Mutant(
        "a crash while serving counts as a failed start",
        "core.py",
        "        if was_serving:\n            return\n",
        "",
    ),
    Mutant(
        "the cool-down does not double",
        "core.py",
        "before.pause_s * 2",
        "before.pause_s * 1",
    ),
    Mutant(
        "the cool-down has no upper bound",
        "core.py",
        "min(before.pause_s * 2, COOL_DOWN_LONGEST_S)",
        "before.pause_s * 2",
    ),
    Mutant(
        "a success does not reset the cool-down",
        "core.py",
        "        self.state.failures.pop(name, None)\n",
        "",
    ),
    Mutant(
        "a failed start leaves its waiters waiting",
        "core.py",
        "        self._hand.refuse_waiting(name, Refusal.START_FAILED, pause_s)\n",
        "",
    ),
    Mutant(
        "cools down a moment too long",
        "core.py",
        "now < failure.until",
        "now <= failure.until",
    ),
    Mutant(
        "the queue takes one more than its limit",
        "core.py",
        ">= model.queue_limit",
        "> model.queue_limit",
    ),
    Mutant(
        "forgets what other pinned models reserve",
        "state.py",
        "taken = total([*pinned, *stuck])",
        "taken = total(stuck)",
    ),
    Mutant(
        "a pinned model reserves against itself",
        "state.py",
        "for m in self.pinned if m.name != model.name]",
        "for m in self.pinned]",
    ),
    Mutant(
        "a pinned model reserves no more than was configured",
        "state.py",
        "return larger(model.demand, held.charge)",
        "return model.demand",
    ),
    Mutant(
        "a pinned model alone reserves all there is",
        "state.py",
        "if held is None or held.is_alone:",
        "if held is None:",
    ),
    Mutant(
        "forgets what stuck workers hold",
        "state.py",
        "taken = total([*pinned, *stuck])",
        "taken = total(pinned)",
    ),
    Mutant(
        "waits for what a stuck worker holds",
        "state.py",
        "return self.is_leaving and not self.is_stuck",
        "return self.is_leaving",
    ),
    Mutant(
        "shutdown still lets requests in",
        "core.py",
        "        self._is_shutting_down = True\n",
        "",
    ),
    Mutant(
        "shutdown leaves the waiting waiting",
        "core.py",
        "            self._hand.refuse_waiting(name, Refusal.SHUTTING_DOWN)",
        "            pass",
    ),
    Mutant(
        "tells the alarm again and again",
        "core.py",
        "        if alarm != self._alarm:\n",
        "        if alarm is not None:\n",
    ),
    Mutant(
        "a load charges what the model demands, not its first request",
        "state.py",
        "demand = larger(model.demand, queue.front.asked.demand) if queue else model.demand",
        "demand = model.demand",
    ),
    Mutant(
        "a load charges what its first request demands, not the model",
        "state.py",
        "demand = larger(model.demand, queue.front.asked.demand) if queue else model.demand",
        "demand = queue.front.asked.demand if queue else model.demand",
    ),
    Mutant(
        "grants before the charge has grown",
        "hand.py",
        "while queue and worker.has_room and not self.state.growth(worker):",
        "while queue and worker.has_room:",
    ),
    Mutant(
        "growth is not charged",
        "hand.py",
        "self.charge(worker, total([worker.charge, more]))",
        "worker.charge = total([worker.charge, more])",
    ),
    Mutant(
        "growth replaces the charge",
        "hand.py",
        "self.charge(worker, total([worker.charge, more]))",
        "self.charge(worker, more)",
    ),
    Mutant(
        "who must grow does not stand in the line",
        "state.py",
        "return seated is None or (seated.has_room and bool(self.growth(seated)))",
        "return seated is None",
    ),
    Mutant(
        "who must grow asks for all of it again",
        "line.py",
        "demand = state.growth(seated) if seated is not None else state.demand(model)",
        "demand = state.demand(model)",
    ),
    Mutant(
        "does not load into what fits",
        "settle.py",
        "elif turn.fits and worker.phase is Phase.PREPARED:",
        "elif turn.fits and not turn.lack and worker.phase is Phase.PREPARING:",
    ),
    Mutant(
        "loads before it is prepared",
        "settle.py",
        "elif turn.fits and worker.phase is Phase.PREPARED:",
        "elif turn.fits and worker.is_coming:",
    ),
    Mutant(
        "loads though it does not fit",
        "settle.py",
        "elif turn.fits and worker.phase is Phase.PREPARED:",
        "elif worker.phase is Phase.PREPARED:",
    ),
    Mutant(
        "grows though it does not fit",
        "settle.py",
        "elif turn.fits and worker.phase is Phase.READY:",
        "elif worker.phase is Phase.READY:",
    ),
    Mutant(
        "an exit gives nothing back",
        "core.py",
        "        if worker is not None:\n            self._hand.charge(worker, {})\n",
        "",
    ),
    Mutant(
        "measuring does not correct the charge",
        "core.py",
        "            self._hand.charge(worker, event.charge)",
        "            pass",
    ),
    Mutant(
        "measuring charges a worker that has not loaded",
        "core.py",
        "if worker.is_charged and worker.phase is not Phase.STOPPING:",
        "if worker.phase is not Phase.STOPPING:",
    ),
    Mutant(
        "measuring corrects the charge of one that is going",
        "core.py",
        "if worker.is_charged and worker.phase is not Phase.STOPPING:",
        "if worker.is_charged:",
    ),
    Mutant(
        "measuring teaches nothing about the model",
        "core.py",
        "                    demand=event.model_demand,\n",
        "",
    ),
    Mutant(
        "measuring leaves the model to load alone",
        "core.py",
        "                    loads_alone=False,\n",
        "",
    ),
    Mutant(
        "a worker of the old config teaches about the new model",
        "core.py",
        "        if not worker.is_stale:\n            worker.is_alone = False",
        "        if worker.model.name in self.state.models:\n            worker.is_alone = False",
    ),
    Mutant(
        "who waits is not looked at when a model turns out larger",
        "core.py",
        "        self.state.know({**self.state.models, model.name: model}.values())\n        self._look_anew()\n",
        "        self.state.know({**self.state.models, model.name: model}.values())\n        self._hand.turns = None\n",
    ),
    Mutant(
        "who waits is not looked at when the budget shrinks",
        "core.py",
        "                self.state.budget = budget\n                self._look_anew()",
        "                self.state.budget = budget\n                self._hand.turns = None",
    ),
    Mutant(
        "who waits is not looked at when memory is lost",
        "core.py",
        "            worker.is_stuck = True\n            self._look_anew()",
        "            worker.is_stuck = True\n            self._hand.turns = None",
    ),
    Mutant(
        "who waits is not looked at when a pinned model takes more",
        "hand.py",
        "            self.state.has_less_room = True",
        "            pass",
    ),
    Mutant(
        "who waits is not looked at when his seat is lost",
        "settle.py",
        "        if known is None and state.is_wanting(name):",
        "        if False:",
    ),
    Mutant(
        "refuses those whom a seat still serves",
        "state.py",
        "return seated is not None and not missing(asked.demand, seated.charge)",
        "return False",
    ),
    Mutant(
        "refuses by the model's demand alone",
        "state.py",
        "if fits(model.demand, room) and fits(asked.demand, room):",
        "if fits(model.demand, room):",
    ),
    Mutant(
        "nobody goes when the budget shrinks",
        "settle.py",
        "            or _shrink(hand)\n",
        "",
    ),
    Mutant(
        "the busy go when the budget shrinks",
        "settle.py",
        "idle = [w for w in evictable(state) if state.is_idle(w)]\n    helpful",
        "idle = [w for w in evictable(state) if not w.leases]\n    helpful",
    ),
    Mutant(
        "all the idle go when the budget shrinks",
        "settle.py",
        "victims = _victims(state, helpful, [], over) or helpful",
        "victims = helpful",
    ),
    Mutant(
        "nobody goes when not enough could",
        "settle.py",
        "victims = _victims(state, helpful, [], over) or helpful",
        "victims = _victims(state, helpful, [], over)",
    ),
    Mutant(
        "the idle of every device go when one has too little",
        "settle.py",
        "helpful = [w for w in idle if not over.keys().isdisjoint(w.charge)]",
        "helpful = idle if over else []",
    ),
    Mutant(
        "shrinking forgets who leaves anyway",
        "settle.py",
        "leaving = total(w.charge for w in workers if w.gives_back or w.phase is Phase.DRAINING)",
        "leaving = total(w.charge for w in workers if w.phase is Phase.DRAINING)",
    ),
    Mutant(
        "shrinking forgets who drains anyway",
        "settle.py",
        "leaving = total(w.charge for w in workers if w.gives_back or w.phase is Phase.DRAINING)",
        "leaving = total(w.charge for w in workers if w.gives_back)",
    ),
    Mutant(
        "settling ends with the first victim",
        "settle.py",
        "            or _make_room(hand, line, now)\n        ):\n            return line",
        "            or (_make_room(hand, line, now) and False)\n        ):\n            return line",
    ),
    Mutant(
        "never tries again alone",
        "core.py",
        "if out_of_memory and self._may_do_better_alone(worker):",
        "if False:",
    ),
    Mutant(
        "tries again alone after any failure",
        "core.py",
        "if out_of_memory and self._may_do_better_alone(worker):",
        "if self._may_do_better_alone(worker):",
    ),
    Mutant(
        "tries again though it was alone",
        "core.py",
        "and any(w is not worker and not held.isdisjoint(w.charge) for w in others)",
        "and True",
    ),
    Mutant(
        "tries again because of other devices",
        "core.py",
        "and any(w is not worker and not held.isdisjoint(w.charge) for w in others)",
        "and any(w is not worker for w in others)",
    ),
    Mutant(
        "tries again because of the pinned",
        "core.py",
        "if w.is_charged and not w.model.pinned and not w.is_stuck)",
        "if w.is_charged and not w.is_stuck)",
    ),
    Mutant(
        "tries again and again alone",
        "core.py",
        "            not worker.is_alone\n            and ",
        "            ",
    ),
    Mutant(
        "the second try is not alone",
        "state.py",
        "        if self.must_be_alone(model):\n            return larger",
        "        if model.loads_alone:\n            return larger",
    ),
    Mutant(
        "a model of unknown size loads beside others",
        "state.py",
        "return model.loads_alone or model.name in self.alone",
        "return model.name in self.alone",
    ),
    Mutant(
        "the second try stands last",
        "core.py",
        "self._hand.line_up(name, replace(worker.lined_up, priority=priority))",
        "self._hand.line_up(name, replace(worker.lined_up, since=now, priority=priority))",
    ),
    Mutant(
        "the second try keeps all there is",
        "core.py",
        "        if worker.is_alone and not worker.model.loads_alone:",
        "        if False:",
    ),
    Mutant(
        "the next request pays for a second try that is off",
        "hand.py",
        "        if not queue:\n            self.state.alone.discard(name)\n",
        "",
    ),
    Mutant(
        "the second try waits though there is no room",
        "core.py",
        "            self.state.has_less_room = True  # its seat may have been more than is left now\n",
        "",
    ),
    Mutant(
        "a reload forgets the budget",
        "core.py",
        "state.budget, state.company = event.budget, event.company",
        "state.company = event.company",
    ),
    Mutant(
        "a reload retires the unchanged",
        "core.py",
        "if name in event.changed or name not in state.models:",
        "if True:",
    ),
    Mutant(
        "a reload keeps the changed",
        "core.py",
        "if name in event.changed or name not in state.models:",
        "if name not in state.models:",
    ),
    Mutant(
        "a reload keeps workers of models that are gone",
        "core.py",
        "if name in event.changed or name not in state.models:",
        "if name in event.changed:",
    ),
    Mutant(
        "a reload leaves the waiting of models that are gone",
        "core.py",
        "            self._hand.refuse_waiting(name, Refusal.UNKNOWN_MODEL)\n            del state.queues[name]\n            state.line.pop(name, None)\n",
        "            state.line.pop(name, None)\n",
    ),
    Mutant(
        "a reload leaves models that are gone in the line",
        "core.py",
        "            del state.queues[name]\n            state.line.pop(name, None)\n",
        "            del state.queues[name]\n",
    ),
    Mutant(
        "a reload keeps the cool-down of what has changed",
        "core.py",
        "            state.forget(name)\n",
        "            pass\n",
    ),
    Mutant(
        "a reload does not tell running workers of their settings",
        "core.py",
        "                worker.model = state.models[name]",
        "                pass",
    ),
    Mutant(
        "patience does not follow the load time",
        "state.py",
        "return min(max(2 * load_s, PATIENCE_LEAST_S), PATIENCE_MOST_S)",
        "return PATIENCE_UNKNOWN_S",
    ),
    Mutant(
        "patience has no upper bound",
        "state.py",
        "return min(max(2 * load_s, PATIENCE_LEAST_S), PATIENCE_MOST_S)",
        "return max(2 * load_s, PATIENCE_LEAST_S)",
    ),
    Mutant(
        "patience has no lower bound",
        "state.py",
        "return min(max(2 * load_s, PATIENCE_LEAST_S), PATIENCE_MOST_S)",
        "return min(2 * load_s, PATIENCE_MOST_S)",
    ),
    Mutant(
        "a configured patience is ignored",
        "state.py",
        "        if model.patience_s is not None:\n            return model.patience_s\n",
        "",
    ),
    Mutant(
        "times of an earlier life are ignored",
        "state.py",
        "                self.load_s.setdefault(name, model.load_s)",
        "                pass",
    ),
    Mutant(
        "times of an earlier life outweigh the new",
        "state.py",
        "                self.load_s.setdefault(name, model.load_s)",
        "                self.load_s[name] = model.load_s",
    ),
    Mutant(
        "the forecast forgets the load",
        "forecast.py",
        "return sum(load_s or 0.0 for load_s in loads) + stays_s + _leaving_s(state, ahead[0], now)",
        "return stays_s + _leaving_s(state, ahead[0], now)",
    ),
    Mutant(
        "the forecast forgets who has to leave",
        "forecast.py",
        "return sum(load_s or 0.0 for load_s in loads) + stays_s + _leaving_s(state, ahead[0], now)",
        "return sum(load_s or 0.0 for load_s in loads) + stays_s",
    ),
    Mutant(
        "the forecast believes in the whole load",
        "forecast.py",
        "worker.load_began + load_s - now)",
        "load_s)",
    ),
    Mutant(
        "the forecast forgets the rounds before",
        "forecast.py",
        "eta_s + rounds * service_s",
        "eta_s",
    ),
    Mutant(
        "service times are not smoothed",
        "core.py",
        "before + NEWEST_WEIGHS * (took_s - before)",
        "took_s",
    ),
    Mutant(
        "a worker that has ended goes on serving",
        "core.py",
        "        worker.phase = Phase.STOPPING\n        self._hand.touch(worker)\n        if was_serving:",
        "        self._hand.touch(worker)\n        if was_serving:",
    ),
    Mutant(
        "what is feared is not wished for",
        "state.py",
        "        if not self.must_be_alone(model) and not model.feared:",
        "        if not self.must_be_alone(model):",
    ),
    Mutant(
        "what is feared must be there",
        "state.py",
        "{on: min(n, room.get(on, 0)) for on, n in model.feared.items()}",
        "model.feared",
    ),
    Mutant(
        "only the measured worker knows of it",
        "core.py",
        "            if worker.model.name == model.name and not worker.is_stale:\n                worker.model = model\n",
        "            pass\n",
    ),
    Mutant(
        "the line is not walked anew when another stands foremost",
        "hand.py",
        "        if queue.front.asked is asked:\n            self.turns = None",
        "        if queue.front.asked is None:\n            self.turns = None",
    ),
    Mutant(
        "the line is not walked anew when a worker changes",
        "hand.py",
        "        self.state.stirred.add(worker.model.name)\n        self.turns = None",
        "        self.state.stirred.add(worker.model.name)",
    ),
    Mutant(
        "the line is not walked anew when the budget changes",
        "core.py",
        "        self.state.has_less_room = True\n        self._hand.turns = None",
        "        self.state.has_less_room = True",
    ),
    Mutant(
        "company: a group that swaps lets its members sit together",
        "company.py",
        "[] if group.swap else [group]",
        "[group]",
    ),
    Mutant(
        "company: a group that does not swap expels its own",
        "company.py",
        "[] if group.swap else [group]",
        "[]",
    ),
    Mutant(
        "company: who is exclusive expels nobody",
        "company.py",
        "if other.persistent or not group.exclusive]",
        "]",
    ),
    Mutant(
        "company: who is not exclusive expels the others too",
        "company.py",
        "if other.persistent or not group.exclusive]",
        "if other.persistent]",
    ),
    Mutant(
        "company: who is persistent is expelled",
        "company.py",
        "if other.persistent or not group.exclusive]",
        "if not group.exclusive]",
    ),
    Mutant(
        "company: who is in no group sits beside whom he likes",
        "company.py",
        "    groups.append(Group(",
        "    groups.append(Group(swap=False, members=",
    ),
    Mutant(
        "company: one of a group loads beside its former self",
        "company.py",
        "(stay - {name},)",
        "(stay,)",
    ),
    Mutant(
        "company: in no set a model sits beside anybody",
        "company.py",
        "some or (frozenset(),)",
        "some or (frozenset(ways) - {name},)",
    ),
    Mutant(
        "company: costs do not count",
        "company.py",
        "company.evict_costs.get(o.name, 1)",
        "1",
    ),
    Mutant(
        "company: who leaves anyway costs as much",
        "company.py",
        " if not o.goes_anyway",
        "",
    ),
    Mutant(
        "company: does not prefer that fewer go",
        "company.py",
        "            len(expelled),\n",
        "",
    ),
    Mutant(
        "company: does not prefer that idle ones go",
        "company.py",
        "            sum(one.is_busy for one in expelled),\n",
        "",
    ),
    Mutant(
        "company: expels the most recently used",
        "company.py",
        "max((one.last_used",
        "-max((one.last_used",
    ),
    Mutant(
        "company: takes the last of equal sets",
        "company.py",
        "return min(ways, key=price)",
        "return min(reversed(ways), key=price)",
    ),
    Mutant(
        "company: nobody is expelled unless memory lacks",
        "line.py",
        "bool(self.lack or self.expels)",
        "bool(self.lack)",
    ),
    Mutant(
        "company: loads while an expelled one is there",
        "line.py",
        "fits_now = not in_the_way and fits(",
        "fits_now = fits(",
    ),
    Mutant(
        "company: whom somebody before would expel overtakes",
        "line.py",
        "if not is_welcome or not self._growing",
        "if not self._growing",
    ),
    Mutant(
        "company: who grows is expelled by who stands behind",
        "line.py",
        "if not is_welcome or not self._growing.isdisjoint(in_the_way):",
        "if not is_welcome:",
    ),
    Mutant(
        "company: only the last before has a say",
        "line.py",
        "beside if self._welcome is None else self._welcome & beside",
        "beside",
    ),
    Mutant(
        "company: who must wait has no say",
        "line.py",
        "        in_the_way = self._guests.receive(model, seated) if self._guests is not None else ()\n        if self._is_closed and model.demand:\n            return None\n",
        "        if self._is_closed and model.demand:\n            return None\n        in_the_way = self._guests.receive(model, seated) if self._guests is not None else ()\n",
    ),
    Mutant(
        "company: who is not welcome has no say",
        "line.py",
        "        if not is_welcome and not self._welcome:",
        "        if not is_welcome:",
    ),
    Mutant(
        "company: a pinned one expels",
        "line.py",
        "        if model.pinned:\n            return ()\n",
        "",
    ),
    Mutant(
        "company: a pinned one is expelled",
        "line.py",
        "if w.is_charged and not w.model.pinned]",
        "if w.is_charged]",
    ),
    Mutant(
        "company: a stuck one is in the way for ever",
        "line.py",
        "[w for w in workers if not w.is_stuck]",
        "workers",
    ),
    Mutant(
        "company: who grows expels others",
        "line.py",
        "            self._growing.add(seated)\n            return ()\n",
        "            self._growing.add(seated)\n",
    ),
    Mutant(
        "company: the choice goes back and forth though one drains",
        "line.py",
        "{w for w in self._there if w.phase is Phase.DRAINING}",
        "set[Worker]()",
    ),
    Mutant(
        "company: whom another expels costs as much",
        "line.py",
        "        self._going.update(in_the_way)\n",
        "",
    ),
    Mutant(
        "company: who is leaving has a say in the choice",
        "line.py",
        "            for w in self._there\n            if not w.is_leaving\n",
        "            for w in self._there\n",
    ),
    Mutant(
        "company: who has just loaded counts as never used",
        "line.py",
        "max(w.idle_since, w.load_began)",
        "w.idle_since",
    ),
    Mutant(
        "company: the choice is not made anew",
        "settle.py",
        "if hand.turns is None or state.company.has_choice:",
        "if hand.turns is None:",
    ),
    Mutant(
        "company: reprieves whom a head expels",
        "settle.py",
        "worker in head.expels or _still_lacking",
        "_still_lacking",
    ),
    Mutant(
        "company: memory of the expelled is not counted on",
        "settle.py",
        "{*gone, *head.expels}",
        "gone",
    ),
    Mutant(
        "company: two that expel each other load at once",
        "settle.py",
        "            if hand.state.company.beside:\n                return True  # who comes next may have to expel it\n",
        "",
    ),
    Mutant(
        "company: expels before all can go",
        "settle.py",
        "    if not all(w in idle or w in busy for w in expelled):\n        return []\n",
        "",
    ),
    Mutant(
        "company: counts the expelled as victims for memory",
        "settle.py",
        "    idle, busy = ([w for w in some if w not in expelled] for some in (idle, busy))\n",
        "",
    ),
    Mutant(
        "company: expels though memory will lack",
        "settle.py",
        "return [*expelled, *victims] if victims or not need else []",
        "return [*expelled, *victims]",
    ),
    Mutant(
        "company: nobody is told whom he waits for",
        "forecast.py",
        "worker in turn.in_the_way or not",
        "not",
    ),
    Mutant(
        "company: the forecast takes the shortest stay",
        "forecast.py",
        "return max([*expelled, min(giving, default=0.0)])",
        "return min([*expelled, *giving], default=0.0)",
    ),
    Mutant(
        "company: a reload forgets the rules",
        "core.py",
        "state.budget, state.company = event.budget, event.company",
        "state.budget = event.budget",
    ),
]


def main() -> int:
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if all(word in m.breaks for word in words)]
    survivors = 0
    for number, mutant in enumerate(chosen, start=1):
        began = time.monotonic()
        killer = killer_of(mutant)
        survivors += killer is None
        took_s = time.monotonic() - began
        print(f"{number:3}  {mutant.file:11}  {mutant.breaks}")
        print(f"       {killer or 'SURVIVED'}  [{took_s:.1f} s]")
        sys.stdout.flush()
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return min(survivors, 1)


def killer_of(mutant: Mutant) -> str | None:
    """Name the first test that fails, of the first suite where one does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("proxy", "tests/scheduler"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "tests/__init__.py").touch()
        (folder / "tests/conftest.py").write_text(CONFTEST)
        apply(mutant, folder / "proxy/scheduler" / mutant.file)
        failures = (first_failure(folder, suite) for suite in SUITES)
        return next((failure for failure in failures if failure), None)


def apply(mutant: Mutant, path: Path) -> None:
    text = path.read_text()
    count = text.count(mutant.old)
    if count != 1:
        sys.exit(f"{mutant.file} has {count} times, instead of once: {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new))


def first_failure(folder: Path, suite: list[str]) -> str | None:
    """Run one suite up to its first failure, and name that."""
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:randomly", "--hypothesis-seed=0"]
    command += ["-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        result = subprocess.run(
            [*command, *(f"tests/scheduler/{file}" for file in suite)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{', '.join(suite)}: no verdict within {LIMIT_S} s"
    if result.returncode == 0:
        return None
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    if result.returncode != 1 or not failed:
        sys.exit(f"{suite} did not run:\n{result.stdout}{result.stderr}")
    return failed[0].split("::", 1)[1].partition(" - ")[0]


if __name__ == "__main__":
    sys.exit(main())
