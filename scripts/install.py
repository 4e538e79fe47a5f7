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
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
SIGN_OF_LIFE_S = 15.0
PROJECT = ROOT / "pyproject.toml"
GPU_FLAGS: dict[str, dict[str, str]] = {
    "": {},
    "cuda": {"llama": "-DGGML_CUDA=on", "sd": "-DSD_CUDA=ON"},
    "vulkan": {"llama": "-DGGML_VULKAN=on", "sd": "-DSD_VULKAN=ON"},
}


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


def engine(name: str, title: str, flags: str) -> Step:
    """Make the step that compiles one engine: the default build comes from pip's cache if it can.

    pip takes a wheel that it has, whatever flags it was built with; so other flags need force.
    """
    gpu = os.environ.get("HOTSEAT_GPU", "")
    own = os.environ.get("CMAKE_ARGS", "")
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    force = ["--force-reinstall", "--no-cache-dir"] if gpu or own else []
    env = {
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2),
        "CMAKE_ARGS": f"{flags} {GPU_FLAGS[gpu].get(name, '')} {own}".strip(),
    }
    return Step(name, title, "2 to 5 min", pip(*force, *extras[name]), env=env)


def steps(*, for_tests: bool) -> list[Step]:
    """List the steps in order."""
    hook = ROOT / "scripts" / "without_common.cmake"
    without_common = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={hook}"
    edit, wanted = f"-e{ROOT}", (PROJECT,)
    listed = [
        Step("proxy", "Hotseat itself", "20 s", pip(edit, "openai>=2"), wanted),
        engine("llama", "llama.cpp, compiled here", without_common),
        engine("sd", "stable-diffusion.cpp, compiled here", "-DSD_WEBP=OFF -DSD_WEBM=OFF"),
        Step(
            "florence2",
            "torch and transformers",
            "1 to 2 min",
            pip("torch==2.13.0", f"{edit}[florence2]"),
            wanted,
        ),
    ]
    if for_tests:
        listed.append(Step("dev", "what the tests need", "30 s", pip(f"{edit}[dev]"), wanted))
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for-tests", action="store_true", help="the test tools too")
    args = parser.parse_args()
    if os.environ.get("HOTSEAT_GPU", "") not in GPU_FLAGS:
        sys.exit(f"HOTSEAT_GPU is one of: {', '.join(filter(None, GPU_FLAGS))}; or not set: CPU")
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
        shutil.rmtree(VENV, ignore_errors=True)  # half a venv would pass for a whole one
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
