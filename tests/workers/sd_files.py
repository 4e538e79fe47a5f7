"""Files of weights to try the sd worker with, and pictures to compare."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

SIDE_PX = 64


def options(models: Path, **more: Any) -> dict[str, Any]:
    """Give the options of the tiny image model, fast rather than pretty."""
    folder = models / "image"
    return {
        "diffusion_model": str(folder / "diffusion.safetensors"),
        "llm": str(folder / "llm.gguf"),
        "taesd": str(folder / "taesd.safetensors"),
        "lora_dir": str(folder / "loras"),
        "n_threads": 1,
        "max_steps": 1000,
        "defaults": {"width": SIDE_PX, "height": SIDE_PX, "steps": 2},
    } | more


def write_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a whole file of F16 numbers between -0.5 and 0.5."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    numbers = (number * 7919 % 101 / 101 - 0.5 for number in range(end // 2))
    data = struct.pack(f"<{end // 2}e", *numbers)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def write_header(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a safetensors file with whatever header."""
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def lora_shapes(
    module: str, outputs: int, inputs: int, rank: int = 4
) -> dict[str, tuple[int, int]]:
    """Name the two halves of a LoRA for one layer."""
    return {f"{module}.lora_A.weight": (rank, inputs), f"{module}.lora_B.weight": (outputs, rank)}


def scene(size: tuple[int, int] = (SIDE_PX, SIDE_PX), colour: str = "red") -> Image.Image:
    """Draw a coloured square on white."""
    image = Image.new("RGB", size, "white")
    width, height = size
    image.paste(colour, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Give the mean difference of two pictures of one size, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / len(one.getbands())
