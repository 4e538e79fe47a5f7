"""What an `sd:` entry of swap.yaml may say: the engine's own names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workers import serve

Finite = Annotated[float, Field(allow_inf_nan=False)]
WeightType = Literal[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
]
COMPONENTS = (
    *("diffusion_model", "vae", "taesd"),
    *("clip_l", "clip_g", "t5xxl", "llm", "llm_vision"),
)


class SdDefaults(serve.Options):
    """What a request gets that does not say otherwise; None: what suits the model's family."""

    width: int | None = Field(default=None, ge=16, le=1 << 14)
    height: int | None = Field(default=None, ge=16, le=1 << 14)
    steps: int | None = Field(default=None, ge=1, le=1000)
    cfg_scale: Finite | None = Field(default=None, ge=0, le=100)
    guidance_scale: Finite | None = Field(default=None, ge=0, le=100)
    strength: Finite = Field(default=0.75, ge=0, le=1)  # how much of a picture is painted anew
    sample_method: str | None = None
    scheduler: str | None = None
    negative_prompt: str = ""
    clip_skip: int | None = Field(default=None, ge=1, le=12)
    flow_shift: Finite | None = Field(default=None, ge=0, le=100)


class SdOptions(serve.Options):
    """The options of one model: `model` for a file with everything in it, or its parts."""

    model: str | None = None
    diffusion_model: str | None = None
    vae: str | None = None
    taesd: str | None = None  # a small, fast, rougher VAE
    clip_l: str | None = None
    clip_g: str | None = None
    t5xxl: str | None = None
    llm: str | None = None
    llm_vision: str | None = None
    lora_dir: str | None = None

    references: bool | None = None  # edits by reference picture; None: told by family and name
    n_threads: int | None = Field(default=None, ge=1, le=512)
    type: WeightType | None = None  # convert the weights at load; None: as in the file
    enable_mmap: bool = False
    offload_params_to_cpu: bool = False
    max_vram: Finite = Field(default=0.0, ge=0)  # GiB; only together with offload_params_to_cpu
    keep_clip_on_cpu: bool = False
    keep_vae_on_cpu: bool = False
    diffusion_flash_attn: bool | None = None  # None: only where pictures turn black without it
    diffusion_conv_direct: bool = False
    vae_conv_direct: bool = False
    vae_tiling: bool | Literal["auto"] = "auto"
    """Decode in tiles: 0.4 instead of 6.7 GB for 1024x1024, but slower, and seams may show;
    `auto`: only where there is no memory for the whole."""
    preview: Literal["none", "proj", "tae"] = "proj"
    """What pictures under way are shown by: a rough projection that costs next to nothing, or the
    `taesd`, which decodes at each step; beside a `vae`, it then does nothing else."""

    defaults: SdDefaults = SdDefaults()
    max_pixels: int = Field(default=2048 * 2048, ge=256, le=1 << 26)
    max_steps: int = Field(default=100, ge=1, le=1000)
    max_n: int = Field(default=10, ge=1, le=100)
    max_prompt_chars: int = Field(default=8000, ge=1, le=8000)
    max_images: int = Field(default=16, ge=0, le=16)  # of one request, to edit or to look at
    max_image_pixels: int = Field(default=50_000_000, ge=256, le=200_000_000)  # of each of them
    cancel_after_s: Finite = Field(default=10.0, ge=0)
    """Without a C++ compiler the engine cannot be stopped: when the client of a picture that would
    take longer than this is gone, and nobody else waits, the process is given up."""

    def path_of(self, component: str) -> str | None:
        """Give the file of `model` or of one of COMPONENTS."""
        path: str | None = getattr(self, component)
        return path

    @property
    def has_preview_tae(self) -> bool:
        """Whether the `taesd` shows previews alone, and the `vae` makes the pictures."""
        return self.preview == "tae" and self.taesd is not None and self.vae is not None

    @property
    def main_file(self) -> str:
        """The file that tells the family; empty when neither is named."""
        return self.model or self.diffusion_model or ""
