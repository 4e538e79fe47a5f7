"""What a model will take of memory, from its options and the heads of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from workers import files, memory
from workers.files import Header
from workers.memory import MIB, Memory, Part, Place, Rung
from workers.sd import buffers, checks, families
from workers.sd.buffers import Painted
from workers.sd.options import COMPONENTS, SdOptions
from workers.sd.weights import STAGES, Stage, stage_bytes, stage_of

ENGINE_BYTES = 60 * MIB  # measured: Python, Pillow and the library, before a model
TOKENIZER_BYTES = 85 * MIB  # of a language model; CLIP's and T5's are within the engine's
SIDES_PX = (256, 512, 768, 1024, 1536, 2048)
MAX_REFERENCE_PIXELS = 1 << 20  # larger ones are scaled down
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model's files."""

    options: SdOptions
    heads: Mapping[str, Header]  # by the option that names the file, where it was understood
    held_bytes: Mapping[Stage, int]  # of weights

    @property
    def main(self) -> Header:
        return self.heads.get("model") or self.heads.get("diffusion_model") or Header({})

    @property
    def vae(self) -> Header | None:
        taesd = None if self.options.has_preview_tae else self.heads.get("taesd")
        return taesd or self.heads.get("vae") or self.heads.get("model")

    def painted(self, pixels: int, *, tiled: bool) -> Painted:
        """Say how a picture is painted; after one reference of its own size, where it can be."""
        family = families.family_of(self.main)
        refers = checks.references(self.options, family)
        return Painted(
            pixels,
            flash_attn=families.flash_attention(family, self.options.diffusion_flash_attn),
            reference_pixels=min(pixels, MAX_REFERENCE_PIXELS) if refers else 0,
            vae_tiling=tiled,
            vae_conv_direct=self.options.vae_conv_direct,
        )

    def stays_on_host(self, stage: Stage) -> bool:
        """Tell whether a stage neither has its weights on the GPU nor works there."""
        clip, vae = self.options.keep_clip_on_cpu, self.options.keep_vae_on_cpu
        return (stage == "text encoder" and clip) or (stage == "VAE" and vae)


def estimate(options: SdOptions) -> Memory:
    """Reckon what the worker will hold, and what a picture needs on top."""
    model = _model(options)
    defaults, family = options.defaults, families.family_of(model.main)
    width, height = family.size(defaults.width, defaults.height)
    return memory.of(_parts(model), _ladder(model), width * height)


def _model(options: SdOptions) -> Model:
    heads: dict[str, Header] = {}
    held: dict[Stage, int] = dict.fromkeys(STAGES, 0)
    for name, path in _files(options):
        try:
            heads[name] = files.read(path)
        except files.BadFile:
            held[stage_of(name)] += memory.file_bytes(path)
            continue
        for stage, size_bytes in stage_bytes(name, heads[name], options.type).items():
            replaced = name == "model" and stage == "VAE" and (options.vae or options.taesd)
            held[stage] += 0 if replaced else size_bytes
    return Model(options, heads, held)


def _files(options: SdOptions) -> Iterator[tuple[str, str]]:
    for name in ("model", *COMPONENTS):
        path = options.path_of(name)
        # where there are two VAEs, the engine takes the small one alone, or both
        is_left_out = name == "vae" and options.taesd and not options.has_preview_tae
        if path is not None and not is_left_out:
            yield name, path


def _parts(model: Model) -> Iterator[Part]:
    yield Part("engine and interpreter", "host", ENGINE_BYTES)
    yield memory.gpu_context()
    if model.options.llm is not None:
        yield Part("tokenizer", "host", TOKENIZER_BYTES)
    for stage in STAGES:
        on_host = model.options.offload_params_to_cpu or model.stays_on_host(stage)
        place: Place = "host" if on_host else "device"
        yield Part(stage, place, model.held_bytes[stage])


def _ladder(model: Model) -> Iterator[Rung]:
    most = model.options.max_pixels
    tiling = model.options.vae_tiling
    for pixels in [*(side**2 for side in SIDES_PX if side**2 < most), most]:
        whole, least = [
            max(_stage_needs(model, stage, pixels, tiled=tiled) for stage in STAGES)
            for tiled in (tiling is True, tiling is not False)
        ]
        yield Rung(pixels, whole, least)


def vae_bytes(options: SdOptions) -> Callable[[int], int | None]:
    """Make what tells the bytes for decoding so many pixels whole; None: tiles take as much."""
    model = _model(options)

    def needed(pixels: int) -> int | None:
        whole, in_tiles = [
            _stage_needs(model, "VAE", pixels, tiled=tiled) for tiled in (False, True)
        ]
        return whole if in_tiles < whole else None

    return needed


def _stage_needs(model: Model, stage: Stage, pixels: int, *, tiled: bool) -> int:
    """Reckon a stage's buffer, and its weights where they come only when it works."""
    if model.stays_on_host(stage):
        return 0
    buffer_bytes = _buffer_bytes(model, stage, model.painted(pixels, tiled=tiled))
    if not model.options.offload_params_to_cpu:
        return buffer_bytes
    needed = model.held_bytes[stage] + buffer_bytes
    most = int(model.options.max_vram * GIB)
    # above it the engine works in segments; a VAE has too few of them
    return min(needed, most) if most and stage != "VAE" else needed


def _buffer_bytes(model: Model, stage: Stage, painted: Painted) -> int:
    match stage:
        case "text encoder":
            return buffers.text_bytes(model.heads)
        case "diffusion model":
            return buffers.diffusion_bytes(model.main, painted) + _preview_bytes(model, painted)
        case "VAE":
            return buffers.vae_bytes(model.vae, model.main, painted)


def _preview_bytes(model: Model, painted: Painted) -> int:
    """Reckon what shows a picture under way, beside the buffer of its step."""
    taesd = model.heads.get("taesd") if model.options.preview == "tae" else None
    return 0 if taesd is None else buffers.vae_bytes(taesd, model.main, painted)
