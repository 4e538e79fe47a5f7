"""A tiny autoencoder with no training at all: every weight of it is placed by hand.

The layout is the one that stable-diffusion.cpp takes as `taesd` of FLUX.2 (64 wide, three
halvings, blocks of three convolutions). An 8x8 cell of the picture becomes four numbers, the
other 28 channels stay silent:

* cover: how dark the cell is on average; the darkest of red, green and blue counts at each pixel;
* three inks: how dark it is in red, in green and in blue, the greatest value of the cell and its
  eight neighbours, so that a shape's colour reaches a little beyond its edge.

The decoder interpolates the four, makes the cover steep (a shape's edge lies where half of a
cell is covered) and lays the inks on white wherever there is cover. So an edge comes out sharp
though a cell is 8 pixels wide, and faint noise vanishes: what the diffusion model has to learn
is small, and what it gets a little wrong is not seen.
"""

from __future__ import annotations

import numpy as np

from tiny.image_files import Array, Tensors

CELL = 8  # pixels
CHANNELS = 4  # that carry the picture: cover, then red, green and blue ink
LATENT_CHANNELS = 32
FULL_COVER = 0.92  # darkness that counts as wholly covered: 1 - 20/255, the least of each colour
SHARPEN = 0.6  # keeps a square's corners, which the steep cover would round
_WIDTH = 64
_POOL = 256
_STEEP = 8.0
_FLOOR = 0.5  # added to the cover while it passes through rectifiers
_TANH = 3 * np.tanh(1 / 3)  # the decoder begins with 3 tanh(z / 3)
_CENTRE, _LEFT, _RIGHT, _UP, _DOWN = (1, 1), (1, 0), (1, 2), (0, 1), (2, 1)
_EVERY_TAP = [(y, x) for y in range(3) for x in range(3)]


def tensors() -> Tensors:
    """Make the whole file, encoder and decoder."""
    return _encoder() | _decoder()


def encode_cells(darkness: Array) -> Array:
    """Latents of pictures given by each cell's mean darkness: what the encoder would make of them.

    In: (n, 4, height, width), the darkest channel's and then red, green and blue.
    Out: the same shape, nearly all in [-1, 1].
    """
    cover, ink = darkness[:, :1] / FULL_COVER, darkness[:, 1:]
    cover = (1 + SHARPEN) * cover - SHARPEN * _mean_of_neighbours(cover)
    for axis in (3, 2):
        before, after = _shifted(ink, axis, 1), _shifted(ink, axis, -1)
        ink = np.maximum(ink, np.maximum(before, after))
    return np.concatenate([cover, ink], axis=1) * np.float32(2) - np.float32(1)


def _mean_of_neighbours(cover: Array) -> Array:
    rows = _shifted(cover, 2, 1) + _shifted(cover, 2, -1)
    columns = _shifted(cover, 3, 1) + _shifted(cover, 3, -1)
    return np.asarray((rows + columns) / 4, np.float32)


def _shifted(array: Array, axis: int, step: int) -> Array:
    """Move by one cell, with zeros coming in."""
    moved = np.roll(array, step, axis)
    edge = [slice(None)] * array.ndim
    edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved


class _Conv:
    """A 3x3 convolution that does nothing until its taps are set."""

    def __init__(self, out: int = _WIDTH, into: int = _WIDTH) -> None:
        self.weight = np.zeros((out, into, 3, 3), np.float32)
        self.bias = np.zeros(out, np.float32)

    def tap(self, out: int, into: int, value: float, at: tuple[int, int] = _CENTRE) -> None:
        self.weight[out, into, *at] += value

    def named(self, name: str, *, bias: bool = True) -> Tensors:
        weight = {f"{name}.weight": self.weight}
        return weight | {f"{name}.bias": self.bias} if bias else weight


def _block(name: str, *convs: _Conv, pooled: bool = False) -> Tensors:
    """Name a residual block, relu(x + convolutions); without any it passes on what is not < 0."""
    three = convs or (_Conv(), _Conv(), _Conv())
    out: Tensors = {}
    for index, conv in zip((0, 2, 4), three, strict=True):
        out |= conv.named(f"{name}.conv.{index}")
    if pooled:
        out[f"{name}.pool.0.weight"] = np.zeros((_POOL, _WIDTH, 1, 1), np.float32)
        out[f"{name}.pool.1.weight"] = np.ones(_POOL, np.float32)
        out[f"{name}.pool.1.bias"] = np.zeros(_POOL, np.float32)
        out[f"{name}.pool.3.weight"] = np.zeros((_WIDTH, _POOL, 1, 1), np.float32)
    return out


