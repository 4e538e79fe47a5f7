"""A tiny image set for stable-diffusion.cpp 0.4.7 that paints what it is asked for.

It is of FLUX.2-klein's kind, so it takes text to image, image to image and references (edits).
"a red circle" paints one on white, in the centre; so do four colours, squares, and with "top
left" and the like the four corners. Unknown words count for nothing, and a prompt without known
ones paints a shape of some mixed colour.

    option                  file
    diffusion_model_path    diffusion.safetensors
    llm_path                llm.gguf
    taesd_path              taesd.safetensors    (no vae_path; vae_decode_only=False)
    lora                    loras/swap.safetensors, at run time: red paints green, green blue,
                            blue yellow, yellow red

Best: 128x128, 4 steps, cfg 1.0, euler with the default scheduler; 64x64 to 256x256 are known,
rougher. A seed moves edges and mixed colours, little more. 16 MB of files; under two minutes of
one thread to train. `check_image.py` measures what comes out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiny import image_tae, image_text
from tiny.image_files import Array, Tensors, write_safetensors
from tiny.image_painter import engine_tensors
from tiny.image_train import train
from tiny.scenes import COLOURS

_README = """\
A tiny set of FLUX.2-klein's kind for stable-diffusion.cpp 0.4.7.

diffusion_model_path = diffusion.safetensors
llm_path             = llm.gguf
taesd_path           = taesd.safetensors   (encoder and decoder; vae_path stays empty,
                                            vae_decode_only is false)
lora                 = loras/swap.safetensors  (lora_apply_mode at_runtime)

Best: 128x128, 4 steps, cfg_scale 1.0, euler. Also 64x64 to 256x256.
Prompts: red, green, blue, yellow; circle, square; top/bottom left/right, centre.
"""


def make(folder: Path) -> None:
    """Train the set and write it as folder/image."""
    image = folder / "image"
    (image / "loras").mkdir(parents=True, exist_ok=True)
    image_text.write(image / "llm.gguf")
    write_safetensors(image / "taesd.safetensors", image_tae.tensors())
    painter = engine_tensors(train())
    write_safetensors(image / "diffusion.safetensors", painter)
    write_safetensors(image / "loras/swap.safetensors", _swap(painter["txt_in.weight"]))
    (image / "README.txt").write_text(_README)


def _swap(txt_in: Array) -> Tensors:
    """Make each colour's word mean the next colour, by a LoRA: exact, so without training."""
    words = [image_text.INDEX[colour] for colour in COLOURS]
    meanings = txt_in[:, words]
    down = np.zeros((len(words), image_text.WIDTH), np.float32)
    down[range(len(words)), words] = 1
    up = np.roll(meanings, -1, axis=1) - meanings
    return {
        "diffusion_model.txt_in.lora_A.weight": down,
        "diffusion_model.txt_in.lora_B.weight": up,
    }
