"""What a llama worker would hold, by its files' heads: weights and cache to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workers import heads
from tests.workers.reckoned import held, llama, total
from workers import files
from workers.llama import estimate as llama_estimate
from workers.llama import memory as llama_memory
from workers.llama.options import LlamaOptions
from workers.memory import MIB

SEVEN_B = {
    "layers": 32,
    "width": 4096,
    "inner": 11008,
    "words": 32000,
    "heads": 32,
    "kv_heads": 32,
}


def _padded(count: int) -> int:
    return count + -count % heads.ALIGN_BYTES


@pytest.mark.parametrize(
    "name", ["chat", "endless", "embed", "rerank", "llava-mmproj", "minicpmv-mmproj"]
)
def test_tensors_of_gguf_fill_the_file(models: Path, name: str) -> None:
    """The bytes of all tensors, each padded, are what follows the head, to the byte."""
    raw = (models / f"{name}.gguf").read_bytes()
    header = files.read_gguf(models / f"{name}.gguf")
    last = list(header.shapes)[-1]
    entry = raw.index(len(last).to_bytes(8, "little") + last.encode())
    table_end = entry + 8 + len(last) + 4 + 8 * len(header.shapes[last]) + 4 + 8

    sizes = llama_estimate.tensor_bytes(header).values()

    assert sum(_padded(size) for size in sizes) == len(raw) - _padded(table_end)


@pytest.mark.parametrize(
    ("name", "weights_bytes", "more"),
    [
        ("chat", 834560, {}),
        ("endless", 5958656, {}),
        ("embed", 483328, {"embedding": True}),
        ("rerank", 500228, {"embedding": True}),
    ],
)
def test_weights_of_llama_are_what_the_engine_says(
    models: Path, name: str, weights_bytes: int, more: dict[str, Any]
) -> None:
    """On a CPU the weights are `llama_model_size`, to the byte."""
    assert total(llama(models / f"{name}.gguf", **more), "weights") == weights_bytes


@pytest.mark.parametrize(
    ("more", "bytes_per_cell"),
    [
        ({}, 2 * 128),
        ({"type_k": "q8_0"}, 128 + 68),
        ({"type_k": "q4_0", "type_v": "q4_0"}, 2 * 36),
        ({"type_k": "f32"}, 256 + 128),
        ({"n_parallel": 16}, 2 * 128),
    ],
)
@pytest.mark.parametrize(("n_ctx", "cells"), [(4096, 4096), (300, 512), (1_000_000, 1_000_192)])
def test_the_cache_is_exact(
    tmp_path: Path, n_ctx: int, cells: int, more: Any, bytes_per_cell: int
) -> None:
    """The KV cache is cells x layers x KV heads x what a key and a value take."""
    shape = SEVEN_B | {"layers": 3, "width": 256, "heads": 4, "kv_heads": 2}
    path = heads.llama(tmp_path / "m.gguf", **shape)

    memory = llama(path, n_ctx=n_ctx, **more)

    assert held(memory, "KV cache") == {"device": cells * 3 * 2 * bytes_per_cell}


def test_a_sliding_window_saves_nothing() -> None:
    """The worker keeps the whole context in every layer, and the estimate says so."""
    header = files.Header(
        {},
        {
            "general.architecture": "gemma3",
            "gemma3.block_count": 6,
            "gemma3.attention.head_count": 8,
            "gemma3.attention.head_count_kv": 4,
            "gemma3.attention.key_length": 256,
            "gemma3.attention.value_length": 256,
            "gemma3.attention.sliding_window": 512,
        },
    )

    layers = llama_memory.layer_cache_bytes(LlamaOptions(model="m", n_ctx=8192), header)

    assert layers == (8192 * 4 * 2 * 256 * 2,) * 6


def test_layers_without_a_cache_hold_a_state() -> None:
    """Of a hybrid model only every fourth layer has cells; the others a state a sequence."""
    header = files.Header(
        {},
        {
            "general.architecture": "qwen3next",
            "qwen3next.block_count": 4,
            "qwen3next.attention.head_count": 8,
            "qwen3next.attention.head_count_kv": 2,
            "qwen3next.attention.key_length": 256,
            "qwen3next.attention.value_length": 256,
            "qwen3next.full_attention_interval": 4,
            "qwen3next.ssm.state_size": 128,
            "qwen3next.ssm.inner_size": 4096,
            "qwen3next.ssm.group_count": 16,
            "qwen3next.ssm.conv_kernel": 4,
        },
    )

    layers = llama_memory.layer_cache_bytes(LlamaOptions(model="m", n_parallel=2), header)

    state = 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)
    assert layers == (2 * state, 2 * state, 2 * state, 4096 * 2 * 2 * 256 * 2)


@pytest.mark.parametrize(
    ("more", "mib"),
    [
        ({"attention.sliding_window": 1024}, 80),
        ({"expert_used_count": 8, "expert_feed_forward_length": 768}, 92),
        ({"feed_forward_length": (8192, 4096)}, 72),
    ],
)
def test_the_buffer_of_other_architectures(more: dict[str, Any], mib: int) -> None:
    """A second mask for sliding windows, and the experts of a token, count as in the engine."""
    experts = "expert_used_count" in more
    told = {"block_count": 6, "embedding_length": 2048, "attention.head_count": 8}
    told |= {"attention.head_count_kv": 4, "attention.key_length": 256, "context_length": 8192}
    told |= {"feed_forward_length": 6144 if experts else 8192} | more
    keys = {"general.architecture": "x"} | {f"x.{key}": value for key, value in told.items()}
    header = files.Header({"token_embd.weight": (32000, 2048)}, keys)

    found = llama_estimate.compute_bytes(LlamaOptions(model="m", n_ctx=8192), header)

    assert found == mib * MIB


def test_partial_offload_moves_bytes_to_the_host(tmp_path: Path) -> None:
    """Each layer that is not offloaded takes its weights and its cache to the host."""
    path = heads.llama(tmp_path / "m.gguf", **SEVEN_B)
    every, some, none = (llama(path, n_gpu_layers=count) for count in (-1, 9, 0))

    for what in ("weights", "KV cache"):
        assert total(every, what) == total(some, what) == total(none, what)
        assert held(every, what)["device"] > held(some, what)["device"] > 0
    assert held(some, "KV cache")["device"] * 4 == held(every, "KV cache")["device"]
    assert none.held_bytes("device", "context") == 0


def test_a_tied_table_is_copied_to_the_gpu_only(tmp_path: Path) -> None:
    """Where the table of words is the output too, a GPU gets its own copy of it."""
    tied = llama(heads.llama(tmp_path / "tied.gguf", **SEVEN_B, tied=True))
    plain = llama(heads.llama(tmp_path / "plain.gguf", **SEVEN_B))

    table = 32000 * 4096 // 32 * 18
    assert held(tied, "copy of the embeddings") == {"context": table}
    assert held(plain, "copy of the embeddings") == {}
    assert held(plain, "weights")["device"] - held(tied, "weights")["device"] == table


def test_a_projector_and_a_split_model_are_counted(models: Path, tmp_path: Path) -> None:
    """All files of a model count, and the projector lies where the model does."""
    whole = (models / "chat.gguf").read_bytes()
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(whole)
    mmproj = str(models / "llava-mmproj.gguf")

    memory = llama(tmp_path / "m-00001-of-00002.gguf", mmproj=mmproj, n_gpu_layers=0)

    assert total(memory, "weights") == 2 * 834560
    assert held(memory, "projector").keys() == {"host"}
