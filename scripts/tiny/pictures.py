"""Scenes as they arrive in the world: small or large, blurred, shifted, faded, through JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tiny.scenes import COLOURS, PLACES, SHAPES, Scene


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture and what is on it; a plain field has the shape ""."""

    picture: Image.Image
    colour: str
    shape: str
    place: str = "centre"


def worn_scene(scene: Scene, side_px: int, rng: np.random.Generator) -> Shown:
    """Draw a scene with a drift of colour and place, blur, noise and JPEG."""
    ink = np.array(COLOURS[scene.colour]) * rng.uniform(0.88, 1.04) + rng.normal(0, 9, 3)
    fade = rng.uniform(0, 0.15)
    ink = np.clip(ink * (1 - fade) + 255 * fade, 0, 255)
    red, green, blue = (int(v) for v in ink)
    picture = scene.draw(64, (red, green, blue))
    shift = rng.uniform(-2, 2, 2)
    grow = rng.uniform(0.93, 1.07)
    edge = 32 * (1 - grow)
    matrix = (grow, 0, edge + shift[0], 0, grow, edge + shift[1])
    picture = picture.transform(
        (64, 64), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor="white"
    )
    picture = picture.resize((side_px, side_px), Image.Resampling.BICUBIC)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * side_px))
    return Shown(_through_jpeg(picture, rng), scene.colour, scene.shape, scene.place)


def random_scene(rng: np.random.Generator) -> Scene:
    colour, shape, place = (
        names[rng.integers(len(names))] for names in (list(COLOURS), SHAPES, list(PLACES))
    )
    return Scene(colour, shape, place)


def plain(
    name: str, rgb: Sequence[int], size_px: tuple[int, int], rng: np.random.Generator
) -> Shown:
    ink = np.clip(np.array(rgb) + rng.normal(0, 8, 3), 0, 255)
    red, green, blue = (int(v) for v in ink)
    return Shown(Image.new("RGB", size_px, (red, green, blue)), name, "")


def _through_jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    grain = rng.normal(0, rng.uniform(0, 7), (picture.height, picture.width, 3))
    noisy = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=int(rng.integers(50, 96)))
    return Image.open(file).convert("RGB")
