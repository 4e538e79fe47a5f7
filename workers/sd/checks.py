"""What is wrong with a model's options and files, told before anything is evicted for it.

Each of these would make the engine load nothing while it looks loaded, or end the process at the
first picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from workers import files, serve
from workers.files import Header
from workers.sd import families, samplers
from workers.sd.families import Family
from workers.sd.options import COMPONENTS, SdOptions

UNEVEN_LAYERS = 3  # FLUX.2 listens to three layers of its language model, side by side


def problems(options: SdOptions) -> list[serve.Problem]:
    """Find what is wrong without the engine: files, their heads, missing and unfit parts."""
    clashes = list(_clashes(options))
    if clashes:
        return clashes
    paths = {n: p for n in ("model", *COMPONENTS) if (p := options.path_of(n)) is not None}
    found: list[serve.Problem] = []
    heads: dict[str, Header] = {}
    for name, path in paths.items():
        try:
            heads[name] = files.read(path)
        except files.BadFile as error:
            found.append(serve.Problem(name, f"{path} {error}"))
    return found or [*_missing(heads), *_unfit(options, heads)]


def references(options: SdOptions, of: Family) -> bool:
    """Tell whether the model paints after reference pictures.

    FLUX Kontext and Qwen-Image-Edit have the tensors of their siblings: the name has to tell.
    """
    if options.references is not None:
        return options.references
    name = Path(options.main_file).name.lower()
    return (
        of.references
        or (of in (families.FLUX_DEV, families.FLUX_SCHNELL) and "kontext" in name)
        or (of is families.QWEN_IMAGE and "edit" in name)
    )


def _clashes(options: SdOptions) -> Iterator[serve.Problem]:
    if not options.main_file:
        yield serve.Problem(
            "model",
            "name the model: `model` for a file with everything in it, or `diffusion_model` and"
            " its parts",
            "bad_options",
        )
    if options.model and options.diffusion_model:
        yield serve.Problem("model", "give `model` or `diffusion_model`, not both", "bad_options")
    if options.preview == "tae" and not options.taesd:
        yield serve.Problem("preview", "`tae` needs a `taesd`", "bad_options")
    if options.lora_dir is not None and not Path(options.lora_dir).is_dir():
        yield serve.Problem("lora_dir", f"no such directory: {options.lora_dir}")
    yield from _unknown("sample_method", samplers.sample_method, options.defaults.sample_method)
    yield from _unknown("scheduler", samplers.scheduler, options.defaults.scheduler)


def _unknown(
    option: str, find: Callable[[str | None], str | None], name: str | None
) -> Iterator[serve.Problem]:
    try:
        find(name)
    except samplers.Unknown as error:
        yield serve.Problem(f"defaults.{option}", str(error), "bad_options")


def _missing(heads: Mapping[str, Header]) -> Iterator[serve.Problem]:
    """Name the parts that the family needs and nobody gave."""
    main = heads.get("model") or heads["diffusion_model"]
    of = families.family_of(main)
    if "model" in heads and not main.has("model.diffusion_model."):
        yield serve.Problem(
            "model",
            f"this file holds the bare diffusion model ({of.name}); name it as"
            " `diffusion_model`, and its parts beside it",
            "bad_options",
        )
        return
    if not families.holds_vae(main) and not {"vae", "taesd"} & heads.keys():
        yield serve.Problem("vae", f"{of.name} needs a `vae` (or a `taesd`)", "bad_options")
    given = [name for name in of.encoders if name in heads]
    enough = len(given) == len(of.encoders) if of.every_encoder else bool(given)
    if of.encoders and not enough and not families.holds_encoders(main):
        joined = (" and " if of.every_encoder else " or ").join(f"`{n}`" for n in of.encoders)
        yield serve.Problem(of.encoders[0], f"{of.name} needs {joined}", "bad_options")


def _unfit(options: SdOptions, heads: Mapping[str, Header]) -> Iterator[serve.Problem]:
    """Name the parts that belong to another model, as far as their shapes tell it."""
    main = heads.get("model") or heads["diffusion_model"]
    of = families.family_of(main)
    for name in ("vae", "taesd"):
        found = _latent_channels(heads.get(name))
        if of.latent_channels and found and found != of.latent_channels:
            yield serve.Problem(
                name,
                f"a VAE of {found} latent channels, but {of.name} needs {of.latent_channels};"
                " give the VAE of this model",
            )
    yield from _unfit_llm(of, main, heads.get("llm"))
    if of in (families.FLUX_DEV, families.FLUX_SCHNELL) and "t5xxl" not in heads:
        text = main.shape("txt_in.weight")
        if text is not None and text[-1] != 4096:  # noqa: PLR2004  # the engine feeds that many zeros
            yield serve.Problem("t5xxl", "this model cannot go without its `t5xxl`", "bad_options")
    if of is families.QWEN_IMAGE and "taesd" in heads and references(options, of):
        yield serve.Problem(
            "taesd", "Qwen-Image edits need the full `vae`, not a taesd", "bad_options"
        )


def _unfit_llm(of: Family, main: Header, llm: Header | None) -> Iterator[serve.Problem]:
    if llm is None or "llm" not in of.encoders:
        return
    embedding = llm.shape("embed_tokens.weight") or llm.shape("token_embd.weight")
    if embedding is None:
        yield serve.Problem("llm", "this file holds no language model")
        return
    text = main.shape("txt_in.weight") or main.shape("cap_embedder.1.weight")
    if text is None:
        return
    layers = (1, 2, UNEVEN_LAYERS) if of.latent_channels == 32 else (1,)  # noqa: PLR2004  # FLUX.2
    if text[-1] not in [embedding[-1] * count for count in layers]:
        yield serve.Problem(
            "llm",
            f"a language model of width {embedding[-1]}, but the model listens to {text[-1]};"
            " give the one that belongs to this model",
        )


def _latent_channels(vae: Header | None) -> int | None:
    """Read what a VAE or TAESD decodes: its first convolution is (out, latent, 3, 3)."""
    if vae is None:
        return None
    for first in ("decoder.conv_in.weight", "decoder.layers.0.weight", "decoder.1.weight"):
        shape = vae.shape(first)
        if shape is not None and len(shape) == 4:  # noqa: PLR2004  # a 5-D one is a video VAE's
            return shape[1]
    return None
