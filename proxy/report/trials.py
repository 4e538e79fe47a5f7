"""What would make a model smaller, tried out on its options. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.config import Config, ModelConfig
from proxy.demand import Source
from proxy.report.outlook import Entry, Outlook, Saver

Options = Mapping[str, Any]
TRIALS: Mapping[str, Sequence[Options]] = {
    "sd": (
        {"vae_tiling": True},
        {"diffusion_flash_attn": True},
        {"keep_clip_on_cpu": True},
        {"offload_params_to_cpu": True},
        {"type": "q8_0"},
        {"type": "q4_k"},
    ),
    "llama": ({"type_k": "q8_0", "type_v": "q8_0"}, {"n_ctx": 8192}, {"n_ctx": 4096}),
    "florence2": ({"dtype": "float16"},),
}
UNTRIED: Mapping[str, Sequence[str]] = {
    "sd": ("files of a smaller quant",),
    "llama": ("a file of a smaller quant", "fewer n_gpu_layers"),
}
ALL = "all of these"
HELPS = 0.99  # of what it needs now


def trials(config: Config, outlook: Outlook) -> Config:
    """Make a config of variants of the models that are too big, to be looked at like any."""
    models: dict[str, ModelConfig] = {}
    for entry in outlook.too_big:
        model = config.models[entry.name]
        if entry.source is Source.DECLARED:
            continue  # whatever its options are
        for name, changes in _changes(model).items():
            options = {**model.options, **changes}
            models[_key(entry, name)] = model.model_copy(update={model.kind: options})
    return config.model_copy(update={"models": models})


def with_savers(config: Config, outlook: Outlook, tried: Outlook) -> Outlook:
    """Tell of those that are too big what would help, as the variants have shown."""
    found = {entry.name: entry for entry in tried.entries}
    too_big = {entry.name for entry in outlook.too_big}
    entries = [
        replace(entry, savers=tuple(_savers(config, outlook, entry, found)))
        if entry.name in too_big
        else entry
        for entry in outlook.entries
    ]
    return replace(outlook, entries=entries)


def _changes(model: ModelConfig) -> Mapping[str, Options]:
    new = [one for one in TRIALS.get(model.kind, ()) if _is_new(model.options, one)]
    changes = {", ".join(f"{key}: {_yaml(one[key])}" for key in one): one for one in new}
    if len(new) > 1:
        changes[ALL] = {key: value for one in new for key, value in one.items()}
    return changes


def _is_new(options: Options, changes: Options) -> bool:
    if "n_ctx" in changes:
        told = options.get("n_ctx")
        return isinstance(told, int) and (told == 0 or told > changes["n_ctx"])
    return any(options.get(key) != value for key, value in changes.items())


def _savers(
    config: Config, outlook: Outlook, entry: Entry, found: Mapping[str, Entry]
) -> Iterator[Saver]:
    model = config.models[entry.name]
    if entry.source is Source.DECLARED:
        yield Saver("declare less as its memory, if it needs less")
        return
    short = [on for on, left in outlook.left(entry, entry.demand).items() if left < 0]
    needs_bytes = sum(entry.demand[on] for on in short)
    for name in _changes(model):
        variant = found.get(_key(entry, name))
        if variant is None or variant.source is Source.UNKNOWN:
            continue
        would_bytes = sum(variant.demand.get(on, 0) for on in short)
        if would_bytes < HELPS * needs_bytes:
            yield Saver(name, would_bytes, fits=outlook.fits(entry, variant.demand))
    for untried in UNTRIED.get(model.kind, ()):
        yield Saver(untried)


def _key(entry: Entry, trial: str) -> str:
    return f"{entry.name}: {trial}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
