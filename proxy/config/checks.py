"""Mistakes that no type can see: names that clash, places that do not fit."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.config.document import Problem, Where
from proxy.config.memory import DeclaredMemory
from proxy.config.model import ModelConfig
from proxy.config.schema import Config
from proxy.config.virtual import virtual_clashes
from proxy.macros import names_in


def clashes(config: Config) -> Iterator[Problem]:
    """Find all of them."""
    if not config.models and not config.peers:
        yield Problem(("models",), "is empty: name at least one model")
    yield from _double_names(config)
    yield from _double_keys(config)
    yield from _unknown_preloads(config)
    yield from _blind_fallbacks(config)
    yield from config.company_read.problems
    yield from config.safety_read.problems
    yield from virtual_clashes(config)
    for model_id, model in config.models.items():
        for found in (_misplaced(config, model), _portless(model)):
            yield from (Problem(("models", model_id, *p.where), p.message) for p in found)


def _misplaced(config: Config, model: ModelConfig) -> Iterator[Problem]:
    """Find what a model says of GPUs that it cannot use."""
    devices, said = config.gpu.devices, model.memory
    if config.device_of(model) == "cpu":
        if model.gpu is not None:
            yield Problem(("gpu",), "its device is cpu: leave out one of the two")
        if isinstance(said, DeclaredMemory) and said.gpu:
            yield Problem(("memory", "gpu"), "its device is cpu: it needs no memory of a GPU")
    elif devices is not None and all(isinstance(gpu, int) for gpu in devices):
        for gpu in model.gpu or ():
            if isinstance(gpu, int) and gpu not in devices:
                yield Problem(("gpu",), f"{gpu} is not one of gpu.devices")


def _portless(model: ModelConfig) -> Iterator[Problem]:
    """Find a command that cannot know its port, and does not say which it takes."""
    says_where = "proxy" in model.model_fields_set
    if model.kind == "cmd" and not says_where and not any(names_in(model.cmd or "")):
        told = "uses ${PORT} unless you say where the command serves, but cmd does not use it"
        yield Problem(("proxy",), told)


def _double_keys(config: Config) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, entry in enumerate(config.api_keys):
        owner = first.setdefault(entry.key.get_secret_value(), index)
        if owner != index:
            yield Problem(
                ("apiKeys", str(index)), f"is the same key as entry {owner}", passes=True
            )


def _double_names(config: Config) -> Iterator[Problem]:
    """Find names that mean two models; what llama-swap lets pass is never found by its alias."""
    owners: dict[str, str] = {}
    for model_id, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            where: Where = ("models", model_id, "aliases", str(index))
            if alias in config.models:
                yield Problem(where, f"{alias!r} is a model's id", passes=True)
            elif alias in owners:
                yield Problem(where, f"{alias!r} is an alias of {owners[alias]!r} already")
            owners.setdefault(alias, model_id)
    for model_id, model in config.models.items():
        for name in model.filters.set_params_by_id:
            where = ("models", model_id, "filters", "setParamsByID", name)
            yield from _taken(config, owners, model_id, Problem(where, name))
            owners.setdefault(name, model_id)


def _taken(
    config: Config, owners: dict[str, str], model_id: str, key: Problem
) -> Iterator[Problem]:
    """Find who else has the name that parameters are given for."""
    name, where = key.message, key.where
    if name != model_id and name in config.models:
        yield Problem(where, "is another model's id; parameters are for names of this model")
    elif owners.get(name, model_id) != model_id:
        yield Problem(where, f"is an alias of {owners[name]!r} already")


def _unknown_preloads(config: Config) -> Iterator[Problem]:
    for index, name in enumerate(config.hooks.on_startup.preload):
        if config.resolve(name) is None:
            where: Where = ("hooks", "on_startup", "preload", str(index))
            yield Problem(where, config.absent(name, config.names), passes=True)


def _blind_fallbacks(config: Config) -> Iterator[Problem]:
    """Find what is to put pictures into words, and cannot."""
    said = {(): config.vision_fallback} | {
        ("models", model_id): model.vision_fallback for model_id, model in config.models.items()
    }
    for where, name in said.items():
        place: Where = (*where, "visionFallback")
        model_id = config.resolve(name) if name else None
        if name and model_id is None:
            yield Problem(place, config.absent(name, config.names))
        elif model_id is not None and "describe" not in (config.models[model_id].words or ()):
            told = f"{name!r} does not describe pictures: name a model that has `describe`"
            yield Problem(place, f"{told} among its capabilities")
