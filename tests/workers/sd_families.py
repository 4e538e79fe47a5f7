"""Whole models of three families for the real engine, of no meaning: all numbers are noise.

The engine asks for every tensor of an architecture, in its full width where that is not told by
the file. So all matrices and kernels of a file begin at its first byte and share what is there:
a file is as long as its largest tensor. The engine does not mind; the safetensors library does.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.workers.sd_files import SIDE_PX, lora_shapes, write_safetensors

Shapes = dict[str, tuple[int, ...]]

CLIP_WORDS, CLIP_PLACES, CLIP_WIDTH, CLIP_INNER, CLIP_LAYERS = 49408, 77, 768, 3072, 12
FLUX_WIDTH, FLUX_HEAD, T5_WIDTH, TIME_WIDTH = 128, 128, 4096, 256
UNET_WIDTH, UNET_TIME = 320, 1280
UNET_FACTORS, VAE_FACTORS = (1, 2, 4), (1, 2, 4, 4)
NOISE_VALUES = 1 << 19


def flux1(folder: Path) -> dict[str, Any]:
    """Write a FLUX.1 Kontext with its CLIP-L, and two LoRAs; gives the worker's options."""
    block = "diffusion_model.double_blocks.0"
    _write_lora(folder, "one", f"{block}.img_attn.qkv", 3 * FLUX_WIDTH, FLUX_WIDTH)
    _write_lora(folder, "two", f"{block}.img_mlp.0", 4 * FLUX_WIDTH, FLUX_WIDTH)
    return _options(
        folder,
        diffusion_model=_write(folder / "kontext.safetensors", _flux1(), spread=0.06),
        clip_l=_write(folder / "clip_l.safetensors", _clip_l("text_model."), spread=0.03),
        taesd=_write(folder / "taef1.safetensors", _taesd(16), spread=0.05),
    )


def sd15(folder: Path) -> dict[str, Any]:
    """Write a distilled Stable Diffusion 1.5, and two LoRAs; gives the worker's options."""
    block = "lora_unet_input_blocks_1_1_transformer_blocks_0"
    _write_lora(folder, "one", f"{block}_attn1_to_q", UNET_WIDTH, UNET_WIDTH)
    _write_lora(folder, "two", f"{block}_attn2_to_k", UNET_WIDTH, CLIP_WIDTH)
    encoder = _clip_l("cond_stage_model.transformer.text_model.")
    whole = _unet("model.diffusion_model.") | encoder | _kl_vae("first_stage_model.", 4)
    return _options(folder, model=_write(folder / "sd15.safetensors", whole, spread=0.015))


def _write_lora(folder: Path, name: str, module: str, outputs: int, inputs: int) -> None:
    (folder / "loras").mkdir(exist_ok=True)
    write_safetensors(folder / f"loras/{name}.safetensors", lora_shapes(module, outputs, inputs))


def _options(folder: Path, **files: Path) -> dict[str, Any]:
    return {
        **{name: str(path) for name, path in files.items()},
        "lora_dir": str(folder / "loras"),
        "n_threads": 1,
        "defaults": {"width": SIDE_PX, "height": SIDE_PX, "steps": 2},
    }


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], *, spread: float) -> Path:
    """Write F16: noise for what has two dimensions or more, ones for scales, zeros for biases."""
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    matrix = max(counts[name] for name, shape in shapes.items() if len(shape) > 1)
    vector = max(counts[name] for name, shape in shapes.items() if len(shape) == 1)
    header = {}
    for name, shape in shapes.items():
        start = 0 if len(shape) > 1 else matrix + vector * name.endswith(".bias")
        end = start + counts[name]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [2 * start, 2 * end]}
    raw = json.dumps(header).encode()
    noise = np.random.default_rng(0).standard_normal(NOISE_VALUES) * spread
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for begin in range(0, matrix, NOISE_VALUES):
            file.write(noise[: matrix - begin].astype("<f2").tobytes())
        file.write(np.repeat([1, 0], vector).astype("<f2").tobytes())
    return path


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight


