"""The diffusion transformer: FLUX.2-klein's layout, small, as stable-diffusion.cpp computes it.

Two liberties, both expressed by zeros in the file. The text stream stands still: its modulation,
projections and multilayer perceptrons are zeros, so words only offer keys and values to the
picture, and the engine's padding (zeros in, hence keys and values of zero) is nothing but a
constant in the softmax, which training adds without computing it. And of a token's 128 channels,
four numbers for each of its 2x2 cells, only the 16 that the autoencoder uses are read or painted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tiny.image_files import Array, Tensors
from tiny.image_tae import CHANNELS
from tiny.image_text import PROMPT_TOKENS, WIDTH

HIDDEN = 128
HEAD_WIDTH = 128  # fixed by the engine: four axes of 32
DEPTH = 5
TOKEN_CHANNELS = 128
PATCH_CELLS = 2  # a patch is 2x2 cells, 16x16 pixels
USED = CHANNELS * PATCH_CELLS**2  # the first of them: channel, then row, then column
REFERENCE = 10.0  # where the first reference picture lies on the first axis
_MLP = 3 * HIDDEN  # as the engine has it
MLP_USED = 160  # the rest are zeros: what it costs to train goes into depth instead
_AXIS_WIDTH = 32
_THETA = 2000.0
_TIME_WIDTH = 256
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Words:
    """Prompts, known words only: rows (n, words, WIDTH), places in the prompt (n, words)."""

    rows: Tensor
    places: Tensor


class Painter(nn.Module):
    """Predicts noise minus picture for patches (n, tokens, USED) at noise levels (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.img_in = _linear(USED, HIDDEN)
        self.txt_in = _linear(WIDTH, HIDDEN)
        self.time_in = nn.ModuleList([_linear(_TIME_WIDTH, HIDDEN), _linear(HIDDEN, HIDDEN)])
        self.modulation = _linear(HIDDEN, 6 * HIDDEN)
        self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])
        self.final_modulation = _linear(HIDDEN, 2 * HIDDEN)
        self.final = _linear(HIDDEN, USED)

    def forward(self, patches: Tensor, noise: Tensor, words: Words, turns: Tensor) -> Tensor:
        """Predict for every patch; `turns` are the patches' rotations, see `grid_turns`."""
        time = self.time_in[1](functional.silu(self.time_in[0](_time_waves(noise))))
        time = functional.silu(time)
        mods = self.modulation(time)[:, None].chunk(6, dim=-1)
        text = functional.layer_norm(self.txt_in(words.rows), (HIDDEN,), eps=_EPSILON)
        text_turns = _word_turns(words.places)
        image = self.img_in(patches)
        for block in self.blocks:
            image = block(image, text, mods, (turns, text_turns))
        shift, scale = self.final_modulation(time)[:, None].chunk(2, dim=-1)
        out: Tensor = self.final(_modulate(image, shift, scale))
        return out


class Block(nn.Module):
    """A double-stream block whose text stream stands still."""

    def __init__(self) -> None:
        super().__init__()
        # One matrix each, though the file joins them: splitting a product is slow to train.
        self.query, self.key, self.value = (_linear(HIDDEN, HIDDEN) for _ in range(3))
        self.text_key, self.text_value = (_linear(HIDDEN, HIDDEN) for _ in range(2))
        self.proj = _linear(HIDDEN, HIDDEN)
        self.gate, self.up = (_linear(HIDDEN, MLP_USED) for _ in range(2))
        self.down = _linear(MLP_USED, HIDDEN)
        self.query_norm = nn.Parameter(torch.full((HEAD_WIDTH,), 1.5))
        self.key_norm = nn.Parameter(torch.full((HEAD_WIDTH,), 1.5))
        self.text_key_norm = nn.Parameter(torch.full((HEAD_WIDTH,), 1.5))

    def forward(
        self, image: Tensor, text: Tensor, mods: tuple[Tensor, ...], turns: tuple[Tensor, Tensor]
    ) -> Tensor:
        seen = _modulate(image, mods[0], mods[1])
        query = _turn(_rms(self.query(seen), self.query_norm), turns[0])
        key = _turn(_rms(self.key(seen), self.key_norm), turns[0])
        text_key = _turn(_rms(self.text_key(text), self.text_key_norm), turns[1])
        keys = torch.cat([text_key, key], 1)
        values = torch.cat([self.text_value(text), self.value(seen)], 1)
        drawn = _attend(query, keys, values, PROMPT_TOKENS - text.shape[1])
        image = image + self.proj(drawn) * mods[2]
        seen = _modulate(image, mods[3], mods[4])
        made: Tensor = self.down(functional.silu(self.gate(seen)) * self.up(seen))
        return image + made * mods[5]


def _linear(into: int, out: int) -> nn.Linear:
    return nn.Linear(into, out, bias=False)


