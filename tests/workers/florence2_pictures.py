"""Pictures for the tests of Florence-2: shapes in corners, and bytes that are no pictures."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (20, 60, 220)}
CORNERS = {
    "top left": (0.1, 0.1, 0.45, 0.45),
    "top right": (0.55, 0.1, 0.9, 0.45),
    "bottom left": (0.1, 0.55, 0.45, 0.9),
    "bottom right": (0.55, 0.55, 0.9, 0.9),
}
SHAPES = ("square", "circle")
ROTATED = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}
"""EXIF orientation → how an upright picture is turned to be stored under it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One coloured shape in a corner of a white picture."""

    colour: str = "red"
    shape: str = "circle"
    corner: str = "top left"

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"

    def draw(self, width: int = 320, height: int = 320) -> Image.Image:
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        paint = draw.rectangle if self.shape == "square" else draw.ellipse
        paint(self.box(width, height), fill=COLOURS[self.colour])
        return image

    def box(self, width: int, height: int) -> list[float]:
        """Left, top, right, bottom in pixels."""
        return [
            edge * side
            for edge, side in zip(CORNERS[self.corner], (width, height) * 2, strict=True)
        ]


def png_header(width: int, height: int) -> bytes:
    """Give a PNG that promises many pixels and holds none."""
    told = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", told) + _chunk(b"IDAT", b"")


def _chunk(kind: bytes, told: bytes) -> bytes:
    checksum = zlib.crc32(kind + told)
    return struct.pack(">I", len(told)) + kind + told + struct.pack(">I", checksum)
