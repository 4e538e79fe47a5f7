"""The programs that are compared, one file for all of them, and each one served by itself."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.models import as_yaml

RESPONDER = Path(__file__).with_name("responder.py")
UP_WITHIN_S = 30.0
SHORTEST_S, LONGEST_S = 0.3, 3.3  # that a slow worker takes to be ready
SLOW_STOP_S = 4
QUICK_STOP_S = 1
AT_ONCE = 1000  # llama-swap answers 429 above its limit, which is 10 unless the file says more


@dataclass(frozen=True, slots=True)
class Program:
    """A proxy that takes llama-swap's flags."""

    name: str
    argv: Sequence[str]


HOTSEAT = Program("Hotseat", [sys.executable, "-m", "proxy", "serve"])


@dataclass(frozen=True, slots=True)
class Serving:
    """A program that serves."""

    port: int
    pid: int
    slow: Sequence[str]  # models that take their time to be ready


def config(slow: int) -> dict[str, object]:
    """Write the file, in llama-swap's own keys; `slow` models are slow to start."""
    dice = random.Random(7)  # noqa: S311  # the same every time
    step_s = (LONGEST_S - SHORTEST_S) / max(slow, 1)
    waits_s = [SHORTEST_S + step_s * (number + 0.5) for number in range(slow)]
    dice.shuffle(waits_s)
    return {
        "healthCheckTimeout": 15,
        "logLevel": "warn",
        "models": {
            "a": _model(),
            "b": _model(),
            "deaf": _model("--deaf yes", unloadTimeout=QUICK_STOP_S),
            "left": _model("--deaf yes", unloadTimeout=SLOW_STOP_S),
            "right": _model(),
            **{
                f"slow-{number}": _model(f"--ready-after {wait_s:.3f}")
                for number, wait_s in enumerate(waits_s)
            },
        },
        "groups": {"pair": {"members": ["left", "right"], "swap": False}},
    }


def _model(flags: str = "", **keys: object) -> dict[str, object]:
    program = shlex.join([sys.executable, "-I", "-S", str(RESPONDER)])
    command = f"{program} --port ${{PORT}} {flags}".rstrip()
    return {"cmd": command, "concurrencyLimit": AT_ONCE, **keys}


@asynccontextmanager
async def serving(program: Program, slow: int) -> AsyncIterator[Serving]:
    """Serve the file for the length of the block; NotUp repeats what the program said last."""
    with tempfile.TemporaryDirectory(prefix="hotseat-bench-") as folder:
        path = Path(folder, "config.yaml")
        path.write_text(as_yaml(config(slow)))  # noqa: ASYNC240  # nothing else runs yet
        said = Path(folder, "said").open("w+")  # noqa: ASYNC230, SIM115  # closed with the block
        port = _free_port()
        process = await asyncio.create_subprocess_exec(
            *(*program.argv, "-config", str(path), "-listen", f"127.0.0.1:{port}"),
            stdout=said,
            stderr=said,
            env={**os.environ, "XDG_STATE_HOME": folder},
        )
        try:
            if not await _is_up(process, port):
                said.seek(0)
                raise NotUp(said.read().strip().rpartition("\n")[2])
            yield Serving(port, process.pid, [f"slow-{number}" for number in range(slow)])
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            said.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class NotUp(Exception):
    """The program ended, or did not listen in time."""


async def _is_up(process: asyncio.subprocess.Process, port: int) -> bool:
    """Wait until it listens: a proxy of another make has no other way to tell."""
    with suppress(TimeoutError):
        async with asyncio.timeout(UP_WITHIN_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)  # nothing tells when a strange process listens
                else:
                    writer.close()
                    return True
    return False
