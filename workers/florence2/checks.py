"""What can be told of a model's files without loading them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers import files
from workers.florence2.options import Florence2Options
from workers.serve import Problem

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# each line is one need, met by any of its choices
NEEDED = (
    (("config.json",),),
    (("tokenizer.json",), ("vocab.json", "merges.txt")),
    (("tokenizer_config.json",),),
    (("processor_config.json",), ("preprocessor_config.json",)),
    ((WEIGHTS,), (WEIGHTS_INDEX,)),
)
OPTIONAL_JSON = ("generation_config.json",)
PATTERNS = ("*.json", "*.txt", "*.safetensors")  # what a download fetches
COMMUNITY = "use florence-community/Florence-2-base or -large, the same weights"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(model: str) -> bool:
    return _REPOSITORY.fullmatch(model) is not None


def directory_of(model: str) -> Path | None:
    """Find the model's directory: `model` itself, or its snapshot in the hub cache."""
    if Path(model).is_dir():
        return Path(model)
    if not is_repository(model):
        return None
    folder = hub_cache() / f"models--{model.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """Tell where huggingface_hub keeps repositories, by its own environment variables."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def problems(options: Florence2Options) -> list[Problem]:
    """Find what keeps the model from loading, as far as its files tell."""
    directory = directory_of(options.model)
    if directory is not None:
        return [Problem("model", f"{directory}: {told}") for told in _wrong_in(directory)]
    if not is_repository(options.model):
        return [Problem("model", f"no such directory: {options.model}")]
    if options.download:
        return []
    return [
        Problem(
            "model",
            f"neither a directory nor a repository in the hub cache {hub_cache()}:"
            f" {options.model}. Fetch it (`hf download {options.model}`), or set download: true",
        )
    ]


def _wrong_in(directory: Path) -> list[str]:
    missing = list(_missing(directory))
    if missing:
        return missing
    names = sorted({n for need in NEEDED for choice in need for n in choice if n.endswith("json")})
    unread = [told for name in (*names, *OPTIONAL_JSON) for told in _wrong_json(directory / name)]
    if unread:
        return unread
    wrong = _wrong_layout(json.loads((directory / "config.json").read_bytes()))
    return [wrong] if wrong else list(_wrong_weights(directory))


def _missing(directory: Path) -> Iterator[str]:
    for need in NEEDED:
        if not any(all((directory / name).is_file() for name in choice) for choice in need):
            told = " or ".join(" + ".join(choice) for choice in need)
            pickled = WEIGHTS in told and (directory / "pytorch_model.bin").is_file()
            hint = " (pytorch_model.bin is not loaded: a pickle can run code)" if pickled else ""
            yield f"{told} is missing{hint}; fetch the whole model directory"


def _wrong_json(path: Path) -> Iterator[str]:
    if not path.is_file():
        return  # another choice of the same need is there
    try:
        raw = path.read_bytes()
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}"
        return
    told = files.impostor(raw)
    if told is not None:
        yield f"{path.name} {told}"
        return
    try:
        whole = isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        yield f"{path.name} is not valid JSON; fetch it again"


def _wrong_layout(config: dict[str, Any]) -> str | None:
    """Tell a config.json that transformers' native Florence-2 cannot load.

    The class loads a `bart` config without complaint, so the type is checked here.
    """
    kind, text = config.get("model_type"), config.get("text_config")
    if kind == "florence2" and isinstance(text, dict):
        remote = text.get("model_type") == "florence2_language" or "auto_map" in config
        return (
            f"it has microsoft's layout, which runs remote code; {COMMUNITY}" if remote else None
        )
    return f"config.json has model_type {kind!r}, not 'florence2'; {COMMUNITY}"


def _wrong_weights(directory: Path) -> Iterator[str]:
    for name in weight_files(directory):
        told = _wrong_safetensors(directory / name)
        if told:
            yield f"{name} {told}"


def weight_files(directory: Path) -> list[str]:
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    index = json.loads((directory / WEIGHTS_INDEX).read_bytes())
    weight_map = index.get("weight_map")
    return sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []


def _wrong_safetensors(path: Path) -> str | None:
    if not path.exists():
        return "is named by the index and missing; fetch it"
    try:
        whole_bytes = files.read_safetensors(path).data_end
    except files.BadFile as error:
        return str(error)
    size_bytes = path.stat().st_size
    if whole_bytes == size_bytes:
        return None
    # the library would refuse it
    return f"has {size_bytes} bytes where its header says {whole_bytes}; download it again"
