"""The demo's tour, run as a newcomer runs it, on the shipped swap.yaml."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.proxy.served import all_gone

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.engine
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("models")
async def test_the_tour_paints_reads_and_leaves_nothing_behind() -> None:
    """What the painter paints the captioner and both vision models name; Ctrl-C ends it all."""
    tour = await asyncio.create_subprocess_exec(
        *(sys.executable, "scripts/tour.py", "--port", str(free_port())),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    lines: list[str] = []
    assert tour.stdout is not None
    async for line in tour.stdout:
        lines.append(line.decode())
        if "Stop: Ctrl-C" in lines[-1]:
            break
    family = psutil.Process(tour.pid).children(recursive=True)
    tour.send_signal(signal.SIGINT)
    rest, _ = await tour.communicate()
    text = "".join(lines) + rest.decode()  # a swap may be shown behind the answer that it was for

    assert "florence-2: a red circle" in text
    assert "florence-2: a blue square" in text
    assert "llava: The picture shows a red circle." in text
    assert "minicpm-v: The picture shows a red circle." in text
    assert text.count("⇄") == 7
    with Image.open(ROOT / "out" / "a-red-circle.png") as picture:
        assert picture.size == (128, 128)
    assert tour.returncode == 0, rest
    assert family
    assert await all_gone(family, within_s=5)
