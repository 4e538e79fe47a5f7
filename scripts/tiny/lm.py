"""A language model of the llama architecture in numpy: forward, backward by hand.

The weights carry the names and shapes of llama.cpp, the embedding is tied to the output, and the
rotary embedding turns neighbouring pairs, so what is trained here runs there unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiny.optim import Array, Weights

Ids = npt.NDArray[np.int64]
_ONE, _EPS = np.float32(1), np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; `width` is `head_count` heads of `width // head_count`."""

    vocab: int
    width: int = 128
    blocks: int = 2
    head_count: int = 4
    hidden: int = 256

    @property
    def head(self) -> int:
        return self.width // self.head_count


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` (n, t); `weight` (n, t): how much predicting ids[:, t+1] at t counts.

    Where `is_soft` (n, t), the row of `soft` (n, t, width) stands in for the id's embedding:
    that is how a picture enters.
    """

    ids: Ids
    weight: Array
    soft: Array
    is_soft: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Norm:
    unit: Array  # the normalised input
    inverse: Array
    gain: Array


@dataclass(frozen=True, slots=True)
class _Block:
    """What the backward pass of one block needs again."""

    norm1: _Norm
    h1: Array
    q: Array
    k: Array
    v: Array
    attention: Array
    mixed: Array
    norm2: _Norm
    h2: Array
    gate: Array
    up: Array
    sigmoid: Array
    act: Array


def _norm(x: Array, gain: Array) -> tuple[Array, _Norm]:
    inverse = _ONE / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + _EPS)
    unit = x * inverse
    return unit * gain, _Norm(unit, inverse, gain)


def _norm_back(d: Array, kept: _Norm) -> tuple[Array, Array]:
    """Give the gradients of the input and of the gain."""
    d_gain = _flat(d * kept.unit).sum(axis=0)
    d_unit = d * kept.gain
    along = np.mean(d_unit * kept.unit, axis=-1, keepdims=True)
    return kept.inverse * (d_unit - kept.unit * along), d_gain


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _outer(d: Array, x: Array) -> Array:
    """Give the gradient of w in y = x @ w.T."""
    return _flat(d).T @ _flat(x)


class LanguageModel:
    """Owns `weights`; `gradients` says which way to change them."""

    def __init__(self, shape: Shape, *, longest: int, rng: np.random.Generator) -> None:
        self.shape = shape
        self.weights = _initial(shape, rng)
        turn = 10000.0 ** (-np.arange(0, shape.head, 2) / shape.head)
        angle = np.arange(longest)[:, None] * turn
        self._cos, self._sin = np.cos(angle).astype("f4"), np.sin(angle).astype("f4")
        self._mask = np.triu(np.full((longest, longest), -1e9, "f4"), 1)

    def gradients(self, batch: Batch) -> tuple[float, Weights]:
        """Give the mean loss over the batch's weights, and its gradients."""
        logits, blocks, last, norm = self._forward(batch)
        logits -= logits.max(axis=-1, keepdims=True)
        chance = np.exp(logits)
        chance /= chance.sum(axis=-1, keepdims=True)
        following = np.roll(batch.ids, -1, axis=1)[..., None]
        weight = batch.weight / batch.weight.sum()
        right = np.take_along_axis(chance, following, -1)
        loss = -float((np.log(right[..., 0] + 1e-9) * weight).sum())
        d_logits = chance * weight[..., None]
        np.put_along_axis(d_logits, following, (right - 1) * weight[..., None], -1)

        embedding = self.weights["token_embd.weight"]
        found: Weights = {"token_embd.weight": _outer(d_logits, last)}
        d, found["output_norm.weight"] = _norm_back(d_logits @ embedding, norm)
        for index in reversed(range(self.shape.blocks)):
            d = self._ffn_back(index, blocks[index], d, found)
            d = self._attention_back(index, blocks[index], d, found)
        d = np.where(batch.is_soft[..., None], np.float32(0), d)
        np.add.at(found["token_embd.weight"], batch.ids.reshape(-1), _flat(d))
        return loss, found

    def _forward(self, batch: Batch) -> tuple[Array, list[_Block], Array, _Norm]:
        embedding = self.weights["token_embd.weight"]
        x: Array = np.where(batch.is_soft[..., None], batch.soft, embedding[batch.ids])
        blocks = []
        for index in range(self.shape.blocks):
            x, kept = self._block(index, x)
            blocks.append(kept)
        last, norm = _norm(x, self.weights["output_norm.weight"])
        return last @ embedding.T, blocks, last, norm

    def _block(self, index: int, x: Array) -> tuple[Array, _Block]:
        w = self._named(index)
        h1, norm1 = _norm(x, w["attn_norm"])
        q = self._turned(self._split(h1 @ w["attn_q"].T), 1)
        k = self._turned(self._split(h1 @ w["attn_k"].T), 1)
        v = self._split(h1 @ w["attn_v"].T)
        score = q @ k.swapaxes(-1, -2) / np.sqrt(np.float32(self.shape.head))
        score += self._mask[: x.shape[1], : x.shape[1]]
        attention = np.exp(score - score.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        mixed = _joined(attention @ v)
        x = x + mixed @ w["attn_output"].T
        h2, norm2 = _norm(x, w["ffn_norm"])
        gate, up = h2 @ w["ffn_gate"].T, h2 @ w["ffn_up"].T
        sigmoid = _ONE / (_ONE + np.exp(-gate))
        act = gate * sigmoid * up
        kept = _Block(norm1, h1, q, k, v, attention, mixed, norm2, h2, gate, up, sigmoid, act)
        return x + act @ w["ffn_down"].T, kept

    def _ffn_back(self, index: int, b: _Block, d: Array, found: Weights) -> Array:
        w, name = self._named(index), f"blk.{index}."
        found[name + "ffn_down.weight"] = _outer(d, b.act)
        d_act: Array = d @ w["ffn_down"]
        d_up = d_act * b.gate * b.sigmoid
        d_gate = d_act * b.up * (b.sigmoid + b.gate * b.sigmoid * (_ONE - b.sigmoid))
        found[name + "ffn_up.weight"] = _outer(d_up, b.h2)
        found[name + "ffn_gate.weight"] = _outer(d_gate, b.h2)
        d_h2 = np.asarray(d_up @ w["ffn_up"], np.float32)
        d_h2 += d_gate @ w["ffn_gate"]
        d_x, found[name + "ffn_norm.weight"] = _norm_back(d_h2, b.norm2)
        return d + d_x

    def _attention_back(self, index: int, b: _Block, d: Array, found: Weights) -> Array:
        w, name = self._named(index), f"blk.{index}."
        found[name + "attn_output.weight"] = _outer(d, b.mixed)
        d_mixed = self._split(d @ w["attn_output"])
        d_attention = d_mixed @ b.v.swapaxes(-1, -2)
        inner = (d_attention * b.attention).sum(axis=-1, keepdims=True)
        d_score = b.attention * (d_attention - inner) / np.sqrt(np.float32(self.shape.head))
        d_heads = {
            "attn_q": self._turned(d_score @ b.k, -1),
            "attn_k": self._turned(d_score.swapaxes(-1, -2) @ b.q, -1),
            "attn_v": b.attention.swapaxes(-1, -2) @ d_mixed,
        }
        d_h1 = np.zeros_like(b.h1)
        for part, d_part in d_heads.items():
            d_flat = _joined(d_part)
            found[f"{name}{part}.weight"] = _outer(d_flat, b.h1)
            d_h1 += d_flat @ w[part]
        d_x, found[name + "attn_norm.weight"] = _norm_back(d_h1, b.norm1)
        return d + d_x

    def _named(self, index: int) -> Weights:
        start = f"blk.{index}."
        mine = {k: v for k, v in self.weights.items() if k.startswith(start)}
        return {k.removeprefix(start).removesuffix(".weight"): v for k, v in mine.items()}

    def _split(self, x: Array) -> Array:
        """(n, t, width) to (n, heads, t, head)."""
        n, t, _ = x.shape
        return x.reshape(n, t, self.shape.head_count, self.shape.head).transpose(0, 2, 1, 3)

    def _turned(self, x: Array, way: int) -> Array:
        """Rotate each pair by its position's angle; `way` -1 turns back."""
        cos, sin = self._cos[: x.shape[2]], self._sin[: x.shape[2]] * np.float32(way)
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out


def _joined(x: Array) -> Array:
    """(n, heads, t, head) to (n, t, width)."""
    n, _, t, _ = x.shape
    flat: Array = x.transpose(0, 2, 1, 3).reshape(n, t, -1)
    return flat


def _initial(shape: Shape, rng: np.random.Generator) -> Weights:
    def fan_in(rows: int, columns: int, gain: float = 1.0) -> Array:
        drawn: Array = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return drawn.astype("f4")

    wide, hidden = shape.width, shape.hidden
    weights: Weights = {
        "token_embd.weight": (rng.standard_normal((shape.vocab, wide)) * 0.05).astype("f4"),
        "output_norm.weight": np.ones(wide, "f4"),
    }
    for index in range(shape.blocks):
        name = f"blk.{index}."
        for part in ("attn_q", "attn_k", "attn_v"):
            weights[f"{name}{part}.weight"] = fan_in(wide, wide)
        weights[name + "attn_output.weight"] = fan_in(wide, wide, 0.5)
        weights[name + "ffn_gate.weight"] = fan_in(hidden, wide)
        weights[name + "ffn_up.weight"] = fan_in(hidden, wide)
        weights[name + "ffn_down.weight"] = fan_in(wide, hidden, 0.5)
        weights[name + "attn_norm.weight"] = np.ones(wide, "f4")
        weights[name + "ffn_norm.weight"] = np.ones(wide, "f4")
    return weights
