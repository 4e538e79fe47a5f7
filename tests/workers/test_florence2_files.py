"""What is found wrong in a Florence-2 directory without loading it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers import launch
from workers.florence2 import checks
from workers.florence2.options import Florence2Options

pytestmark = pytest.mark.engine
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def _cut(path: Path, size_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:size_bytes])


def _lengthen(directory: Path) -> None:
    with (directory / "model.safetensors").open("ab") as file:
        file.write(b"more")


def _change(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads(path.read_bytes())
    change(told)
    path.write_text(json.dumps(told))


def _pickle_instead(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "config.json": (lambda d: (d / "config.json").unlink(), "config.json is missing"),
    "tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json or vocab.json"),
    "tokenizer config": (lambda d: (d / "tokenizer_config.json").unlink(), "is missing"),
    "processor": (lambda d: (d / "processor_config.json").unlink(), "preprocessor_config.json"),
    "weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors or"),
    "pickle": (_pickle_instead, "pytorch_model.bin is not loaded"),
    "cut JSON": (lambda d: _cut(d / "config.json", 100), "config.json is not valid JSON"),
    "JSON pointer": (lambda d: (d / "tokenizer.json").write_text(POINTER), "git lfs pull"),
    "pointer": (lambda d: (d / "model.safetensors").write_text(POINTER), "git lfs pull"),
    "empty weights": (lambda d: _cut(d / "model.safetensors", 0), "is empty"),
    "cut header": (lambda d: _cut(d / "model.safetensors", 500), "cut short"),
    "cut weights": (lambda d: _cut(d / "model.safetensors", 500_000), "has 500000 of at least"),
    "no weights": (lambda d: (d / "model.safetensors").write_text("<html>" * 9), "a web page"),
    "long weights": (_lengthen, "bytes where its header says"),
    "a shard": (_shard, "b.safetensors is named by the index"),
    "type": (
        lambda d: _change(d / "config.json", lambda c: c.update(model_type="bart")),
        "'bart', not 'florence2'; use florence-community/",
    ),
    "microsoft": (
        lambda d: _change(
            d / "config.json", lambda c: c["text_config"].update(model_type="florence2_language")
        ),
        "microsoft's layout, which runs remote code; use florence-community/",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told(what: str, models: Path, tmp_path: Path) -> None:
    """One problem, about the right file, with what to do."""
    directory = tmp_path / "model"
    shutil.copytree(models / "florence2", directory)
    damage, told = DAMAGE[what]
    damage(directory)

    (problem,) = checks.problems(Florence2Options(model=str(directory)))

    assert (problem.option, problem.reason) == ("model", "bad_file")
    assert told in problem.message


async def test_check_answers_every_line(models: Path) -> None:
    """`--check` reads options until the end, and tells of options and files alike."""
    told = await launch.check(
        "florence2",
        [
            {"model": str(models / "florence2")},
            {"model": "/nowhere"},
            {"model": "acme/never-fetched"},
            {"model": "acme/never-fetched", "download": True},
            {"model": str(models / "florence2"), "device": "gpu", "beams": 3},
        ],
    )

    assert [[p["option"] for p in problems] for problems in told] == [
        [],
        ["model"],
        ["model"],
        [],
        ["device", "beams"],
    ]
    assert "hf download acme/never-fetched" in told[2][0]["message"]
