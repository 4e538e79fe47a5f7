"""The benchmarks' workloads, as far as a test can hold them: their configs and their tables."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import load_config

ROOT = Path(__file__).parent.parent
COMPARED = [sys.executable, "-m", "scripts.benchmarks", "swap"]


def schedule(*words: str) -> list[str]:
    return [sys.executable, "-m", "scripts.benchmarks", "schedule", *words]


@pytest.mark.parametrize("proxy", ["hotseat", "llama-swap"])
def test_the_workloads_configs_have_no_mistakes(proxy: str, tmp_path: Path) -> None:
    """Hotseat reads what is printed for it, and what is printed for llama-swap too."""
    path = tmp_path / "swap.yaml"
    printed = subprocess.run(
        schedule("--print-config", proxy), cwd=ROOT, check=True, capture_output=True, text=True
    )
    path.write_text(printed.stdout)

    config = load_config(path).config

    assert {"interleaved-a", "flood-b", "agent-painter", "crowd-19", "fits-c"} <= {*config.models}


@pytest.mark.timeout(60)
async def test_a_workload_is_served_and_counted(tmp_path: Path) -> None:
    """The shortest one: every request is served, and no load serves just one."""
    figures = tmp_path / "figures.json"
    words = ("--trace", "interleaved", "--speed", "50", "--json", str(figures))
    process = await asyncio.create_subprocess_exec(
        *schedule(*words), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    (trace,) = json.loads(figures.read_bytes())["traces"]
    assert process.returncode == 0
    assert b"| interleaved |" in out
    assert trace["errors"] == []
    assert len(trace["outcomes"]) == 40
    assert 2 <= trace["swaps"] <= 6  # a busy machine may be slower than the patience


def test_the_schedulers_timing_makes_a_table() -> None:
    """The play that is timed comes to its end, with nobody refused."""
    code = "from scripts.benchmarks.decisions import measure; print(measure(5, 20).loaded)"

    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert 1 < float(told.stdout) <= 5


@pytest.mark.timeout(60)
def test_two_programs_are_compared(tmp_path: Path) -> None:
    """Another program that takes llama-swap's flags has a column with the same figures."""
    program = tmp_path / "another"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m proxy "$@"\n')
    program.chmod(0o700)
    figures = ["--only", "swap", "--only", "upload"]
    sizes = ["--swaps", "2", "--upload-mib", "1"]

    told = subprocess.run(
        [*COMPARED, "--llama-swap", str(program), *figures, *sizes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    _, _, head, _, *rows = told.stdout.splitlines()
    assert head == "| what | Hotseat | another |"
    assert told.returncode == 0, told.stdout
    assert len(rows) == 2
    assert all(re.fullmatch(r"\|.*(\|[^|]*\d+ (ms|MiB) ){2}\|", row) for row in rows), rows


def test_a_program_that_does_not_serve_is_told(tmp_path: Path) -> None:
    """Its column says what it said last; the other figures are there."""
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    program.chmod(0o700)

    told = subprocess.run(
        [*COMPARED, "--llama-swap", str(program), "--only", "swap", "--swaps", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 1
    assert re.search(r" \d+ ms \| failed: NotUp: out of order \|", told.stdout)
