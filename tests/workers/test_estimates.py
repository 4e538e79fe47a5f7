"""What `--check` tells of memory: from options and heads of files alone, and never a crash."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.workers import heads, sd_files
from tests.workers.reckoned import florence2, ladder, llama, sd, total
from workers.memory import MIB


async def asked(kind: str, *lines: Mapping[str, Any]) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", f"workers.{kind}", "--check"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate("".join(json.dumps(line) + "\n" for line in lines).encode())
    return [json.loads(line) for line in out.splitlines()]


async def test_check_tells_the_memory_of_each_line(models: Path) -> None:
    """Sound options are answered with parts and a ladder, those with problems with null."""
    sound, broken = await asked("sd", sd_files.options(models), {"diffusion_model": "nowhere"})

    assert sound["problems"] == []
    places = {part["what"]: part["place"] for part in sound["memory"]["parts"]}
    assert (places["VAE"], places["tokenizer"], places["GPU context"]) == (
        *("device", "host", "context"),
    )
    assert [rung["up_to_pixels"] for rung in sound["memory"]["requests"]][-1] == 2048 * 2048
    assert broken["memory"] is None


def test_beams_and_types_widen_florence(models: Path) -> None:
    """Twice the bytes a number are twice the weights; more beams keep more tokens."""
    folder = models / "florence2"
    short, wide = florence2(folder, dtype="bfloat16"), florence2(folder, dtype="float32")
    beams = florence2(folder, dtype="bfloat16", num_beams=3)

    assert total(wide, "weights") == 2 * total(short, "weights")
    assert total(beams, "tokens at work") == 3 * total(short, "tokens at work")
    assert florence2(folder, device="cpu").held_bytes("device", "context") == 0


@pytest.mark.parametrize(
    ("dtype", "held_mib", "peak_mib"), [("bfloat16", 1248, 1343), ("float32", 2120, 2239)]
)
def test_florence_base_is_reckoned_as_measured(dtype: str, held_mib: int, peak_mib: int) -> None:
    """On a CPU after long answers to four questions: the resident memory within a tenth.

    Measured with random weights of the published dimensions, which take seconds to make.
    """
    memory = florence2("florence-community/Florence-2-base", dtype=dtype, device="cpu")

    assert memory.held_bytes("host") / MIB == pytest.approx(held_mib, rel=0.1)
    assert memory.held_bytes("host") / MIB > 0.9 * peak_mib


def test_florence_large_is_reckoned_as_published(tmp_path: Path) -> None:
    """The working memory of the large model on a GPU is met within a fifth: 217 MiB."""
    vision = {"embed_dim": [256, 512, 1024, 2048], "patch_stride": [4, 2, 2, 2]}
    text = {"d_model": 1024, "decoder_layers": 12, "max_position_embeddings": 1024}
    (tmp_path / "config.json").write_text(
        json.dumps({"vision_config": vision, "text_config": text})
    )

    memory = florence2(tmp_path, dtype="bfloat16", device="cuda:0")

    assert total(memory, "vision tower at work") == pytest.approx(217 * MIB, rel=0.2)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x10\0\0\0\0\0\0\0{", b"garbage" * 99, None])
def test_a_file_that_cannot_be_read_counts_by_its_size(
    tmp_path: Path, content: bytes | None
) -> None:
    """A damaged or missing file is no exception: its bytes are taken for weights."""
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "config.json").write_bytes(content or b"")
    size_bytes = len(content or b"")

    found = [
        total(llama(path, mmproj=str(path)), "weights"),
        total(sd(diffusion_model=str(path), vae=str(path)), "diffusion model"),
        total(florence2(tmp_path), "weights"),
    ]

    assert found == [size_bytes] * 3


def test_heads_that_lie_raise_nothing(tmp_path: Path) -> None:
    """Keys of odd values and tensors of unknown types end in an estimate, whatever it is."""
    keys: dict[str, str | int | float] = {
        "general.architecture": "llama",
        "llama.block_count": "two",
        "llama.attention.head_count": 3.5,
        "llama.attention.head_count_kv": "many",
        "llama.embedding_length": 77,
        "llama.feed_forward_length": 0,
    }
    path = heads.write_gguf(tmp_path / "m.gguf", keys, {"token_embd.weight": ("F32", (3, 7))})

    assert total(llama(path), "weights") == 84
    assert ladder(sd(diffusion_model=str(path)))[512**2] > 0