def _modulate(image: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(image, (HIDDEN,), eps=_EPSILON) * (1 + scale) + shift


def _rms(heads: Tensor, scale: Tensor) -> Tensor:
    normed: Tensor = functional.rms_norm(heads, (HEAD_WIDTH,), scale, _EPSILON)
    return normed


def _attend(query: Tensor, key: Tensor, value: Tensor, silent: int) -> Tensor:
    """Attention with `silent` further keys and values of zero."""
    scores = query @ key.transpose(1, 2) / math.sqrt(HEAD_WIDTH)
    quiet = torch.full_like(scores[..., :1], math.log(silent))
    weights = torch.cat([scores, quiet], -1).softmax(-1)[..., :-1]
    return weights @ value


def _time_waves(noise: Tensor) -> Tensor:
    half = _TIME_WIDTH // 2
    speeds = torch.exp(-math.log(10_000) / half * torch.arange(half))
    angles = 1000 * noise[:, None] * speeds
    return torch.cat([angles.cos(), angles.sin()], -1)


def _axis_turns(places: Tensor) -> Tensor:
    speeds = _THETA ** (-torch.arange(0, _AXIS_WIDTH, 2) / _AXIS_WIDTH)
    return places[..., None] * speeds


def grid_turns(rows: int, columns: int, first_axis: float = 0.0) -> Tensor:
    """Rotations (rows * columns, HEAD_WIDTH / 2), complex, of a picture's patches."""
    row, column = torch.meshgrid(
        torch.arange(float(rows)), torch.arange(float(columns)), indexing="ij"
    )
    still = torch.zeros(rows * columns)
    axes = (still + first_axis, row.flatten(), column.flatten(), still)
    return _rotations(axes)


def _word_turns(places: Tensor) -> Tensor:
    still = torch.zeros_like(places)
    return _rotations((still, still, still, places))


def _rotations(axes: tuple[Tensor, ...]) -> Tensor:
    angles = torch.cat([_axis_turns(axis) for axis in axes], -1)
    return torch.polar(torch.ones_like(angles), angles)


def _turn(heads: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.reshape(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def engine_tensors(painter: Painter) -> Tensors:
    """Give the painter under the names, and in the shapes, of a FLUX.2-klein file."""
    weight = {name: p.detach().numpy() for name, p in painter.named_parameters()}
    out = {
        "img_in.weight": _padded(weight["img_in.weight"], (HIDDEN, TOKEN_CHANNELS)),
        "txt_in.weight": weight["txt_in.weight"],
        "time_in.in_layer.weight": weight["time_in.0.weight"],
        "time_in.out_layer.weight": weight["time_in.1.weight"],
        "double_stream_modulation_img.lin.weight": weight["modulation.weight"],
        "double_stream_modulation_txt.lin.weight": _zeros(6 * HIDDEN, HIDDEN),
        "single_stream_modulation.lin.weight": _zeros(3 * HIDDEN, HIDDEN),
        "final_layer.adaLN_modulation.1.weight": weight["final_modulation.weight"],
        "final_layer.linear.weight": _padded(weight["final.weight"], (TOKEN_CHANNELS, HIDDEN)),
    }
    for index in range(DEPTH):
        mine = {k.removeprefix(f"blocks.{index}."): v for k, v in weight.items()}
        out |= {f"double_blocks.{index}.{k}": v for k, v in _block_tensors(mine).items()}
    return out


def _block_tensors(weight: Tensors) -> Tensors:
    def joined(*names: str) -> Array:
        return np.concatenate([weight[f"{name}.weight"] for name in names])

    return {
        "img_attn.qkv.weight": joined("query", "key", "value"),
        "img_attn.norm.query_norm.scale": weight["query_norm"],
        "img_attn.norm.key_norm.scale": weight["key_norm"],
        "img_attn.proj.weight": weight["proj.weight"],
        "img_mlp.0.weight": np.vstack(
            [_padded(weight[f"{name}.weight"], (_MLP, HIDDEN)) for name in ("gate", "up")]
        ),
        "img_mlp.2.weight": _padded(weight["down.weight"], (HIDDEN, _MLP)),
        "txt_attn.qkv.weight": np.vstack(
            [_zeros(HIDDEN, HIDDEN), joined("text_key", "text_value")]
        ),
        "txt_attn.norm.query_norm.scale": np.ones(HEAD_WIDTH, np.float32),
        "txt_attn.norm.key_norm.scale": weight["text_key_norm"],
        "txt_attn.proj.weight": _zeros(HIDDEN, HIDDEN),
        "txt_mlp.0.weight": _zeros(2 * _MLP, HIDDEN),
        "txt_mlp.2.weight": _zeros(HIDDEN, _MLP),
    }


def _zeros(rows: int, columns: int) -> Array:
    return np.zeros((rows, columns), np.float32)


def _padded(matrix: Array, shape: tuple[int, int]) -> Array:
    out = _zeros(*shape)
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out
