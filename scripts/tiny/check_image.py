"""Paint the tiny world with the real engine, and count how often the prompt was obeyed.

    python scripts/tiny/check_image.py FOLDER [SHEET.png] [--steps 4 8]

FOLDER is the one named `image` that `tiny.image.make` writes. The sheet shows the counted
pictures and then prompts, first pictures, references, LoRA and sizes that are only looked at.
Needs stable-diffusion-cpp-python 0.4.7; a picture takes one to three seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import stable_diffusion_cpp as sd
from PIL import Image

from tiny.scenes import COLOURS, SHAPES, Scene

_SIDE = 128
_ROUND = 0.88  # of its bounding box: a circle fills less, a square more
_INK = 60  # a pixel that differs so much from white belongs to the shape
_SEEDS = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """One picture to paint; the rest is as the set recommends."""

    prompt: str
    seed: int = 1
    steps: int = 4
    side: int = _SIDE
    init: Image.Image | None = None
    strength: float = 0.75
    reference: Image.Image | None = None
    lora: Path | None = None


class Engine:
    """The set in `folder`, loaded on one thread."""

    def __init__(self, folder: Path) -> None:
        params = sd.sd_ctx_params_t()
        _call("sd_ctx_params_init", ctypes.byref(params))
        params.n_threads = 1
        params.vae_decode_only = False
        params.free_params_immediately = False
        params.lora_apply_mode = sd.LoraApplyMode.LORA_APPLY_AT_RUNTIME
        params.diffusion_model_path = os.fsencode(folder / "diffusion.safetensors")
        params.llm_path = os.fsencode(folder / "llm.gguf")
        params.taesd_path = os.fsencode(folder / "taesd.safetensors")
        self._context = sd.new_sd_ctx(ctypes.byref(params))
        if not self._context:
            raise RuntimeError("the engine does not load the set")

    def paint(self, wish: Wish) -> Image.Image:
        params = sd.sd_img_gen_params_t()
        _call("sd_img_gen_params_init", ctypes.byref(params))
        params.prompt, params.seed = wish.prompt.encode(), wish.seed
        params.width = params.height = wish.side
        params.strength = wish.strength
        params.sample_params.sample_steps = wish.steps
        params.sample_params.guidance.txt_cfg = 1.0
        keep: list[Any] = []  # what the engine points into
        if wish.init:
            params.init_image = _image(wish.init, keep)
        if wish.reference:
            params.ref_images = (sd.sd_image_t * 1)(_image(wish.reference, keep))
            params.ref_images_count = 1
        if wish.lora:
            lora = sd.sd_lora_t(False, 1.0, os.fsencode(wish.lora))  # noqa: FBT003 - C's order
            params.loras, params.lora_count = (sd.sd_lora_t * 1)(lora), 1
        out = sd.generate_image(self._context, ctypes.byref(params))
        if not out:
            raise RuntimeError(f"nothing painted for {wish.prompt!r}")
        size = (out[0].width, out[0].height)
        return Image.frombytes("RGB", size, ctypes.string_at(out[0].data, size[0] * size[1] * 3))


def _call(name: str, pointer: object) -> None:
    getattr(sd.stable_diffusion_cpp._lib, name)(pointer)  # noqa: SLF001 - bound nowhere else


def _image(picture: Image.Image, keep: list[Any]) -> Any:
    raw = picture.convert("RGB").tobytes()
    buffer = (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw)
    keep.append(buffer)
    data = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
    return sd.sd_image_t(picture.width, picture.height, 3, data)


@sd.sd_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _quiet(level: int, text: bytes, _data: object) -> None:
    if level >= 3:
        print(text.decode("utf-8", "replace").rstrip(), file=sys.stderr)


@sd.sd_progress_callback  # type: ignore[untyped-decorator]  # ctypes
def _silent(_step: int, _steps: int, _time_s: float, _data: object) -> None:
    """Keep the engine from drawing its bar."""


def seen(picture: Image.Image) -> tuple[str, str]:
    """Name the colour and the shape of what is painted, ("", "") for an empty picture."""
    pixels = np.asarray(picture, np.int32)
    ink = (255 - pixels).max(-1) > _INK
    if ink.sum() < ink.size / 200:
        return "", ""
    mean = pixels[ink].mean(0)
    colour = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return colour, "circle" if ink.sum() / box < _ROUND else "square"


def _obeyed(engine: Engine, steps: int) -> list[Image.Image]:
    """Every colour and shape with some seeds; prints how many came out as asked."""
    pictures, colours, shapes = [], 0, 0
    began = time.perf_counter()
    for colour, shape, seed in product(COLOURS, SHAPES, range(_SEEDS)):
        wish = Wish(Scene(colour, shape).caption, seed=100 + seed, steps=steps)
        pictures.append(engine.paint(wish))
        found = seen(pictures[-1])
        colours += found[0] == colour
        shapes += found[1] == shape
    each_s = (time.perf_counter() - began) / len(pictures)
    of = f"of {len(pictures)}"
    print(f"{steps} steps: colour {colours} {of}, shape {shapes} {of}, {each_s:.2f} s a picture")
    return pictures


def _others(folder: Path) -> list[Wish]:
    """List what else can be asked for; it is looked at, not counted."""
    blue, red = Scene("blue", "square", "top left").draw(_SIDE), Scene("red", "circle").draw(_SIDE)
    prompts = (
        *("red", "Blue!", "a dog", "", "a green circle, top right", "yellow square bottom left"),
        *("a round thing in crimson", "square, lower right, navy"),
    )
    wishes = [Wish(prompt) for prompt in prompts]
    wishes += [Wish("a blue square", init=blue, strength=s) for s in (0.2, 0.4, 0.6, 0.8)]
    wishes += [Wish("green", init=red, strength=s) for s in (0.2, 0.5, 0.7, 0.9)]
    edits = ("red", "make it green", "a circle", "a yellow circle")
    wishes += [Wish(prompt, reference=blue) for prompt in edits]
    wishes += [Wish(prompt, reference=red) for prompt in ("blue", "a square", "", "yellow square")]
    loras = sorted((folder / "loras").glob("*.safetensors"))
    wishes += [Wish(f"a {c} circle", lora=lora) for lora, c in product(loras, COLOURS)]
    sized = product((64, 256), ("a red circle", "a green square top left"))
    return wishes + [Wish(prompt, side=side) for side, prompt in sized]


def _sheet(pictures: list[Image.Image], columns: int = 8) -> Image.Image:
    rows = -(-len(pictures) // columns)
    pitch = _SIDE + 4
    sheet = Image.new("RGB", (columns * pitch, rows * pitch), "grey")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture.resize((_SIDE, _SIDE)), (column * pitch, row * pitch))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path, nargs="?", help="where to write a contact sheet")
    parser.add_argument("--steps", type=int, nargs="*", default=[4, 8])
    args = parser.parse_args()
    sd.sd_set_log_callback(_quiet, None)
    sd.sd_set_progress_callback(_silent, None)
    began = time.perf_counter()
    engine = Engine(args.folder)
    print(f"loaded in {time.perf_counter() - began:.2f} s")
    pictures = [p for steps in args.steps for p in _obeyed(engine, steps)]
    pictures += [engine.paint(wish) for wish in _others(args.folder)]
    if args.sheet:
        _sheet(pictures).save(args.sheet)


if __name__ == "__main__":
    main()
