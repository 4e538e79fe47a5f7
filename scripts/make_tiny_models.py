"""Make the tiny models that the demo and the tests load: offline, on a CPU, in about two minutes.

A part is made when its files are absent or its recipe has changed, under a temporary name, and
moved into place when it is complete. A part that cannot be made leaves the others alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}


@dataclass(frozen=True, slots=True)
class Part:
    """Which function of which module makes what; the text of some modules is the recipe.

    The module is imported when the part is made: a missing engine fails only its own part.
    """

    module: str
    function: str
    products: tuple[str, ...]
    recipe: tuple[str, ...]

    def make(self, folder: Path) -> None:
        getattr(importlib.import_module(self.module), self.function)(folder)


_LM = ("gguf", "optim", "lm", "corpus", "vocab", "text", "scenes")
_CHAT = ("chat.gguf", "llava-mmproj.gguf", "minicpmv-mmproj.gguf")
_FLORENCE = ("florence", "florence_shape", "florence_words", "pictures", "scenes")
PARTS = {  # the longest first
    "image": Part("tiny.image", "make", ("image",), ("image*", "gguf", "scenes")),
    "text": Part("tiny.text", "make_chat", _CHAT, (*_LM, "vision", "pictures", "engine")),
    "florence2": Part("tiny.florence", "make", ("florence2",), _FLORENCE),
    "endless": Part("tiny.text", "make_endless", ("endless.gguf",), _LM),
    "embed": Part("tiny.embed", "make", ("embed.gguf", "rerank.gguf"), ("gguf", "embed")),
}


def main() -> int:
    args = _arguments()
    args.dir.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in args.only or PARTS if not _is_made(PARTS[name], name, args.dir)]
    if not waiting:
        print(f"The tiny models in {args.dir} are up to date.")
        return 0
    print("Making tiny models (about 3 min on two cores) …", flush=True)
    # each part is one process on one thread, so that two cores train two models
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, max_tasks_per_child=1) as makers:
        made = {name: makers.submit(_make, name, args.dir) for name in waiting}
    failed = {name: job.exception() for name, job in made.items() if job.exception() is not None}
    for name, error in failed.items():
        print(f"{name}: not made: {type(error).__name__}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = os.environ.get("HOTSEAT_MODELS") or Path.home() / ".cache" / "hotseat" / "models"
    parser.add_argument("--dir", type=Path, default=Path(home), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART")
    return parser.parse_args()


def _is_made(part: Part, name: str, folder: Path) -> bool:
    stamp = folder / f".{name}.recipe"
    there = all((folder / product).exists() for product in part.products)
    return there and stamp.exists() and stamp.read_text() == _recipe(part)


def _make(name: str, folder: Path) -> None:
    part = PARTS[name]
    print(f"{name}: making {', '.join(part.products)}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
        part.make(Path(scratch))
        for product in part.products:
            _move(Path(scratch) / product, folder / product)
    (folder / f".{name}.recipe").write_text(_recipe(part))
    print(f"{name}: made in {time.monotonic() - start:.0f} s", flush=True)


def _recipe(part: Part) -> str:
    digest = hashlib.sha256()
    for pattern in part.recipe:
        for source in sorted((_HERE / "tiny").glob(f"{pattern}.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _move(new: Path, place: Path) -> None:
    """Rename into place; a folder cannot replace a full one, so the old one goes first."""
    if place.is_dir():
        old = new.with_name(new.name + ".old")
        place.rename(old)
        new.rename(place)
        shutil.rmtree(old)
    else:
        new.replace(place)


if __name__ == "__main__":
    for _name, _value in _QUIET.items():
        os.environ.setdefault(_name, _value)
    sys.exit(main())
