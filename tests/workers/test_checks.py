"""What `--check` needs: the options and the heads of files, and no engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = {"llama_cpp", "stable_diffusion_cpp", "torch", "transformers", "numpy", "PIL"}


@pytest.mark.parametrize("name", ["llama", "sd", "florence2"])
def test_a_check_imports_no_engine(name: str) -> None:
    """The module of a worker's program can be imported without its engine, and so quickly."""
    code = f"import sys, workers.{name}.__main__; print(sorted({ENGINES} & set(sys.modules)))"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert told.stdout.strip() == "[]"
