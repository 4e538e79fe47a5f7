"""A projector of LLaVA's kind whose pictures take several cells; it was trained for nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

WRITER = Path(__file__).parents[2] / "scripts/tiny/gguf.py"
SIDE_PX, PATCH_PX = 56, 14
CELLS = (SIDE_PX // PATCH_PX) ** 2
WIDTH, INNER, BLOCKS = 32, 64, 2


def write_projector(path: Path, text_width: int = 128) -> Path:
    """Write a vision transformer of random weights, always the same."""
    rng = np.random.default_rng(7)
    file = _writer().Gguf("clip")
    file.add("clip.has_vision_encoder", value=True)
    file.add("clip.projector_type", "mlp")
    file.add("clip.use_gelu", value=False)
    numbers = {
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "projection_dim": text_width,
        "block_count": BLOCKS,
        "attention.head_count": 2,
    }
    for key, number in numbers.items():
        file.add("clip.vision." + key, number)
    file.add("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for key in ("image_mean", "image_std"):
        file.add("clip.vision." + key, [0.5, 0.5, 0.5])
    for name, shape in _shapes(text_width).items():
        is_gain = name.endswith(("ln.weight", "ln1.weight", "ln2.weight"))
        weights = np.ones(shape) if is_gain else rng.standard_normal(shape) / shape[-1] ** 0.5
        file.tensor(name, weights.astype("f4"))
    file.write(path)
    return path


def _writer() -> Any:
    """Import the recipes' writer from its place: where pytest looks for modules there is none."""
    spec = importlib.util.spec_from_file_location("tiny_gguf", WRITER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shapes(text_width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "v.class_embd": (WIDTH,),
        "v.patch_embd.weight": (WIDTH, 3, PATCH_PX, PATCH_PX),
        "v.position_embd.weight": (CELLS + 1, WIDTH),
        "v.pre_ln.weight": (WIDTH,),
        "v.pre_ln.bias": (WIDTH,),
        "mm.0.weight": (text_width, WIDTH),
        "mm.0.bias": (text_width,),
        "mm.2.weight": (text_width, text_width),
        "mm.2.bias": (text_width,),
    }
    for block in range(BLOCKS):
        parts = {f"{part}.weight": (WIDTH, WIDTH) for part in _ATTENTION}
        parts |= {f"{part}.bias": (WIDTH,) for part in (*_ATTENTION, "ffn_down")}
        parts |= {"ffn_up.weight": (INNER, WIDTH), "ffn_up.bias": (INNER,)}
        parts |= {"ffn_down.weight": (WIDTH, INNER)}
        parts |= {f"{norm}.{part}": (WIDTH,) for norm in _NORMS for part in ("weight", "bias")}
        shapes |= {f"v.blk.{block}.{name}": shape for name, shape in parts.items()}
    return shapes


_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_out")
_NORMS = ("ln1", "ln2")
