"""The files that a command names, as far as that can be known before it is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

MODEL_FILE = ".gguf"
NO_PATHS = frozenset({"-a", "--alias", "-hff", "--hf-file", "-hffv", "--hf-file-v"})
"""llama.cpp's options whose value may look like a model's file, and is none of ours."""
DOWNLOADS = frozenset(
    {"-hf", "-hfr", "--hf-repo", "-mu", "--model-url", "-dr", "--docker-repo", "-mmu"}
    | {"--mmproj-url"}
)
"""With these, the file may come later."""
ELSEWHERE = frozenset(
    {"docker", "podman", "nerdctl", "kubectl", "distrobox", "toolbox", "apptainer", "singularity"}
    | {"bwrap", "chroot", "nsenter", "unshare", "ssh", "flatpak", "lxc", "wsl", "wsl.exe"}
)
"""What runs a program where other files are to be seen than here."""


def missing_file(argv: Sequence[str], program: Path, folder: Path) -> str | None:
    """Name a model's file that the program is to read and that is not there.

    None also where that cannot be known: a script may find it another way, a container has files
    of its own.
    """
    if any(Path(word).name in ELSEWHERE for word in argv) or _is_script(program):
        return None
    words = [part for word in argv[1:] for part in _parts(word)]
    if not DOWNLOADS.isdisjoint(words):
        return None
    return next((name for name in _named(words) if not (folder / name).exists()), None)


def _parts(word: str) -> Sequence[str]:
    """Part `--model=x.gguf`."""
    return word.split("=", 1) if word.startswith("-") else (word,)


def _named(words: Sequence[str]) -> Iterator[str]:
    for before, word in zip(["", *words], words, strict=False):
        is_file = word.endswith(MODEL_FILE) and not any(mark in word for mark in ("://", " ", "$"))
        if is_file and before not in NO_PATHS:
            yield word


def _is_script(program: Path) -> bool:
    try:
        with program.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True  # it cannot be looked at