def _encoder() -> Tensors:
    darkness = _Conv(into=3)
    for channel, colour in enumerate((0, 0, 1, 2)):  # channel 0 is to become the darkest
        darkness.tap(channel, colour, -1)
        darkness.bias[channel] = 1
    latents = _Conv(out=LATENT_CHANNELS)
    latents.bias[:CHANNELS] = -1
    latents.tap(0, 0, 2 * (1 + SHARPEN) / FULL_COVER)
    for side in (_LEFT, _RIGHT, _UP, _DOWN):
        latents.tap(0, 0, -2 * SHARPEN / 4 / FULL_COVER, side)
    for ink in (1, 2, 3):
        latents.tap(ink, ink, 2)

    layers = darkness.named("encoder.layers.0") | _block("encoder.layers.1", *_darkest())
    for first in (2, 6, 10):
        layers |= _halve().named(f"encoder.layers.{first}", bias=False)
    for index in (3, 4, 5, 7, 8, 9):
        layers |= _block(f"encoder.layers.{index}")
    layers |= _block("encoder.layers.11", *_greatest(_LEFT, _RIGHT), pooled=True)
    layers |= _block("encoder.layers.12", *_greatest(_UP, _DOWN), pooled=True)
    layers |= _block("encoder.layers.13", pooled=True)
    return layers | latents.named("encoder.layers.14")


def _darkest() -> tuple[_Conv, _Conv, _Conv]:
    """Channel 0 holds red's darkness; raise it to the greatest of the three."""
    first, second, third = _Conv(), _Conv(), _Conv()
    first.tap(0, 2, 1)  # green over red
    first.tap(0, 1, -1)
    first.tap(1, 1, 1)
    first.tap(2, 3, 1)
    second.tap(0, 0, 1)
    for into, value in enumerate((-1, -1, 1)):  # blue over the greater of the two
        second.tap(1, into, value)
    third.tap(0, 0, 1)
    third.tap(0, 1, 1)
    return first, second, third


def _greatest(before: tuple[int, int], after: tuple[int, int]) -> tuple[_Conv, _Conv, _Conv]:
    """Raise each ink to the greatest of itself and two of its neighbours."""
    first, second, third = _Conv(), _Conv(), _Conv()
    for ink in (1, 2, 3):
        lift, here, there = 10 * ink, 10 * ink + 1, 10 * ink + 2
        first.tap(lift, ink, 1, before)
        first.tap(lift, ink, -1)
        first.tap(here, ink, 1)
        first.tap(there, ink, 1, after)
        second.tap(lift, lift, 1)
        for into, value in ((there, 1), (here, -1), (lift, -1)):
            second.tap(there, into, value)
        third.tap(ink, lift, 1)
        third.tap(ink, there, 1)
    return first, second, third


def _halve() -> _Conv:
    """Take the mean of each 2x2 pixels (the engine's stride is 2, its padding 1)."""
    conv = _Conv()
    for channel in range(CHANNELS):
        for at in ((1, 1), (1, 2), (2, 1), (2, 2)):
            conv.tap(channel, channel, 1 / 4, at)
    return conv


def _decoder() -> Tensors:
    values = _Conv(into=LATENT_CHANNELS)
    for channel in range(CHANNELS):
        values.tap(channel, channel, 1 / (2 * _TANH))
        values.bias[channel] = 1 / 2
    values.bias[0] += _FLOOR
    picture = _Conv(out=3)
    picture.bias[:] = 1
    for colour in range(3):
        picture.tap(colour, colour + 1, -1)

    layers = values.named("decoder.layers.0")
    for index in (2, 3, 4):
        layers |= _block(f"decoder.layers.{index}", pooled=True)
    for index in (6, 11, 16):
        layers |= _interpolate().named(f"decoder.layers.{index}", bias=False)
    for index in (7, 8, 9, 12, 13, 14):
        layers |= _block(f"decoder.layers.{index}")
    layers |= _block("decoder.layers.17", *_lay_ink())
    return layers | picture.named("decoder.layers.18")


def _interpolate() -> _Conv:
    """Linear, given that every pixel has just been doubled."""
    conv = _Conv()
    for channel in range(CHANNELS):
        for y, x in _EVERY_TAP:
            conv.tap(channel, channel, (2 - abs(y - 1)) * (2 - abs(x - 1)) / 16, (y, x))
    return conv


def _lay_ink() -> tuple[_Conv, _Conv, _Conv]:
    """Cut each ink down to the steep cover: ink - relu(ink - cover)."""
    first, second, third = _Conv(), _Conv(), _Conv()
    first.tap(0, 0, _STEEP)
    first.bias[0] = 1 / 2 - _STEEP * (1 / 2 + _FLOOR)
    for ink in (1, 2, 3):
        first.tap(ink, ink, 1)
        second.tap(ink, ink, 1)
        second.tap(ink, 0, -1)
        third.tap(ink, ink, -1)
    return first, second, third
