"""What was understood of a config, for people: a line for each model."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath

from proxy.config.company import rules_told
from proxy.config.document import Problem
from proxy.config.filters import Filters
from proxy.config.jobs import JobsConfig
from proxy.config.model import ModelConfig
from proxy.config.safety import describe
from proxy.config.schema import GRACE_S, START_S, Config
from proxy.macros import names_in
from proxy.units import as_size

LONGEST_NAME, WIDTH = 32, 88
STANDARD = ModelConfig(echo={})
_PERSON = re.compile(r"//[^/?#]*@")
"""Whom an address names, with a password perhaps."""


def understood(config: Config) -> str:
    """Tell of each model what runs it, where it serves, and what else was read."""
    width = min(LONGEST_NAME, max(map(len, config.models), default=0))
    models = (
        _line(f"  {model_id:{width}}  ", _parts(config, model_id, model))
        for model_id, model in config.models.items()
    )
    return "".join(f"{line}\n" for line in (*models, *(f"  {line}" for line in _rest(config))))


def _line(head: str, parts: Iterable[str]) -> str:
    """Write the parts in one line, or in several below each other if it gets long."""
    first, *others = parts
    lines = [f"{head}{first}"]
    for part in others:
        longer = f"{lines[-1]} · {part}"
        if len(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(f"{' ' * len(head)}{part}")
    return "\n".join(lines)


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
    yield from rules_told(config)
    for name, selector in config.selectors.items():
        yield f"selector {name}: {selector.strategy} of {', '.join(selector.targets)}"
    for name, profile in config.profiles.items():
        pins = (f"{one} → {target or 'nothing'}" for one, target in profile.pins.items())
        yield f"profile {name}: {', '.join(pins)}"
    for name, peer in config.peers.items():
        yield f"peer {name}: {', '.join(peer.models)} at {peer.proxy}"
    if config.routes:
        yield f"routes {', '.join(config.routes)}"
    if (everywhere := config.safety_read.everywhere) is not None:
        yield f"safety: {describe(everywhere)}"
    if (fetch := config.fetch_images) is not None:
        beside = "".join(f", {one}" for one in fetch.allow)
        yield f"fetches pictures from public hosts{beside}, up to {as_size(fetch.max_bytes)} each"
    if config.files.dir is not None:
        yield f"files in {config.files.dir}, up to {as_size(config.files.max_bytes)}"
    if config.jobs != JobsConfig():
        kept = f"{as_size(config.jobs.max_bytes)} kept for {config.jobs.keep:g} s"
        yield f"jobs: {config.jobs.max_pending} at once, {kept}"


def _parts(config: Config, model_id: str, model: ModelConfig) -> Iterator[str]:
    yield _runs(model)
    yield from _serves(config, model)
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
    yield from _starts_and_stops(config, model)
    yield from _sits(config, model)
    own = config.safety_read.own
    if model_id in own:
        yield f"safety: {describe(terms) if (terms := own[model_id]) else 'lifted'}"
    if describer := config.eyes_of(model):
        yield f"pictures in words of {describer}"
    if model_id in config.preload:
        yield "preloaded"
    flags = {
        "pinned": model.pin,
        "unlisted": model.unlisted,
        "sendLoadingState": config.sends_loading_state(model),
    }
    yield from (told for told, is_so in flags.items() if is_so)


def _runs(model: ModelConfig) -> str:
    """Name what runs: of a command its program alone, as the rest may hold secrets."""
    if model.kind != "cmd":
        return model.kind
    return f"cmd {_program(model.argv)}"


def _program(argv: tuple[str, ...]) -> str:
    return PurePath(_bare(argv[0])).name


def _bare(program: str) -> str:
    """Leave out a value: `KEY=value` before a command is a shell's way, and may be a secret."""
    return program.partition("=")[0]


def _serves(config: Config, model: ModelConfig) -> Iterator[str]:
    if model.kind != "cmd":
        yield "socket"
        return
    if "PORT" in names_in(model.proxy):
        yield f"port from {config.start_port}" if config.start_port else "any free port"
    if model.proxy != STANDARD.proxy:
        yield _PERSON.sub("//", model.proxy)


def _starts_and_stops(config: Config, model: ModelConfig) -> Iterator[str]:
    """Tell of the ways and times of it that are not the usual ones."""
    if model.check_endpoint != STANDARD.check_endpoint:
        yield f"checkEndpoint {model.check_endpoint}"
    if (start_s := config.start_timeout_s(model)) != START_S:
        yield f"healthCheckTimeout {start_s:g} s"
    if model.stop_argv:
        yield f"cmdStop {_program(model.stop_argv)}"
    if (grace_s := config.grace_s(model)) != GRACE_S:
        yield f"unloadTimeout {grace_s:g} s"


def _sits(config: Config, model: ModelConfig) -> Iterator[str]:
    """Tell where, if that is said, and what it is said to need there."""
    if config.device_of(model) == "cpu":
        yield "on cpu"
    elif model.gpu:
        yield f"on gpu {', '.join(map(str, model.gpu))}"
    if declared := config.declared(model):
        sizes = {"gpu": declared.gpu, "host": declared.host}
        told = (f"{as_size(n)} {at}" for at, n in sizes.items() if n is not None)
        yield f"memory {', '.join(told)}"


def _filtered(filters: Filters) -> Iterator[str]:
    if filters.strip_params:
        yield f"strips {', '.join(filters.strip_params)}"
    if filters.set_params:
        yield f"sets {', '.join(filters.set_params)}"
    for name, params in filters.set_params_by_id.items():
        if params:
            yield f"as {name} sets {', '.join(params)}"
