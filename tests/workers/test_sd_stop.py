"""Which assertions of the engine's library are errors, and which still end the process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.workers.launch import ENVIRONMENT

pytestmark = pytest.mark.engine


async def asserted(what: str) -> tuple[int | None, str]:
    """Run the program; gives its exit status and what it printed."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "tests.workers.sd_graphs", what),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | ENVIRONMENT,
    )
    out, _ = await program.communicate()
    return program.returncode, out.decode()


async def test_a_graph_that_cannot_be_built_is_an_error() -> None:
    """Nobody but the caller knows of it, and the next one is computed."""
    status, out = await asserted("build")

    assert "caught" in out
    assert "GGML_ASSERT(a->ne[1] == 1) failed" in out
    assert out.endswith("computed\n")
    assert status == 0


async def test_an_assertion_in_the_midst_of_computing_ends_the_process() -> None:
    """Other threads are at work there too, which nothing would tell that the one has left."""
    status, out = await asserted("compute")

    assert out == ""
    assert status == -signal.SIGABRT
