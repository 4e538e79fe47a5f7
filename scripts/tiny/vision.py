"""The eye of the vision models: a small network that sees a whole picture as one patch.

The engine's vision transformer is given a patch as large as its picture, so a picture becomes one
token; attention over one token is the identity and is left at zero. What remains is trained here
in numpy: box averages on a 16x16 grid, a linear layer, one feed-forward block, a linear readout.
The target of the readout is the sum of a fixed code for the colour and one for the shape, and both
projectors (LLaVA's and MiniCPM-V's) are written from the same weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiny.gguf import Gguf
from tiny.optim import AdamW, Array, Weights, warm_cosine
from tiny.scenes import CENTRE_SIDE, COLOURS, PLACES, SHAPES, SIDE

Indices = npt.NDArray[np.int64]

GRID = 16
SIDE_PX = 96  # a multiple of GRID
PLAIN = ""  # the name of no shape
_FINE = 32  # the grid on which training pictures are drawn
_WIDTH, _HIDDEN = 64, 128
_EPS = 1e-5
_ONE, _QUICK = np.float32(1), np.float32(1.702)  # of the quick gelu


def codes(names: list[str], width: int, rng: np.random.Generator) -> Array:
    """Give one orthogonal row of root mean square 0.5 for each name, each with mean 0."""
    raw = rng.standard_normal((width, len(names) + 1))
    raw[:, 0] = 1  # what is orthogonal to this has mean 0
    rows: Array = (np.linalg.qr(raw)[0][:, 1:].T * np.sqrt(width) / 2).astype("f4")
    return rows


class Painter:
    """Draws training pictures on the eye's grid, many at a time, with all sorts of blemishes."""

    def __init__(self, plain: dict[str, tuple[int, int, int]], rng: np.random.Generator) -> None:
        self.colours = list(plain)
        self.shapes = [PLAIN, *SHAPES]
        self._rgb = np.array(list(plain.values()), "f4") / 255
        self._shaped = np.array([self.colours.index(name) for name in COLOURS])
        self._rng = rng

    def draw(self, count: int) -> tuple[Array, Indices, Indices]:
        """Give (n, 3 * GRID**2) in -1..1, and the indices of colour and shape."""
        rng = self._rng
        shape = rng.choice(3, count, p=[0.2, 0.4, 0.4])
        any_colour = rng.integers(len(self.colours), size=count)
        colour = np.where(shape == 0, any_colour, rng.choice(self._shaped, count))
        ink = self._rgb[colour] * rng.uniform(0.85, 1.05, (count, 1))
        ink += rng.normal(0, 0.045, (count, 3))
        paper = rng.uniform(0.9, 1.0, (count, 1)) + rng.normal(0, 0.015, (count, 3))
        fade = np.where(shape == 0, 0, rng.uniform(0, 0.2, count))[:, None]
        ink = ink * (1 - fade) + paper * fade
        mask = np.where((shape == 0)[:, None, None], 1, self._mask(shape, count))[..., None]
        picture = paper[:, None, None] * (1 - mask) + ink[:, None, None] * mask
        picture += rng.normal(0, 1, picture.shape) * rng.uniform(0, 0.08, (count, 1, 1, 1))
        step = _FINE // GRID
        boxes = picture.reshape(count, GRID, step, GRID, step, 3).mean(axis=(2, 4))
        self._letterbox(boxes, shape)
        planes = np.clip(boxes, 0, 1).transpose(0, 3, 1, 2).reshape(count, -1)
        return (planes * 2 - 1).astype("f4"), colour, shape

    def _mask(self, shape: Indices, count: int) -> Array:
        rng = self._rng
        place = rng.integers(len(PLACES), size=count)
        middle = np.array(list(PLACES.values()))[place] + rng.normal(0, 0.03, (count, 2))
        half = np.where(place == 0, CENTRE_SIDE, SIDE) / 2 * rng.uniform(0.85, 1.15, count)
        half = half[:, None] * rng.uniform(0.92, 1.08, (count, 2))
        line = (np.arange(_FINE) + 0.5) / _FINE
        dx = np.abs(line[None, None, :] - middle[:, 0, None, None]) / half[:, 0, None, None]
        dy = np.abs(line[None, :, None] - middle[:, 1, None, None]) / half[:, 1, None, None]
        round_ = np.sqrt(dx * dx + dy * dy)
        far = np.where((shape == 2)[:, None, None], round_, np.maximum(dx, dy))
        soft = rng.uniform(0.5, 3.0, count)[:, None, None] / _FINE / half.mean(1)[:, None, None]
        mask: Array = np.clip((1 - far) / soft + 0.5, 0, 1)
        return mask

    def _letterbox(self, boxes: npt.NDArray[np.floating], shape: Indices) -> None:
        """Paint bars at two edges of some plain pictures, as padding to a square does."""
        grey = np.array([0.48, 0.455, 0.41])
        for index in np.flatnonzero((shape == 0) & (self._rng.random(len(shape)) < 0.25)):
            bar = int(self._rng.integers(1, GRID // 3))
            picture = boxes[index] if self._rng.random() < 0.5 else boxes[index].transpose(1, 0, 2)
            ground = grey if self._rng.random() < 0.5 else np.zeros(3)
            picture[:bar] = picture[-bar:] = ground


class Eye:
    """The trained network; `width` is that of the language model."""

    def __init__(self, width: int, painter: Painter, rng: np.random.Generator) -> None:
        self._painter = painter
        self._code = codes([*painter.colours, *painter.shapes], width, rng)
        grid = 3 * GRID * GRID

        def fan_in(rows: int, columns: int) -> Array:
            drawn: Array = rng.standard_normal((rows, columns)) / np.sqrt(columns)
            return drawn.astype("f4")

        self._w: Weights = {
            "patch": fan_in(_WIDTH, grid),
            "up": fan_in(_HIDDEN, _WIDTH),
            "down": fan_in(_WIDTH, _HIDDEN) * np.float32(0.5),
            "read": fan_in(width, _WIDTH),
            "patch_bias": np.zeros(_WIDTH, "f4"),
            "up_bias": np.zeros(_HIDDEN, "f4"),
            "down_bias": np.zeros(_WIDTH, "f4"),
            "gain0": np.ones(_WIDTH, "f4"),
            "gain1": np.ones(_WIDTH, "f4"),
            "gain2": np.ones(_WIDTH, "f4"),
            "shift2": np.zeros(_WIDTH, "f4"),
        }

    def train(self, step_count: int, *, batch: int = 96, peak: float = 4e-3) -> float:
        """Fit to the painter's pictures; give the share of the last ones that are read rightly."""
        optimiser = AdamW(self._w, decay=0.02, beta2=0.99)
        shares = []
        for step in range(step_count):
            x, colour, shape = self._painter.draw(batch)
            target = self._code[colour] + self._code[len(self._painter.colours) + shape]
            y, found = self._gradients(x, target)
            optimiser.step(found, warm_cosine(step, step_count, peak))
            if step >= step_count - 20:
                shares.append(np.mean((self.names(y) == (colour, shape)).all(axis=0)))
        return float(np.mean(shares))

    def names(self, y: Array) -> Indices:
        """Give the indices (2, n) of the nearest colour and shape."""
        score = y @ self._code.T
        split = len(self._painter.colours)
        return np.stack([score[:, :split].argmax(1), score[:, split:].argmax(1)])

    def _gradients(self, x: Array, target: Array) -> tuple[Array, Weights]:
        w, size = self._w, np.float32(target.size)
        h0, k0 = _norm(x @ w["patch"].T + w["patch_bias"])
        a = h0 * w["gain0"]
        h1, k1 = _norm(a)
        b = h1 * w["gain1"] @ w["up"].T + w["up_bias"]
        gate = _ONE / (_ONE + np.exp(-_QUICK * b))
        c = b * gate
        total: Array = c @ w["down"].T
        total += a
        total += w["down_bias"]
        h2, k2 = _norm(total)
        z = h2 * w["gain2"] + w["shift2"]
        y = np.asarray(z @ w["read"].T, np.float32)

        d_y = (y - target) * (np.float32(20) / size)
        d_z = np.asarray(d_y @ w["read"], np.float32)
        d_sum = _norm_back(d_z * w["gain2"], h2, k2)
        d_c: Array = d_sum @ w["down"]
        d_b = d_c * (gate + _QUICK * c * (_ONE - gate))
        d_h1: Array = d_b @ w["up"]
        d_a = _norm_back(d_h1 * w["gain1"], h1, k1)
        d_a += d_sum
        d_x = _norm_back(d_a * w["gain0"], h0, k0)
        return y, {
            "read": d_y.T @ z, "gain2": (d_z * h2).sum(0), "shift2": d_z.sum(0),
            "down": d_sum.T @ c, "down_bias": d_sum.sum(0),
            "up": d_b.T @ (h1 * w["gain1"]), "up_bias": d_b.sum(0),
            "gain1": (d_h1 * h1).sum(0), "gain0": (d_a * h0).sum(0),
            "patch": d_x.T @ x, "patch_bias": d_x.sum(0),
        }  # fmt: skip

    def write_llava(self, path: Path) -> None:
        """Write the projector as a linear layer split in two: gelu(x) - gelu(-x) = x."""
        read = self._w["read"]
        # The engine leaves LLaVA's last block out. No class token: with a single patch the engine
        # would hand over that token instead of the patch.
        file = self._trunk("mlp", block_count=2, row_count=1)
        one = np.eye(len(read), dtype="f4")
        file.tensor("mm.0.weight", np.vstack([read, -read]))
        file.tensor("mm.0.bias", np.zeros(2 * len(read), "f4"))
        file.tensor("mm.2.weight", np.hstack([one, -one]))
        file.tensor("mm.2.bias", np.zeros(len(read), "f4"))
        file.write(path)

    def write_minicpmv(self, path: Path) -> None:
        """Write a resampler with one query; over the one patch it only normalises the readout."""
        read = self._w["read"]
        width = len(read)
        file = self._trunk("resampler", block_count=1, row_count=4900)  # 70x70: the engine's table
        file.add("clip.minicpmv_version", np.int32(3))
        file.add("clip.minicpmv_query_num", 1)
        one, none = np.eye(width, dtype="f4"), np.zeros(width, "f4")
        file.tensor("resampler.query", none[None])
        file.tensor("resampler.kv.weight", read)
        file.tensor("resampler.pos_embed_k", none[None])
        for part in ("q", "k", "v", "out"):
            weight = one if part in ("v", "out") else np.zeros_like(one)
            file.tensor(f"resampler.attn.{part}.weight", weight)
            file.tensor(f"resampler.attn.{part}.bias", none)
        for part in ("q", "kv", "post"):
            file.tensor(f"resampler.ln_{part}.weight", np.ones(width, "f4"))
            file.tensor(f"resampler.ln_{part}.bias", none)
        # the codes of a colour and a shape, orthogonal, together have 0.5 * sqrt(2)
        file.tensor("resampler.proj.weight", one * np.float32(0.5**0.5))
        file.write(path)

    def _trunk(self, projector: str, *, block_count: int, row_count: int) -> Gguf:
        file, w = Gguf("clip"), self._w
        _describe(file, projector, block_count, len(w["read"]))
        step = SIDE_PX // GRID
        grid = w["patch"].reshape(_WIDTH, 3, GRID, GRID) / np.float32(step * step)
        box = np.ones((1, 1, step, step), "f4")
        file.tensor("v.patch_embd.weight", np.kron(grid, box).astype("f4"))
        rows = np.zeros((row_count, _WIDTH), "f4")
        rows[:] = w["patch_bias"]  # LLaVA has no bias of its own; its place is as good
        file.tensor("v.position_embd.weight", rows)
        none = np.zeros(_WIDTH, "f4")
        if projector == "resampler":
            file.tensor("v.patch_embd.bias", none)
        for name, gain, shift in (("pre", "gain0", none), ("post", "gain2", w["shift2"])):
            file.tensor(f"v.{name}_ln.weight", w[gain])
            file.tensor(f"v.{name}_ln.bias", shift)
        for index in range(block_count):
            self._store_block(file, f"v.blk.{index}.", live=index == 0)
        return file

    def _store_block(self, file: Gguf, name: str, *, live: bool) -> None:
        w, none = self._w, np.zeros(_WIDTH, "f4")
        on = np.float32(live)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            file.tensor(f"{name}{part}.weight", np.zeros((_WIDTH, _WIDTH), "f4"))
            file.tensor(f"{name}{part}.bias", none)
        for part, gain in (("ln1", np.ones(_WIDTH, "f4")), ("ln2", w["gain1"])):
            file.tensor(f"{name}{part}.weight", gain)
            file.tensor(f"{name}{part}.bias", none)
        for part, ours in (("ffn_up", "up"), ("ffn_down", "down")):
            file.tensor(f"{name}{part}.weight", w[ours] * on)
            file.tensor(f"{name}{part}.bias", w[ours + "_bias"] * on)


def _describe(file: Gguf, projector: str, block_count: int, width: int) -> None:
    file.add("clip.has_vision_encoder", value=True)
    file.add("clip.projector_type", projector)
    file.add("clip.use_gelu", value=False)  # the quick one: x * sigmoid(1.702 x)
    numbers = {
        "image_size": SIDE_PX,
        "patch_size": SIDE_PX,
        "embedding_length": _WIDTH,
        "feed_forward_length": _HIDDEN,
        "projection_dim": width,
        "block_count": block_count,
        "attention.head_count": 2,
    }
    for key, number in numbers.items():
        file.add("clip.vision." + key, number)
    file.add("clip.vision.attention.layer_norm_epsilon", _EPS)
    file.add("clip.vision.image_mean", [0.5, 0.5, 0.5])
    file.add("clip.vision.image_std", [0.5, 0.5, 0.5])


def _norm(x: Array) -> tuple[Array, Array]:
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = _ONE / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + np.float32(_EPS))
    return centred * inverse, inverse


def _norm_back(d: Array, unit: Array, inverse: Array) -> Array:
    along = (d * unit).mean(axis=-1, keepdims=True)
    back: Array = inverse * (d - d.mean(axis=-1, keepdims=True) - unit * along)
    return back
