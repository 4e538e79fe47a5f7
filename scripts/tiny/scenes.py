"""The world that the tiny models know: one coloured shape on white.

The image model learns to paint these scenes from their captions; the captioner and the vision
model learn to name them. One definition, so that a picture painted by the first is read by the
other two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 60, 220),
    "yellow": (240, 200, 20),
}
SHAPES = ("square", "circle")
PLACES: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "top left": (0.275, 0.275),
    "top right": (0.725, 0.275),
    "bottom left": (0.275, 0.725),
    "bottom right": (0.725, 0.725),
}
SIDE = 0.35  # of the picture, for a shape in a corner
CENTRE_SIDE = 0.55  # of the picture, for a shape in the centre


@dataclass(frozen=True, slots=True)
class Scene:
    """One coloured shape somewhere on a white ground."""

    colour: str
    shape: str
    place: str = "centre"

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape}"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, each as a fraction of the picture."""
        x, y = PLACES[self.place]
        half = (CENTRE_SIDE if self.place == "centre" else SIDE) / 2
        return x - half, y - half, x + half, y + half

    def draw(self, side_px: int, rgb: tuple[int, int, int] | None = None) -> Image.Image:
        """Draw the scene as an RGB picture of `side_px` by `side_px`, smooth at its edges."""
        scale = 4
        big = Image.new("RGB", (side_px * scale, side_px * scale), "white")
        draw = ImageDraw.Draw(big)
        corners = [v * side_px * scale for v in self.box]
        paint = draw.rectangle if self.shape == "square" else draw.ellipse
        paint(corners, fill=rgb or COLOURS[self.colour])
        return big.resize((side_px, side_px), Image.Resampling.LANCZOS)


def all_scenes() -> list[Scene]:
    return [Scene(c, s, p) for c, s, p in product(COLOURS, SHAPES, PLACES)]