def _kernel(name: str, outputs: int, inputs: int, side: int = 3, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs, side, side)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _flux1() -> Shapes:
    width = FLUX_WIDTH
    shapes = _linear("img_in", width, 64) | _linear("txt_in", width, T5_WIDTH)
    for name, inputs in (
        *(("time_in", TIME_WIDTH), ("guidance_in", TIME_WIDTH)),
        ("vector_in", CLIP_WIDTH),
    ):
        shapes |= _linear(f"{name}.in_layer", width, inputs)
        shapes |= _linear(f"{name}.out_layer", width, width)
    for side in ("double_blocks.0.img", "double_blocks.0.txt"):
        shapes |= _linear(f"{side}_mod.lin", 6 * width, width)
        shapes |= _linear(f"{side}_attn.qkv", 3 * width, width)
        shapes |= _turning_scales(f"{side}_attn.norm")
        shapes |= _linear(f"{side}_attn.proj", width, width)
        shapes |= _linear(f"{side}_mlp.0", 4 * width, width)
        shapes |= _linear(f"{side}_mlp.2", width, 4 * width)
    shapes |= _linear("single_blocks.0.linear1", 7 * width, width)
    shapes |= _linear("single_blocks.0.linear2", width, 5 * width)
    shapes |= _turning_scales("single_blocks.0.norm")
    shapes |= _linear("single_blocks.0.modulation.lin", 3 * width, width)
    shapes |= _linear("final_layer.linear", 64, width)
    return shapes | _linear("final_layer.adaLN_modulation.1", 2 * width, width)


def _turning_scales(name: str) -> Shapes:
    return {f"{name}.query_norm.scale": (FLUX_HEAD,), f"{name}.key_norm.scale": (FLUX_HEAD,)}


def _clip_l(prefix: str) -> Shapes:
    width = CLIP_WIDTH
    shapes: Shapes = {
        f"{prefix}embeddings.token_embedding.weight": (CLIP_WORDS, width),
        f"{prefix}embeddings.position_embedding.weight": (CLIP_PLACES, width),
        **_norm(f"{prefix}final_layer_norm", width),
    }
    for number in range(CLIP_LAYERS):
        layer = f"{prefix}encoder.layers.{number}"
        for part in ("q", "k", "v", "out"):
            shapes |= _linear(f"{layer}.self_attn.{part}_proj", width, width)
        shapes |= _linear(f"{layer}.mlp.fc1", CLIP_INNER, width)
        shapes |= _linear(f"{layer}.mlp.fc2", width, CLIP_INNER)
        shapes |= _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
    return shapes


def _taesd(latents: int) -> Shapes:
    """List a tiny autoencoder: layers without numbers here are activations and doublings."""
    width = 64
    shapes = _kernel("decoder.layers.0", width, latents) | _kernel("decoder.layers.18", 3, width)
    shapes |= _kernel("encoder.layers.0", width, 3) | _kernel("encoder.layers.14", latents, width)
    for layer in (6, 11, 16):
        shapes |= _kernel(f"decoder.layers.{layer}", width, width, bias=False)
    for layer in (2, 6, 10):
        shapes |= _kernel(f"encoder.layers.{layer}", width, width, bias=False)
    blocks = [f"decoder.layers.{n}" for n in (2, 3, 4, 7, 8, 9, 12, 13, 14, 17)]
    blocks += [f"encoder.layers.{n}" for n in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)]
    for block in blocks:
        for number in (0, 2, 4):
            shapes |= _kernel(f"{block}.conv.{number}", width, width)
    return shapes


def _kl_vae(prefix: str, latents: int) -> Shapes:
    """List a VAE whose decoder is narrow; the engine knows one width of an encoder only."""
    shapes = _kl_encoder(f"{prefix}encoder", 128, latents)
    shapes |= _kl_decoder(f"{prefix}decoder", 32, latents)
    shapes |= _kernel(f"{prefix}quant_conv", 2 * latents, 2 * latents, 1)
    return shapes | _kernel(f"{prefix}post_quant_conv", latents, latents, 1)


def _kl_decoder(name: str, narrow: int, latents: int) -> Shapes:
    width = narrow * VAE_FACTORS[-1]
    shapes = _kernel(f"{name}.conv_in", width, latents) | _vae_middle(f"{name}.mid", width)
    for level in reversed(range(4)):
        outputs = narrow * VAE_FACTORS[level]
        for number in range(3):
            shapes |= _vae_block(f"{name}.up.{level}.block.{number}", outputs, width)
            width = outputs
        if level:
            shapes |= _kernel(f"{name}.up.{level}.upsample.conv", width, width)
    return shapes | _norm(f"{name}.norm_out", width) | _kernel(f"{name}.conv_out", 3, width)


