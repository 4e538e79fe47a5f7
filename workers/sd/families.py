"""PURE: which family of image models a file belongs to, and what that family wants.

Told by tensor names and shapes alone, as the engine tells it (stable-diffusion.cpp, model.cpp,
`get_sd_version`). The numbers are those that the makers of the models recommend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workers.files import Header

Encoder = Literal["clip_l", "clip_g", "t5xxl", "llm"]


@dataclass(frozen=True, slots=True)
class Family:
    """What is the same for all models of one architecture."""

    name: str
    side_px: int  # of the square that it paints unless told otherwise
    steps: int
    cfg_scale: float  # anything but 1.0 doubles the work: a second pass for the negative prompt
    size_multiple: int = 16  # px; the engine would round up by itself, and not say so
    latent_channels: int | None = None
    encoders: tuple[Encoder, ...] = ()  # of these the model needs...
    every_encoder: bool = True  # ...all, or any one
    references: bool = False  # paints after reference pictures
    distilled_guidance: float | None = None  # `guidance_scale` means this one, not cfg

    def size(self, width: int | None, height: int | None) -> tuple[int, int]:
        """Give the size of a picture in pixels; a side that is not said is the family's own."""
        return width or self.side_px, height or self.side_px


SD1 = Family("sd1", 512, 20, 7.0, size_multiple=64, latent_channels=4, encoders=("clip_l",))
SD2 = Family("sd2", 768, 20, 7.0, size_multiple=64, latent_channels=4)
SDXL = Family(
    "sdxl", 1024, 20, 7.0, size_multiple=64, latent_channels=4, encoders=("clip_l", "clip_g")
)
SD3 = Family(
    *("sd3", 1024, 28, 4.5),
    latent_channels=16,
    encoders=("clip_l", "clip_g", "t5xxl"),
    every_encoder=False,
)
FLUX_SCHNELL = Family(
    *("flux-schnell", 1024, 4, 1.0),
    latent_channels=16,
    encoders=("clip_l", "t5xxl"),
    every_encoder=False,
)
FLUX_DEV = Family(
    *("flux-dev", 1024, 20, 1.0),
    latent_channels=16,
    encoders=("clip_l", "t5xxl"),
    every_encoder=False,
    distilled_guidance=3.5,
)
CHROMA = Family("chroma", 1024, 26, 4.0, latent_channels=16, encoders=("t5xxl",))
FLUX2_KLEIN = Family(
    "flux2-klein", 1024, 4, 1.0, latent_channels=32, encoders=("llm",), references=True
)
FLUX2_DEV = Family(
    *("flux2-dev", 1024, 28, 1.0),
    latent_channels=32,
    encoders=("llm",),
    references=True,
    distilled_guidance=4.0,
)
Z_IMAGE = Family("z-image", 1024, 8, 1.0, latent_channels=16, encoders=("llm",))
QWEN_IMAGE = Family("qwen-image", 1024, 20, 2.5, size_multiple=32, encoders=("llm",))
OTHER = Family("other", 512, 20, 7.0, size_multiple=64)

_UNETS = {768: SD1, 1024: SD2, 2048: SDXL}  # by the width of the text that they listen to
_TRANSFORMERS = (  # the first whose tensor is there; the narrower signs come first
    ("cap_embedder.0.weight", Z_IMAGE),
    ("transformer_blocks.0.img_mod.1.weight", QWEN_IMAGE),
    ("joint_blocks.", SD3),
    ("distilled_guidance_layer.", CHROMA),
)


def family_of(header: Header) -> Family:
    """Tell the family of a diffusion model or of a whole checkpoint; OTHER if unknown."""
    for sign, family in _TRANSFORMERS:
        if header.has(sign):
            return family
    if header.has("double_stream_modulation_img.lin.weight"):
        return FLUX2_DEV if header.has("single_blocks.47.") else FLUX2_KLEIN
    if header.has("double_blocks."):
        return FLUX_DEV if header.has("guidance_in.") else FLUX_SCHNELL
    if header.has("input_blocks.0.0.weight"):
        return _UNETS.get(_text_width(header), OTHER)
    return OTHER


def flash_attention(of: Family, wanted: bool | None) -> bool:  # noqa: FBT001  # an option's value
    """Tell whether to paint with it: as wanted, else only where pictures turn black without."""
    return of is QWEN_IMAGE if wanted is None else wanted


def _text_width(header: Header) -> int:
    for name, shape in header.shapes.items():
        if name.endswith("attn2.to_k.weight"):
            return shape[-1]
    return 0


def holds_vae(header: Header) -> bool:
    """Tell whether a checkpoint brings its VAE."""
    return any(name.startswith(("first_stage_model.", "vae.")) for name in header.shapes)


def holds_encoders(header: Header) -> bool:
    """Tell whether a checkpoint brings its text encoders."""
    signs = ("cond_stage_model.", "conditioner.", "text_encoders.")
    return any(name.startswith(signs) for name in header.shapes)
