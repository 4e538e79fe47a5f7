"""What the weights take in the engine's memory, which is not always what the file has.

Told by stable-diffusion.cpp's own rules (ggml_extend.hpp, model.cpp): kernels are kept in F16,
vectors in F32, tables in what rows can be read from, the rest as in the file or as `type` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from workers import files
from workers.files import Header, Shape, types
from workers.sd.options import WeightType

Stage = Literal["text encoder", "diffusion model", "VAE"]
"""The steps of a picture; each has its weights, and a buffer of its own while it works."""

STAGES: tuple[Stage, ...] = ("text encoder", "diffusion model", "VAE")
KERNEL_DIMENSIONS = 4
WIDENED = {"F8_E4M3": "F16", "F8_E5M2": "F16", "F64": "F32", "I64": "I32"}
TABLES = (
    *("token_embd.", "embed_tokens.", "token_embedding.", "shared.weight"),
    "relative_attention_bias.",
)
TABLE_TYPES = frozenset(("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"))
EXACT = ("position_embedding.", "pos_embed")  # F32 whatever the file has
EXACT_IN_SD3 = ("t_embedder.", "y_embedder.", "context_embedder.", "final_layer.linear.")
NOT_CONVERTED = (
    *("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer."),
    *("x_embedder.", "t_embedder.", "y_embedder.", "pos_embed", "context_embedder."),
    *("time_embed.", "label_emb.", "embedding"),
)
LEFT_OUT = {  # by the option that names the file: what the engine does not load
    "t5xxl": ("encoder.embed_tokens.",),
    "llm": ("output.weight", "lm_head."),
}
STAGE_OF_OPTION: dict[str, Stage] = {
    "diffusion_model": "diffusion model",
    "vae": "VAE",
    "taesd": "VAE",
}
STAGE_OF_PREFIX: dict[str, Stage] = {  # in a file with everything in it
    "model.diffusion_model.": "diffusion model",
    "first_stage_model.": "VAE",
    "vae.": "VAE",
    "cond_stage_model.": "text encoder",
    "conditioner.": "text encoder",
    "text_encoders.": "text encoder",
}


def stage_bytes(option: str, header: Header, wanted: WeightType | None) -> dict[Stage, int]:
    """Add up what each stage gets of the file that `option` names."""
    sizes: dict[Stage, int] = dict.fromkeys(STAGES, 0)
    is_sd3 = header.has("joint_blocks.")
    for name, stage in _loaded(option, header):
        kind, shape = header.types[name], header.shapes[name]
        kept = kept_type(name, kind, shape, wanted, is_sd3=is_sd3)
        sizes[stage] += types.bytes_of(kept, files.count(shape))
    return sizes


def stage_of(option: str) -> Stage:
    """Tell the stage of a file that is no checkpoint; of a checkpoint, the largest."""
    return STAGE_OF_OPTION.get(option, "diffusion model" if option == "model" else "text encoder")


def _loaded(option: str, header: Header) -> Iterator[tuple[str, Stage]]:
    left_out = LEFT_OUT.get(option, ())
    for name in header.shapes:
        if option != "model":
            if not name.startswith(left_out):
                yield name, stage_of(option)
            continue
        stage = next((s for p, s in STAGE_OF_PREFIX.items() if name.startswith(p)), None)
        if stage is not None:
            yield name, stage


def kept_type(
    name: str, kind: str, shape: Shape, wanted: WeightType | None, *, is_sd3: bool
) -> str:
    """Name the type that a tensor has in memory."""
    if len(shape) >= KERNEL_DIMENSIONS:
        return "F16"
    if len(shape) <= 1 or any(part in name for part in EXACT):
        return "F32"
    if is_sd3 and any(part in name for part in EXACT_IN_SD3):
        return "F32"
    kept = WIDENED.get(kind, kind)
    if wanted is not None and _is_converted(name, shape, wanted.upper()):
        kept = wanted.upper()
    if any(part in name for part in TABLES):
        return kept if kept in TABLE_TYPES else "F32"
    return kept if _is_even(shape, kept) else "F32"


def _is_converted(name: str, shape: Shape, wanted: str) -> bool:
    if name.endswith((".bias", ".scale")) or any(part in name for part in NOT_CONVERTED):
        return False
    return _is_even(shape, wanted)


def _is_even(shape: Shape, kind: str) -> bool:
    """Tell whether rows divide into the type's blocks."""
    return shape[-1] % types.BLOCKS[kind][0] == 0
