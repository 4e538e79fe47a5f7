"""What each stage of a picture takes while it works, by the widths of its network.

The numbers of floats were fitted to the engine's own figures (CPU, real FLUX widths, SD1.5, the
tiny set), which they meet within a tenth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.files import Header
from workers.memory import MIB
from workers.sd import families
from workers.sd.families import Family

FLOAT_BYTES = 4
PIXELS_PER_TOKEN = 256  # of a transformer: a latent is 8 px a side, and a token 2 latents
PIXELS_PER_LATENT = 64  # of a UNet, and of the attention in a VAE
TEXT_TOKENS = 512
TEXT_TOKENS_OF_FLUX1 = 256
HEAD_WIDTH = 128
FLUX_WIDTH = 3072  # of a transformer that is not known here

TOKEN_FLOATS = 15.4  # of its width, for each token: the widest point of a block
TOKEN_FLOATS_BESIDE_SCORES = 12.4  # where attention keeps all its scores
UNET_FLOATS, UNET_FLOATS_BESIDE_SCORES = 24.6, 12.0  # likewise, for each latent
UNET_HEADS = {families.SD1: 8, families.SD2: 5, families.SDXL: 10}
VAE_FLOATS, VAE_FLOATS_DIRECT = 13.0, 5.5  # of the channels at full size, for each pixel
TAESD_CHANNELS, TAESD_FLOATS = 64, 7.5
VIDEO_VAE_FLOATS = 19.5
TILE_LATENTS = 32  # a side, the engine's default
DEFAULT_VAE_CHANNELS = 128
T5_BYTES, CLIP_BYTES = 68 * MIB, 2 * MIB


@dataclass(frozen=True, slots=True)
class Painted:
    """One picture, and how it is painted."""

    pixels: int
    flash_attn: bool = False
    reference_pixels: int = 0
    vae_tiling: bool = False
    vae_conv_direct: bool = False


def diffusion_bytes(main: Header, painted: Painted) -> int:
    """Reckon the buffer of one step of the diffusion model."""
    family = families.family_of(main)
    if family in UNET_HEADS:
        return _unet_bytes(main, family, painted)
    width = _width(main)
    heads = width // _head_width(main)
    tokens = (painted.pixels + painted.reference_pixels) // PIXELS_PER_TOKEN + _text_tokens(family)
    if painted.flash_attn:
        return int(TOKEN_FLOATS * width * tokens) * FLOAT_BYTES
    scores = heads * tokens**2
    return int(scores + TOKEN_FLOATS_BESIDE_SCORES * width * tokens) * FLOAT_BYTES


def _width(main: Header) -> int:
    first = ("img_in.weight", "x_embedder.weight", "x_embedder.proj.weight")
    found = next((shape for name in first if (shape := main.shape(name))), None)
    return found[0] if found else FLUX_WIDTH


def _head_width(main: Header) -> int:
    norm = next((s for n, s in main.shapes.items() if n.endswith("key_norm.scale")), None)
    if norm:
        return norm[0]
    return HEAD_WIDTH // 2 if families.family_of(main) is families.SD3 else HEAD_WIDTH


def _text_tokens(family: Family) -> int:
    flux1 = (families.FLUX_DEV, families.FLUX_SCHNELL)
    return TEXT_TOKENS_OF_FLUX1 if family in flux1 else TEXT_TOKENS


def _unet_bytes(main: Header, family: Family, painted: Painted) -> int:
    first = main.shape("input_blocks.0.0.weight")
    width = first[0] if first else 320
    places = painted.pixels // PIXELS_PER_LATENT
    floats = UNET_FLOATS * width * places
    if not painted.flash_attn:
        # SDXL attends only from half the size on
        seen = places // 4 if family is families.SDXL else places
        scores = UNET_HEADS[family] * seen**2
        floats = max(floats, scores + UNET_FLOATS_BESIDE_SCORES * width * places)
    return int(floats) * FLOAT_BYTES


def vae_bytes(vae: Header | None, main: Header, painted: Painted) -> int:
    """Reckon the buffer of decoding a picture, or a tile of it; encoding takes less."""
    pixels = min(painted.pixels, _tile_pixels(main)) if painted.vae_tiling else painted.pixels
    if vae is not None and vae.shape("decoder.conv1.weight"):
        return int(VIDEO_VAE_FLOATS * _channels(vae) * pixels) * FLOAT_BYTES
    if vae is not None and vae.shape("decoder.layers.0.weight"):
        return int(TAESD_FLOATS * TAESD_CHANNELS * pixels) * FLOAT_BYTES
    floats = VAE_FLOATS_DIRECT if painted.vae_conv_direct else VAE_FLOATS
    scores = (pixels // PIXELS_PER_LATENT) ** 2  # of the one attention, at the smallest size
    return int(max(floats * _channels(vae) * pixels, scores)) * FLOAT_BYTES


def _tile_pixels(main: Header) -> int:
    large = families.family_of(main).latent_channels == 32  # noqa: PLR2004  # FLUX.2: 16 px
    return (TILE_LATENTS * (16 if large else 8)) ** 2


def _channels(vae: Header | None) -> int:
    """Read the channels at full size; the first kernel makes four times as many."""
    names = ("decoder.conv_in.weight", "decoder.conv1.weight")
    found = next((shape for name in names if vae and (shape := vae.shape(name))), None)
    return found[0] // 4 if found else DEFAULT_VAE_CHANNELS


def text_bytes(heads: Mapping[str, Header]) -> int:
    """Reckon the largest buffer of the text encoders: they work one after the other."""
    llm = heads.get("llm")
    return max(
        T5_BYTES if "t5xxl" in heads else 0, _llm_bytes(llm) if llm is not None else CLIP_BYTES
    )


def _llm_bytes(llm: Header) -> int:
    inner = llm.shape("gate_proj.weight") or llm.shape("ffn_gate.weight") or (0, 0)
    queries = llm.shape("q_proj.weight") or llm.shape("attn_q.weight") or (0, 0)
    scores = queries[0] // HEAD_WIDTH * TEXT_TOKENS
    widest = max(3 * inner[0] + 4 * inner[1], 3 * queries[0] + scores)
    return TEXT_TOKENS * widest * FLOAT_BYTES
