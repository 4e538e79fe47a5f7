"""What was understood of a config, for people: a line for each model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from yarl import URL

from proxy.config.document import Problem
from proxy.config.filters import Filters
from proxy.config.model import ModelConfig
from proxy.config.schema import Config
from proxy.macros import names_in

LONGEST_NAME = 32


def understood(config: Config) -> str:
    """Tell of each model what runs it, where it serves, and what else was read."""
    width = min(LONGEST_NAME, max(map(len, config.models), default=0))
    models = (
        f"{model_id:{width}}  {' · '.join(_parts(config, model_id, model))}"
        for model_id, model in config.models.items()
    )
    return "".join(f"  {line}\n" for line in (*models, *_rest(config)))


def absent_programs(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Find the commands whose program is not on this machine, or not to be run."""
    for model_id, model in config.models.items():
        places = os.pathsep.join(os.get_exec_path({**environ, **model.env}))
        for key, argv in (("cmd", model.argv), ("cmdStop", model.stop_argv)):
            if (
                argv
                and not any(names_in(argv[0]))
                and not _is_there(argv[0], config.folder, places)
            ):
                told = f"there is no program {_bare(argv[0])!r} on this machine"
                yield Problem(("models", model_id, key), told)


def _is_there(program: str, folder: Path, places: str) -> bool:
    path = str(folder / program) if os.sep in program else program
    return shutil.which(path, path=places) is not None


def _rest(config: Config) -> Iterator[str]:
    settings = config.routing.router.settings
    for group_id, group in {**settings.groups, **config.groups}.items():
        rules = [flag for flag in ("swap", "exclusive", "persistent") if getattr(group, flag)]
        yield f"group {group_id}: {', '.join(group.members)} ({', '.join(rules) or 'no rules'})"
    matrix = config.matrix or settings.matrix
    for name, said in matrix.sets.items() if matrix else ():
        yield f"set {name}: {said}"
    for name, selector in config.selectors.items():
        yield f"selector {name}: {selector.strategy} of {', '.join(selector.targets)}"
    for name, profile in config.profiles.items():
        pins = (f"{one} → {target or 'nothing'}" for one, target in profile.pins.items())
        yield f"profile {name}: {', '.join(pins)}"
    for name, peer in config.peers.items():
        yield f"peer {name}: {', '.join(peer.models)} at {peer.proxy}"


def _parts(config: Config, model_id: str, model: ModelConfig) -> Iterator[str]:
    yield _runs(model)
    yield _serves(config, model)
    ttl_s = config.ttl_s(model)
    yield f"unloaded after {ttl_s:g} s" if ttl_s else "stays"
    yield f"{config.concurrency(model)} at once"
    if names := [name for name in dict.fromkeys(model.other_names) if name != model_id]:
        yield f"also {', '.join(names)}"
    if model.use_model_name:
        yield f"called {model.use_model_name}"
    yield from _filtered(model.filters)
    if model.env:
        yield f"env {', '.join(model.env)}"
    if model_id in config.preload:
        yield "preloaded"
    for flag, told in ((model.pin, "pinned"), (model.unlisted, "unlisted")):
        if flag:
            yield told


def _runs(model: ModelConfig) -> str:
    """Name what runs: of a command its program alone, as the rest may hold secrets."""
    if model.kind != "cmd":
        return model.kind
    return f"cmd {PurePath(_bare(model.argv[0])).name}"


def _bare(program: str) -> str:
    """Leave out a value: `KEY=value` before a command is a shell's way, and may be a secret."""
    return program.partition("=")[0]


def _serves(config: Config, model: ModelConfig) -> str:
    if model.kind != "cmd":
        return "socket"
    if "PORT" in names_in(model.proxy):
        return f"port from {config.start_port}" if config.start_port else "any free port"
    return str(URL(model.proxy).with_user(None))  # which would take its password along


def _filtered(filters: Filters) -> Iterator[str]:
    if filters.strip_params:
        yield f"strips {', '.join(filters.strip_params)}"
    if filters.set_params:
        yield f"sets {', '.join(filters.set_params)}"
