"""Files of a config, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, Loaded, Problem, Source, load_config

ENVIRON = {"HOME": "/home/me", "SECRET": "s3", "TOKEN": "hush-hush", "PORT_NUMBER": "8080"}


def loaded(text: str, folder: Path, *, compat: bool = False, **environ: str) -> Loaded:
    """Load a file with this text."""
    path = folder / "swap.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, {**ENVIRON, **environ}, compat=compat)


def load(text: str, folder: Path) -> Config:
    return loaded(text, folder).config


def mistakes(text: str, folder: Path, *, compat: bool = False, **environ: str) -> list[str]:
    """Name the mistakes of a file with this text."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, folder, compat=compat, **environ)
    return lines_of(caught.value, folder)


def lines_of(error: ConfigError, folder: Path) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in str(error).splitlines()]


def told(problems: tuple[Problem, ...]) -> list[str]:
    """Name problems with their lines."""
    return [f"{problem.line}: {problem}" for problem in problems]


def load_all(files: dict[str, str], folder: Path, main: str | None = None) -> Loaded:
    """Load the files of a folder, and the main one, which lies beside it."""
    directory = folder / "conf.d"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    if main is not None:
        (folder / "swap.yaml").write_text(main)
    return load_config(Source(folder / "swap.yaml" if main else None, directory), ENVIRON)
