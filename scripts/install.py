"""Sets up what `demo` and `test` need: .venv, the engines, the tiny models. Safe to run again.

Each step is done once, and again only when what it would run has changed. With HOTSEAT_GPU=cuda
the engines are built for CUDA (needs nvcc), otherwise for this machine's CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
SIGN_OF_LIFE_S = 15.0
GPU_FLAGS = {"": ("", ""), "cuda": ("-DGGML_CUDA=on", "-DSD_CUDA=ON")}


@dataclass(frozen=True)
class Step:
    """One command, with what a person should know while it runs."""

    name: str
    title: str
    estimate: str  # on two cores, with an empty cache of wheels
    command: tuple[str, ...]
    depends_on: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @property
    def stamp(self) -> Path:
        return VENV / f".done-{self.name}"

    @property
    def recipe(self) -> str:
        """Change when the step must be done again."""
        parts = [" ".join(self.command), str(sorted(self.env.items()))]
        parts += [path.read_text() for path in self.depends_on]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def is_done(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text() == self.recipe


def pip(*what: str) -> tuple[str, ...]:
    return (str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *what)


def steps(*, for_tests: bool) -> list[Step]:
    """List the steps in order."""
    project = ROOT / "pyproject.toml"
    llama_flags, sd_flags = GPU_FLAGS[os.environ.get("HOTSEAT_GPU", "")]
    hook = ROOT / "scripts" / "without_common.cmake"
    build = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2)}
    own = os.environ.get("CMAKE_ARGS", "")
    llama = {
        **build,
        "CMAKE_ARGS": f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={hook} {llama_flags} {own}",
    }
    sd = {**build, "CMAKE_ARGS": f"-DSD_WEBP=OFF -DSD_WEBM=OFF {sd_flags} {own}"}
    edit = f"-e{ROOT}"
    listed = [
        Step("proxy", "Hotseat itself", "20 s", pip(edit, "openai>=2"), (project,)),
        Step("llama", "llama.cpp, compiled here", "2 to 5 min", pip(f"{edit}[llama]"), (), llama),
        Step(
            "sd", "stable-diffusion.cpp, compiled here", "2 to 5 min", pip(f"{edit}[sd]"), (), sd
        ),
        Step(
            "torch",
            "torch and transformers",
            "1 to 2 min",
            pip("torch==2.13.0", f"{edit}[florence2]"),
        ),
    ]
    if for_tests:
        listed.append(Step("dev", "what the tests need", "30 s", pip(f"{edit}[dev]"), (project,)))
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for-tests", action="store_true", help="the test tools too")
    args = parser.parse_args()
    began = time.monotonic()
    make_venv()
    waiting = [step for step in steps(for_tests=args.for_tests) if not step.is_done]
    if waiting:
        print(f"Setting up {VENV}; everything it prints goes to {LOG}")
    for number, step in enumerate(waiting, 1):
        print(f"[{number}/{len(waiting)}] {step.title} (about {step.estimate}) …", flush=True)
        run(step)
    subprocess.run([str(PYTHON), str(ROOT / "scripts" / "make_tiny_models.py")], check=True)
    if waiting:
        print(f"Set up in {time.monotonic() - began:.0f} s.")


def make_venv() -> None:
    if PYTHON.exists():
        return
    if shutil.which("c++") is None:
        sys.exit("No C++ compiler: apt install build-essential, then run this again.")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False)
    if made.returncode:
        sys.exit("No venv: apt install python3-venv, then run this again.")


def run(step: Step) -> None:
    """Run the step with a sign of life every quarter of a minute; ends the program if it fails."""
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(SIGN_OF_LIFE_S):
            print(f"      … {time.monotonic() - began:.0f} s", flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    with LOG.open("ab") as log:
        env = {**os.environ, **step.env}
        code = subprocess.run(
            step.command, stdout=log, stderr=log, env=env, check=False
        ).returncode
    done.set()
    teller.join()
    if code:
        tail = LOG.read_text(errors="replace").splitlines()[-25:]
        print("\n".join(tail))
        sys.exit(f"{step.title}: failed; the lines above are the end of {LOG}")
    step.stamp.write_text(step.recipe)
    print(f"      done in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
