"""How an echo passes the time, and how it dies."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NoReturn

from workers.echo.bodies import Misbehave

DIED = 9  # the exit status of `die_after`


async def paced(tokens: Sequence[str], echo: Misbehave) -> AsyncIterator[str]:
    """Yield the tokens, and misbehave between them as told."""
    await asyncio.sleep(echo.serve_s)  # stands for work, as `token_s` does
    for count in range(len(tokens) + 1):
        if echo.gate is not None and count == echo.gate_after:
            await asyncio.to_thread(pass_gate, echo.gate)
        if count == echo.last_token:
            die(echo.die_saying)
        if count == echo.hang_after:
            await asyncio.Event().wait()
        if 0 < count < len(tokens):
            await asyncio.sleep(echo.token_s)
        if count < len(tokens):
            yield tokens[count] if count == 0 else f" {tokens[count]}"


def pass_gate(path: str) -> None:
    """Block until somebody has opened the FIFO at `path` for writing, and closed it."""
    Path(path).read_bytes()


def take_time(seconds: float | None) -> None:
    """Block for so long, as work would; None: for ever."""
    threading.Event().wait(seconds)


def die(saying: str | None) -> NoReturn:
    """End the process: without a word, or as an engine that aborts."""
    if saying is None:
        os._exit(DIED)
    sys.stderr.write(f"{saying}\n")
    sys.stderr.flush()
    os.abort()
