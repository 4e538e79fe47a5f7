"""Damaged, wrong and misnamed files: told by --check, and never a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workers import launch

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


@pytest.fixture
def chat_bytes(models: Path) -> bytes:
    return (models / "chat.gguf").read_bytes()


async def problem(options: dict[str, Any]) -> dict[str, str]:
    """Give the one problem of these options."""
    [[found]] = await launch.check("llama", [options])
    return found


@pytest.mark.parametrize("part", [20, 0.02, 0.5, -1])
async def test_cut_files_are_found_out(tmp_path: Path, chat_bytes: bytes, part: float) -> None:
    """A download that broke off is told, wherever it broke off, and fails the start."""
    length = int(part) if part in (20, -1) else int(len(chat_bytes) * part)
    (tmp_path / "model.gguf").write_bytes(chat_bytes[:length])
    options = {"model": str(tmp_path / "model.gguf")}

    found = await problem(options)
    with pytest.raises(launch.StartFailed) as failed:
        async with launch.launched("llama", options):
            pass

    assert "download" in found["message"]
    assert failed.value.reason == "bad_file"


@pytest.mark.parametrize(
    ("options", "option", "says"),
    [
        ({"model": "nowhere.gguf"}, "model", "no such file"),
        ({"model": "."}, "model", "not a file"),
        ({"model": "llava-mmproj.gguf"}, "model", "name it as `mmproj`"),
        ({"model": "chat.gguf", "mmproj": "chat.gguf"}, "mmproj", "not a projector"),
        ({"model": "embed.gguf"}, "embedding", "embedding: true"),
        ({"model": "chat.gguf", "chat_template": "no.jinja"}, "chat_template", "no such file"),
        ({"model": "chat.gguf", "chat_template": "lama3"}, "chat_template", "chatml, vicuna"),
        ({"model": "chat.gguf", "pooling_type": "mean"}, "pooling_type", "embedding: true"),
        (
            {"model": "chat.gguf", "flash_attn": "off", "type_v": "q8_0"},
            "type_v",
            "flash attention",
        ),
        ({"model": "chat.gguf", "n_cxt": 3}, "n_cxt", "not permitted"),
        ({"model": "chat.gguf", "n_parallel": 0}, "n_parallel", "greater"),
    ],
)
async def test_mistakes_are_told_with_the_cure(
    models: Path, options: dict[str, Any], option: str, says: str
) -> None:
    """A mistake in the entry is told by the option's name and with what to do."""
    files = {name: str(models / options[name]) for name in ("model", "mmproj") if name in options}

    found = await problem(options | files)

    assert found["option"] == option
    assert says in found["message"]


async def test_other_parts_of_a_split_model_must_be_there(
    tmp_path: Path, chat_bytes: bytes
) -> None:
    """Of a model in several files, the missing one is named."""
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(chat_bytes)

    found = await problem({"model": str(tmp_path / "m-00001-of-00002.gguf")})

    assert "m-00002-of-00002.gguf" in found["message"]


@pytest.mark.parametrize(
    ("options", "reason", "says"),
    [
        ({"n_ctx": 100_000_000}, "out_of_memory", "n_ctx"),
        ({"chat_template": "{% for x in %}"}, "bad_options", "chat template"),
        ({"tensor_split": [1.0] * 99}, "bad_options", "tensor_split"),
    ],
)
async def test_failed_load_says_why(
    models: Path, options: dict[str, Any], reason: str, says: str
) -> None:
    """What only a load can find out is a failed start with a reason, and at once."""
    given = {"model": str(models / "chat.gguf"), "n_threads": 1} | options

    with pytest.raises(launch.StartFailed) as failed:
        async with launch.launched("llama", given):
            pass

    assert failed.value.reason == reason
    assert says in failed.value.detail


async def test_engine_reason_reaches_the_detail(tmp_path: Path, chat_bytes: bytes) -> None:
    """A file that only the engine finds wrong fails with the engine's own words."""
    strange = chat_bytes.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight")
    (tmp_path / "model.gguf").write_bytes(strange)

    with pytest.raises(launch.StartFailed) as failed:
        async with launch.launched("llama", {"model": str(tmp_path / "model.gguf")}):
            pass

    assert failed.value.reason == "engine_error"
    assert "attn_q" in failed.value.detail


async def test_projector_that_does_not_fit_fails_the_start(models: Path, tmp_path: Path) -> None:
    """A projector of another model is found at the load, not at the first picture."""
    raw = (models / "endless.gguf").read_bytes()
    (tmp_path / "other.gguf").write_bytes(raw)
    options = {
        "model": str(tmp_path / "other.gguf"),
        "mmproj": str(models / "llava-mmproj.gguf"),
        "n_threads": 1,
    }

    with pytest.raises(launch.StartFailed) as failed:
        async with launch.launched("llama", options):
            pass

    assert "does not fit" in failed.value.detail
