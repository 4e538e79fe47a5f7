"""A Hotseat of its own for the length of a trace: `python -m proxy serve` on a free port."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

SERVES = re.compile(rb" at (http://127\.0\.0\.1:\d+)/v1")


@asynccontextmanager
async def hotseat(config: str) -> AsyncIterator[str]:
    """Serve the config; gives the base URL. What it logs goes to our stderr."""
    with tempfile.TemporaryDirectory(prefix="hotseat-bench-") as folder:
        path = Path(folder, "swap.yaml")
        path.write_text(config)  # noqa: ASYNC240  # nothing else runs yet
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve"),
            *("--config", str(path), "--listen", "127.0.0.1:0"),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "XDG_STATE_HOME": folder},  # it knows nothing, every time
        )
        try:
            url = await _first_url(process)
            async with asyncio.TaskGroup() as tasks:
                passing_on = tasks.create_task(_pass_on(process))
                yield url
                process.terminate()
                await process.wait()
                passing_on.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _first_url(process: asyncio.subprocess.Process) -> str:
    told = []
    async for line in _lines(process):
        told.append(line.decode("utf-8", "replace"))
        if found := SERVES.search(line):
            return found[1].decode()
    await process.wait()
    raise NotServing(told[0].strip() if told else "it ended without a word")


async def _pass_on(process: asyncio.subprocess.Process) -> None:
    async for line in _lines(process):
        if b"stopping;" not in line:
            sys.stderr.write(line.decode("utf-8", "replace"))


def _lines(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    assert process.stderr is not None  # noqa: S101  # it was asked for
    return process.stderr


class NotServing(Exception):
    """The proxy ended before it served; the message is the first line of what it said."""
