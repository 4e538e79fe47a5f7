"""Scenes of the tiny world as the painter meets them: latents, cut into patches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tiny import image_tae
from tiny.image_files import Array
from tiny.image_painter import PATCH_CELLS
from tiny.scenes import COLOURS, PLACES, SHAPES, Scene

_VARIANTS = 48  # of each shape in each place
_DRIFT = 0.015  # of the picture: how far a variant's place and size may be off
_FINE = 2  # drawn so many times larger, for smooth edges


@dataclass(frozen=True, slots=True)
class World:
    """Latents of every scene in many variants.

    `patches` are (shapes, places, variants, colours, side * side, channels), float32.
    """

    patches: Tensor
    side: int


def paint_world(side_px: int, rng: np.random.Generator) -> World:
    masks = [
        _mask(Scene("red", shape, place), side_px, rng)
        for shape, place, _ in product(SHAPES, PLACES, range(_VARIANTS))
    ]
    inks = 1 - np.array(list(COLOURS.values()), np.float32) / 255
    darkness = np.concatenate([inks.max(1, keepdims=True), inks], 1)
    cells = np.stack(masks)[:, None, None] * darkness[None, :, :, None, None]
    latents = image_tae.encode_cells(cells.reshape(-1, *cells.shape[2:]))
    patches = torch.from_numpy(_patches(latents))
    each = (len(SHAPES), len(PLACES), _VARIANTS, len(COLOURS))
    side = side_px // (image_tae.CELL * PATCH_CELLS)
    return World(patches.reshape(*each, *patches.shape[1:]), side)


def _mask(scene: Scene, side_px: int, rng: np.random.Generator) -> Array:
    """How much of each cell the shape covers, (rows, columns)."""
    left, top, right, bottom = scene.box
    dx, dy, grow = rng.uniform(-_DRIFT, _DRIFT, 3)
    box = (left + dx - grow, top + dy - grow, right + dx + grow, bottom + dy + grow)
    pixels = side_px * _FINE
    picture = Image.new("L", (pixels, pixels))
    draw = ImageDraw.Draw(picture)
    paint = draw.rectangle if scene.shape == "square" else draw.ellipse
    paint([v * pixels for v in box], fill=255)
    cells, inside = side_px // image_tae.CELL, image_tae.CELL * _FINE
    covered = np.asarray(picture, np.float32).reshape(cells, inside, cells, inside)
    return np.asarray(covered.mean((1, 3)) / 255, np.float32)


def _patches(latents: Array) -> Array:
    """(n, channels, rows, columns) of cells to (n, patches, channels * 4), as the engine folds."""
    n, channels, rows, columns = latents.shape
    rows, columns = rows // PATCH_CELLS, columns // PATCH_CELLS
    split = latents.reshape(n, channels, rows, PATCH_CELLS, columns, PATCH_CELLS)
    folded = split.transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(folded.reshape(n, rows * columns, -1))
