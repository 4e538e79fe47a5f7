"""The benchmark of descriptions, as far as a test can hold it: that it measures and tells."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.engine
@pytest.mark.timeout(120)
async def test_the_pace_of_descriptions_is_a_table() -> None:
    """With the tests' model: each question by one, two and four clients, then the memory."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.benchmarks", "eyes", "--tiny", "--pictures", "1"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    rows = re.findall(r"^\| tiny \|.*(?:\| [\d.]+/s, [\d.]+ s ){2}\|$", out.decode(), re.MULTILINE)
    assert process.returncode == 0
    assert len(rows) == 6
    assert re.search(r"a PNG of 50 megapixels: \+?\d+ MiB at most", out.decode())
