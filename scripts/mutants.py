"""Break the scheduler on purpose, one line at a time, and see whether its tests notice.

    .venv/bin/python scripts/mutants.py [WORD …]    # only those whose description has the words

Each mutant is a copy of the package in a temporary folder; the tree is not touched.
"""

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
SUITES = ["test_table.py", "test_machine.py", "test_fairness.py"]
LIMIT_S = 300

# No shrinking, no memory of former runs: only whether it is noticed counts.
CONFTEST = """
from hypothesis import Phase, settings
settings.register_profile(
    "mutants", max_examples=1000, stateful_step_count=40, deadline=None,
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
        "core.py",
        "self.state.charged + model.demand <= self.state.budget",
        "model.demand <= self.state.budget",
    ),
    Mutant(
        "never fills the budget to the brim",
        "core.py",
        "self.state.charged + model.demand <= self.state.budget",
        "self.state.charged + model.demand < self.state.budget",
    ),
    Mutant(
        "takes memory as free on Terminate",
        "state.py",
        "sum(w.model.demand for w in self.workers.values() if w.is_charged)",
        "sum(w.model.demand for w in self.workers.values() if w.is_charged and not w.is_leaving)",
    ),
    Mutant(
        "evicts more than is needed: forgets who is leaving already",
        "state.py",
        "(self.budget - self.charged) - leaving, 0)",
        "(self.budget - self.charged), 0)",
    ),
    Mutant(
        "evicts more than is needed: ignores free memory",
        "state.py",
        "return max(head.model.demand - (self.budget - self.charged) - leaving, 0)",
        "return max(head.model.demand - leaving, 0)",
    ),
    Mutant(
        "evicts one victim too many",
        "eviction.py",
        "for count in range(1, len(candidates) + 1):",
        "for count in range(min(2, len(candidates)), len(candidates) + 1):",
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
        "disturbed = sum(one in busy for one in some)",
        "disturbed = 0",
    ),
    Mutant(
        "evicts the dearest",
        "eviction.py",
        "sum(load_s for load_s, _ in costs)",
        "-sum(load_s for load_s, _ in costs)",
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
        "evicts the pinned",
        "state.py",
        "if not w.model.pinned\n            and not w.is_leaving",
        "if not w.is_leaving",
    ),
    Mutant(
        "stops a load that is waited for",
        "state.py",
        "(w.phase is Phase.LOADING and self.is_idle(w))",
        "(w.phase is Phase.LOADING)",
    ),
    Mutant(
        "never stops a load that nobody waits for",
        "state.py",
        " or (w.phase is Phase.LOADING and self.is_idle(w))",
        "",
    ),
    Mutant(
        "patience is not counted anew from ready",
        "state.py",
        "max(self.line[head.model.name], worker.ready_since)",
        "self.line[head.model.name]",
    ),
    Mutant(
        "patience of the seated one, not of the head",
        "state.py",
        "worker.ready_since) + head.model.patience_s",
        "worker.ready_since) + worker.model.patience_s",
    ),
    Mutant(
        "no patience at all",
        "core.py",
        "and now >= state.spared_until(w, head)]",
        "]",
    ),
    Mutant(
        "patience never ends",
        "core.py",
        "and now >= state.spared_until(w, head)]",
        "and now < state.spared_until(w, head)]",
    ),
    Mutant(
        "drains before the head is prepared",
        "state.py",
        "return worker if worker is not None and worker.phase is Phase.PREPARED else None",
        "return worker",
    ),
    Mutant(
        "the head may be one that demands nothing",
        "state.py",
        "turn = next((model for model in models if model.demand > 0), None)",
        "turn = next(models, None)",
    ),
    Mutant(
        "a later model overtakes the head",
        "core.py",
        "if blocked and model.demand > 0:",
        "if blocked and model.demand > 1:",
    ),
    Mutant(
        "a model without demand waits behind the head",
        "core.py",
        "if blocked and model.demand > 0:",
        "if blocked:",
    ),
    Mutant(
        "a model without demand blocks the head",
        "core.py",
        "blocked = blocked or model.demand > 0",
        "blocked = True",
    ),
    Mutant(
        "keeps its place in line though it has loaded",
        "core.py",
        "                del self.state.line[name]\n",
        "",
    ),
    Mutant(
        "who has just lost the seat stands first in line",
        "core.py",
        "self.state.line = kept | {name: now for name in absent if name not in kept}",
        "self.state.line = {name: now for name in absent if name not in kept} | kept",
    ),
    Mutant(
        "everybody's wait starts anew with each event",
        "core.py",
        "kept = {name: since for name, since in before.items() if name in absent}",
        "kept = {name: now for name, since in before.items() if name in absent}",
    ),
    Mutant(
        "a draining worker counts as absent",
        "state.py",
        "if w.is_charged and not w.is_leaving}",
        "if w.is_charged and w.phase is not Phase.DRAINING and not w.is_leaving}",
    ),
    Mutant(
        "a drained one never serves again",
        "core.py",
        "        self._reprieve()\n",
        "",
    ),
    Mutant(
        "reprieves those that the head still needs",
        "core.py",
        "if worker.model.demand <= surplus:",
        "if True:",
    ),
    Mutant(
        "one reprieve too many",
        "core.py",
        "                surplus -= worker.model.demand\n",
        "",
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
        "is_open = self.phase is Phase.READY and",
        "is_open = self.is_serving and",
    ),
    Mutant(
        "grants on a worker that is being unloaded",
        "state.py",
        "is_open = self.phase is Phase.READY and not self.is_leaving",
        "is_open = self.phase is Phase.READY",
    ),
    Mutant(
        "last in, first out",
        "core.py",
        "ticket = next(iter(queue))",
        "ticket = next(reversed(queue))",
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
        "keeps a process that nobody waits for",
        "core.py",
        "if retired or drained or idle or unwanted:",
        "if retired or drained or idle:",
    ),
    Mutant(
        "stops a load that nobody waits for, though nobody needs its seat",
        "core.py",
        "unwanted = worker.is_coming and",
        "unwanted = not worker.is_serving and",
    ),
    Mutant(
        "being granted does not count as being used",
        "core.py",
        "                worker.idle_since = now\n                self._out",
        "                self._out",
    ),
    Mutant(
        "the ttl clock does not start anew when a lease ends",
        "core.py",
        "                worker.leases.remove(ticket)\n                worker.idle_since = now\n",
        "                worker.leases.remove(ticket)\n",
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
        "if not clock_runs or worker.model.pinned or worker.model.ttl_s <= 0:",
        "if not clock_runs or worker.model.ttl_s <= 0:",
    ),
    Mutant(
        "the ttl ends leases",
        "state.py",
        "clock_runs = worker.phase is Phase.READY and self.is_idle(worker)",
        "clock_runs = worker.phase is Phase.READY",
    ),
    Mutant(
        "no alarm for a ttl",
        "state.py",
        "            yield expiry\n",
        "            yield from ()\n",
    ),
    Mutant(
        "no alarm for patience",
        "state.py",
        "            yield self.spared_until(worker, head)\n",
        "            yield from ()\n",
    ),
    Mutant(
        "no alarm for a deadline",
        "state.py",
        "            yield worker.retire_by\n",
        "            yield from ()\n",
    ),
    Mutant(
        "a second unload takes the deadline back",
        "core.py",
        "deadline if known is None else min(known, deadline)",
        "deadline",
    ),
    Mutant(
        "an unload cuts leases at once",
        "core.py",
        "not worker.leases or now >= worker.retire_by",
        "True",
    ),
    Mutant(
        "an unload has no deadline",
        "core.py",
        "not worker.leases or now >= worker.retire_by",
        "not worker.leases",
    ),
    Mutant(
        "an asked-for exit counts as a failed start",
        "core.py",
        "worker is None or worker.is_serving or worker.phase is Phase.STOPPING:",
        "worker is None or worker.is_serving:",
    ),
    Mutant(
        "a crash while serving counts as a failed start",
        "core.py",
        "worker is None or worker.is_serving or worker.phase is Phase.STOPPING:",
        "worker is None or worker.phase is Phase.STOPPING:",
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
        "        self.state.failures.pop(worker.model.name, None)\n",
        "",
    ),
    Mutant(
        "a failed start leaves its waiters waiting",
        "core.py",
        "        self._refuse_waiting(name, Refusal.START_FAILED, pause_s)\n",
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
        "core.py",
        "max(state.budget - state.reserved_beside(model), 0)",
        "state.budget",
    ),
    Mutant(
        "a pinned model reserves against itself",
        "state.py",
        "if m.pinned and m is not model)",
        "if m.pinned)",
    ),
    Mutant(
        "charges a process that never loaded",
        "state.py",
        "if w.is_charged)",
        "if w.is_charged or w.phase is Phase.STOPPING)",
    ),
    Mutant(
        "shutdown still lets requests in",
        "core.py",
        "        self._is_shutting_down = True\n",
        "",
    ),
    Mutant(
        "tells the alarm again and again",
        "core.py",
        "        if alarm != self._alarm:\n",
        "        if alarm is not None:\n",
    ),
]


def main() -> int:
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if all(word in m.breaks for word in words)]
    survivors = 0
    for number, mutant in enumerate(chosen, start=1):
        began = time.monotonic()
        killers = killers_of(mutant)
        survivors += not killers
        verdict = ", ".join(killers) or "SURVIVED"
        took_s = time.monotonic() - began
        print(f"{number:2}  {mutant.file:11}  {mutant.breaks}\n      {verdict}  [{took_s:.1f} s]")
        sys.stdout.flush()
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return min(survivors, 1)


def killers_of(mutant: Mutant) -> list[str]:
    """Name the first failing test of each suite."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("proxy", "tests/scheduler"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "tests/__init__.py").touch()
        (folder / "tests/conftest.py").write_text(CONFTEST)
        apply(mutant, folder / "proxy/scheduler" / mutant.file)
        return [killer for suite in SUITES if (killer := first_failure(folder, suite))]


def apply(mutant: Mutant, path: Path) -> None:
    text = path.read_text()
    count = text.count(mutant.old)
    if count != 1:
        sys.exit(f"{mutant.file} has {count} times, instead of once: {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new))


def first_failure(folder: Path, suite: str) -> str | None:
    """Run one suite up to its first failure, and name that."""
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:randomly", "--hypothesis-seed=0"]
    command += ["-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        result = subprocess.run(
            [*command, f"tests/scheduler/{suite}"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"{suite}: no verdict within {LIMIT_S} s")
        return None
    if result.returncode == 0:
        return None
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    if result.returncode != 1 or not failed:
        sys.exit(f"{suite} did not run:\n{result.stdout}{result.stderr}")
    return failed[0].split("::", 1)[1].partition(" - ")[0]


if __name__ == "__main__":
    sys.exit(main())
