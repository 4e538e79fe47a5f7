"""How an echo comes up and goes down, as slowly and as badly as it is told."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping

from workers import serve
from workers.echo.conduct import pass_gate, take_time
from workers.echo.held import Held, NoMemory
from workers.echo.options import EchoOptions

FOREVER = "import threading; threading.Event().wait()"
PROGRESS_EVERY_S = 0.05


def load(options: EchoOptions, held: Held, progress: serve.Progress) -> Mapping[str, object]:
    """Take the memory first, as an engine does, and then the time. Raises LoadFailed."""
    _litter(options)
    try:
        held.take(options)
    except NoMemory as error:
        raise serve.LoadFailed("out_of_memory", str(error)) from error
    if options.load_gate is not None:
        pass_gate(options.load_gate)
    steps = max(options.load_steps, math.ceil(options.load_s / PROGRESS_EVERY_S))
    for step in range(steps):
        take_time(options.load_s / steps)
        progress((step + 1) / steps)
    _fail_as_told(options)
    return {"pid": os.getpid()}


def stop(options: EchoOptions) -> None:
    """Take the time that a stop takes."""
    take_time(None if options.ignore_sigterm else options.stop_s)


def _litter(options: EchoOptions) -> None:
    if options.grandchild:
        subprocess.Popen([sys.executable, "-c", FOREVER], stdin=subprocess.DEVNULL)  # noqa: S603
    for number in range(options.noise_lines):
        sys.stdout.write(f"{number} {'x' * 1000}\n")
    sys.stdout.flush()
    if options.says is not None:
        say(options.says)


def say(line: str) -> None:
    """Write a line for the log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail_as_told(options: EchoOptions) -> None:
    if options.exit_at_load is not None:
        sys.stderr.write(f"error: {options.detail}\n")
        sys.stderr.flush()
        os._exit(options.exit_at_load)
    if options.hang_at_load:
        take_time(None)
    if options.fail is not None:
        raise serve.LoadFailed(options.fail, options.detail)
