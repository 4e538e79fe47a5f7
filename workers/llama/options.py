"""What a `llama:` entry of swap.yaml may say: the engine's own names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from workers import serve

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
PoolingType = Literal["none", "mean", "cls", "last", "rank"]
FlashAttention = Annotated[
    Literal["auto", "on", "off"],
    # YAML 1.1 reads a bare `on` as true
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value)),
]

DEFAULT_N_CTX = 4096
MAX_PARALLEL = 64


class SamplingDefaults(serve.Options):
    """What a request gets that does not say otherwise; llama.cpp's own defaults."""

    temperature: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    top_k: int = Field(default=40, ge=0)  # 0 = off
    top_p: float = Field(default=0.95, gt=0, le=1)
    min_p: float = Field(default=0.05, ge=0, le=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repeat_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    repeat_last_n: int = Field(
        default=64, ge=0, le=1 << 16
    )  # tokens that the penalties look back on
    max_tokens: int | None = Field(default=None, ge=1)  # None: up to the end of the context
    seed: int | None = None  # None: another one for each request


class LlamaOptions(serve.Options):
    """The options of one model. `n_ctx` is what one request may use, prompt and answer together.

    The requests that run at once share that many cells of KV cache, so `n_parallel` costs no
    memory. When the cells run out, the youngest request waits and is computed again later.
    """

    model: str
    mmproj: str | None = None  # the projector: makes it a vision model
    max_image_pixels: int = Field(default=50_000_000, ge=1)  # of a picture, as it comes
    max_images: int = Field(default=64, ge=1)  # in one request
    max_request_pixels: int = Field(default=200_000_000, ge=1)  # of these, each counted once
    image_cache_mib: int = Field(default=128, ge=0)  # encoded pictures, kept for the next turn
    embedding: bool = False  # serve embeddings or reranking instead of chat
    pooling_type: PoolingType | None = None  # None: what the file says

    n_ctx: int | None = Field(default=None, ge=0, lt=1 << 31)  # None: 4096 or less; 0: as trained
    n_parallel: int = Field(default=4, ge=1, le=MAX_PARALLEL)  # sequences decoded together
    n_batch: int = Field(default=2048, ge=32, le=1 << 16)
    n_ubatch: int = Field(default=512, ge=32, le=1 << 16)
    type_k: CacheType = "f16"
    type_v: CacheType = "f16"
    flash_attn: FlashAttention = "auto"
    rope_freq_base: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # 0: what the file says
    rope_freq_scale: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    n_gpu_layers: int = Field(default=-1, ge=-1)  # -1: all
    main_gpu: int = Field(default=0, ge=0)
    split_mode: Literal["none", "layer", "row"] = "layer"
    tensor_split: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    n_threads: int | None = Field(default=None, ge=1, le=512)
    n_threads_batch: int | None = Field(default=None, ge=1, le=512)
    use_mmap: bool = True
    use_mlock: bool = False

    # Take GBNF from clients. A grammar can stall or end the worker: for clients you trust only.
    allow_grammar: bool = False
    chat_template: str | None = None  # Jinja text, the path of a .jinja file, chatml or vicuna
    defaults: SamplingDefaults = SamplingDefaults()

    @property
    def chat_template_file(self) -> str | None:
        """The path, where `chat_template` names a file and is not the text itself."""
        text = self.chat_template
        return text if text and text.endswith(".jinja") and "\n" not in text else None