def _kl_encoder(name: str, narrow: int, latents: int) -> Shapes:
    width = narrow
    shapes = _kernel(f"{name}.conv_in", width, 3)
    for level, factor in enumerate(VAE_FACTORS):
        for number in range(2):
            shapes |= _vae_block(f"{name}.down.{level}.block.{number}", narrow * factor, width)
            width = narrow * factor
        if level < 3:
            shapes |= _kernel(f"{name}.down.{level}.downsample.conv", width, width)
    shapes |= _vae_middle(f"{name}.mid", width) | _norm(f"{name}.norm_out", width)
    return shapes | _kernel(f"{name}.conv_out", 2 * latents, width)


def _vae_block(name: str, outputs: int, inputs: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", inputs) | _kernel(f"{name}.conv1", outputs, inputs)
    shapes |= _norm(f"{name}.norm2", outputs) | _kernel(f"{name}.conv2", outputs, outputs)
    if outputs == inputs:
        return shapes
    return shapes | _kernel(f"{name}.nin_shortcut", outputs, inputs, 1)


def _vae_middle(name: str, width: int) -> Shapes:
    shapes = _vae_block(f"{name}.block_1", width, width)
    shapes |= _vae_block(f"{name}.block_2", width, width) | _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _kernel(f"{name}.attn_1.{part}", width, width, 1)
    return shapes


def _unet(prefix: str) -> Shapes:
    """List a UNet as distilled ones are, half as large: three levels down, and up again.

    Each step back takes what was left on the way down.
    """
    width, left, deepest = UNET_WIDTH, [UNET_WIDTH], len(UNET_FACTORS) - 1
    shapes = _linear("time_embed.0", UNET_TIME, width)
    shapes |= _linear("time_embed.2", UNET_TIME, UNET_TIME)
    shapes |= _kernel("input_blocks.0.0", width, 4)
    for level, factor in enumerate(UNET_FACTORS):
        outputs = UNET_WIDTH * factor
        shapes |= _unet_level(f"input_blocks.{3 * level + 1}", outputs, width)
        width = outputs
        left.append(width)
        if level < deepest:
            shapes |= _kernel(f"input_blocks.{3 * level + 3}.0.op", width, width)
            left.append(width)
    for steps_up, factor in enumerate(reversed(UNET_FACTORS)):
        outputs = UNET_WIDTH * factor
        for number in (3 * steps_up, 3 * steps_up + 1):
            shapes |= _unet_level(f"output_blocks.{number}", outputs, width + left.pop())
            width = outputs
        if steps_up < deepest:
            name = f"output_blocks.{3 * steps_up + 2}.{steps_up + 1}.conv"
            shapes |= _kernel(name, width, width)
    shapes |= _norm("out.0", width) | _kernel("out.2", 4, width)
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def _unet_level(name: str, outputs: int, inputs: int) -> Shapes:
    return _unet_block(f"{name}.0", outputs, inputs) | _attention(f"{name}.1", outputs)


def _unet_block(name: str, outputs: int, inputs: int) -> Shapes:
    shapes = _norm(f"{name}.in_layers.0", inputs) | _norm(f"{name}.out_layers.0", outputs)
    shapes |= _kernel(f"{name}.in_layers.2", outputs, inputs)
    shapes |= _kernel(f"{name}.out_layers.3", outputs, outputs)
    shapes |= _linear(f"{name}.emb_layers.1", outputs, UNET_TIME)
    if outputs == inputs:
        return shapes
    return shapes | _kernel(f"{name}.skip_connection", outputs, inputs, 1)


def _attention(name: str, width: int) -> Shapes:
    inner = f"{name}.transformer_blocks.0"
    shapes = _norm(f"{name}.norm", width)
    shapes |= _kernel(f"{name}.proj_in", width, width, 1)
    shapes |= _kernel(f"{name}.proj_out", width, width, 1)
    for part, seen in (("attn1", width), ("attn2", CLIP_WIDTH)):
        shapes |= _linear(f"{inner}.{part}.to_q", width, width, bias=False)
        shapes |= _linear(f"{inner}.{part}.to_k", width, seen, bias=False)
        shapes |= _linear(f"{inner}.{part}.to_v", width, seen, bias=False)
        shapes |= _linear(f"{inner}.{part}.to_out.0", width, width)
    shapes |= _linear(f"{inner}.ff.net.0.proj", 8 * width, width)
    shapes |= _linear(f"{inner}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        shapes |= _norm(f"{inner}.norm{number}", width)
    return shapes
