"""Makes the processes of workers: which program, with which environment, socket or port."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from proxy.logs import LogHub
from proxy.process import Bundled, Foreign, Ports, Process, Way
from proxy.rundir import RunDir
from proxy.scheduler import ModelName, WorkerId
from proxy.setup import Setup


@dataclass(frozen=True, slots=True)
class Launcher:
    """Outlives every config: what is given to living workers stays theirs."""

    run_dir: RunDir
    hub: LogHub
    shows_lines: bool = False  # what workers print is printed by us, too
    ports: Ports = field(default_factory=Ports)

    def process(self, setup: Setup, worker: WorkerId, name: ModelName) -> Process:
        """Make the process of a worker; nothing is started yet."""
        model, way = setup.config.models[name], self._way(setup, worker, name)
        return Process(
            way,
            cwd=setup.config.folder,
            marks={**self.run_dir.marks, **setup.devices.environment(setup.config, model)},
            on_line=partial(self._note_line, name),
        )

    def _note_line(self, name: ModelName, line: str) -> None:
        self.hub.write(name, line)
        if self.shows_lines:
            with suppress(OSError):  # nobody is there to see it any more
                sys.stdout.write(f"{name}: {line}\n")
                sys.stdout.flush()

    def _way(self, setup: Setup, worker: WorkerId, name: ModelName) -> Way:
        model = setup.config.models[name]
        if model.kind == "cmd":
            return Foreign(model, self.ports, setup.config.start_port)
        return Bundled(model, self.run_dir.path / f"{worker}.sock")
