"""An image engine that ends in the middle of a picture, through the whole program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.proxy.served import served
from tests.workers import sd_files
from tests.workers.test_sd_life import GENERATIONS, LONG, SHORT


@pytest.mark.engine
@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
async def test_a_crash_is_told_as_want_of_memory(
    models: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """One clear error with the numbers; the neighbour stays, and the next picture is painted."""
    config = {
        "device": "cpu",
        "host": {"memory": "2GiB"},
        "models": {"painter": {"sd": sd_files.options(models)}, "neighbour": {"echo": {}}},
    }
    async with served(json.dumps(config), tmp_path) as hotseat:
        assert (await hotseat.chat("neighbour")).status == 200
        async with asyncio.TaskGroup() as tasks:
            body = LONG | {"model": "painter"}
            asked = tasks.create_task(hotseat.post(GENERATIONS, json=body))
            await hotseat.log_line("generating image.* seed 1$")  # the warm-up has another
            running = await hotseat.running()
            os.kill(running["painter"]["pid"], how)
        again = await hotseat.post(GENERATIONS, json=SHORT | {"model": "painter"})
        after = await hotseat.running()

    died = asked.result()
    assert (died.status, died.error["code"]) == (502, "worker_died")
    assert "want of memory, thought to be " in died.error["message"]
    assert "MiB of host" in died.error["message"]
    assert again.status == 200
    assert after["neighbour"]["pid"] == running["neighbour"]["pid"]
