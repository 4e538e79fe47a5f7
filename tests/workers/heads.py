"""Files that are all head: real shapes, and holes where the numbers would be."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

Shape = tuple[int, ...]
Tensors = Mapping[str, tuple[str, Shape]]
"""Name → type and shape, in torch's order."""

Value = str | int | float | list[str]

ALIGN_BYTES = 32
GGML_TYPES = {  # name → number, values in a block, bytes of a block
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8}


def write_gguf(path: Path, keys: Mapping[str, Value], tensors: Tensors) -> Path:
    """Write the head of a GGUF file; the file is sparse, and as long as a whole one."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(_text(key) + _typed(value) for key, value in keys.items())
    offset = 0
    for name, (kind, shape) in tensors.items():
        number, block, block_bytes = GGML_TYPES[kind]
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", number, offset)
        offset += _padded(math.prod(shape) // block * block_bytes)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(_padded(len(head)) + offset)
    return path


def write_safetensors(path: Path, tensors: Tensors) -> Path:
    """Write the head of a safetensors file; likewise."""
    entries: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * DTYPE_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


def llama(
    path: Path,
    *,
    layers: int,
    width: int,
    inner: int,
    words: int,
    heads: int,
    kv_heads: int,
    kind: str = "Q4_0",
    tied: bool = False,
) -> Path:
    """Write the head of a language model of llama's architecture, with made-up words."""
    keys: dict[str, Value] = {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.vocab_size": words,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"w{number}" for number in range(words)],
        "tokenizer.ggml.merges": ["w 0"],
        "tokenizer.ggml.eos_token_id": 1,
    }
    kv_width = width // heads * kv_heads
    tensors: dict[str, tuple[str, Shape]] = {
        "token_embd.weight": (kind, (words, width)),
        "output_norm.weight": ("F32", (width,)),
    }
    if not tied:
        tensors["output.weight"] = (kind, (words, width))
    for layer in range(layers):
        shapes = {
            "attn_q": (width, width),
            "attn_k": (kv_width, width),
            "attn_v": (kv_width, width),
            "attn_output": (width, width),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }
        tensors |= {f"blk.{layer}.{part}.weight": (kind, s) for part, s in shapes.items()}
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{norm}.weight"] = ("F32", (width,))
    return write_gguf(path, keys, tensors)


def flux(path: Path, *, width: int = 3072, double: int = 19, single: int = 38) -> Path:
    """Write the head of a FLUX.1-dev diffusion model, in BF16."""
    shapes: dict[str, Shape] = {
        "img_in.weight": (width, 64),
        "txt_in.weight": (width, 4096),
        "vector_in.in_layer.weight": (width, 768),
        "guidance_in.in_layer.weight": (width, 256),
        "final_layer.linear.weight": (64, width),
        "final_layer.linear.bias": (64,),
    }
    for block in range(double):
        for side in ("img", "txt"):
            start = f"double_blocks.{block}.{side}"
            shapes |= {
                f"{start}_mod.lin.weight": (6 * width, width),
                f"{start}_attn.qkv.weight": (3 * width, width),
                f"{start}_attn.norm.key_norm.scale": (128,),
                f"{start}_attn.proj.weight": (width, width),
                f"{start}_mlp.0.weight": (4 * width, width),
                f"{start}_mlp.2.weight": (width, 4 * width),
            }
    for block in range(single):
        start = f"single_blocks.{block}"
        shapes |= {
            f"{start}.linear1.weight": (7 * width, width),
            f"{start}.linear2.weight": (width, 5 * width),
            f"{start}.modulation.lin.weight": (3 * width, width),
        }
    return write_safetensors(path, {name: ("BF16", shape) for name, shape in shapes.items()})


def kl_vae(path: Path, *, channels: int = 128, latent: int = 16) -> Path:
    """Write the head of the decoder of an image VAE: what its memory is told by."""
    shapes: dict[str, Shape] = {
        "decoder.conv_in.weight": (4 * channels, latent, 3, 3),
        "decoder.conv_in.bias": (4 * channels,),
        "decoder.up.0.block.0.conv1.weight": (channels, 2 * channels, 3, 3),
        "decoder.conv_out.weight": (3, channels, 3, 3),
    }
    return write_safetensors(path, {name: ("F32", shape) for name, shape in shapes.items()})


def _padded(count: int) -> int:
    return count + -count % ALIGN_BYTES


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)
