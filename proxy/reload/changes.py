"""What another config changes: whose worker has to go, and whose stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from proxy.config import Config, ModelConfig
from proxy.setup import Setup

RUNNING = frozenset(
    {"llama", "sd", "florence2", "echo", "cmd", "cmd_stop", "proxy", "check_endpoint", "env"}
)
"""What a worker was started with: it would run otherwise if it were started now."""
EXPANDED = frozenset({"macros"})
"""These count where they are used."""
FIXED = frozenset({"files", "footprints", "max_body_bytes", "log_to_stdout"})
"""What is read once, at the start of the server."""


class Fate(Enum):
    """What becomes of a model that is not the same in both configs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"  # its worker finishes what it serves, and goes
    KEPT = "kept"  # its worker stays: only the proxy does something else


@dataclass(frozen=True, slots=True)
class Change:
    """One model's."""

    fate: Fate
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs; values are never told, as they may be secret."""

    models: Mapping[str, Change]
    keys: tuple[str, ...]  # above the models
    needs_restart: tuple[str, ...]  # of these, what the server does not do while it runs

    @property
    def changed(self) -> frozenset[str]:
        return frozenset(n for n, one in self.models.items() if one.fate is Fate.CHANGED)

    @property
    def to_be_started(self) -> frozenset[str]:
        """Name the models that the next request starts by the new config."""
        fates = (Fate.ADDED, Fate.CHANGED)
        return frozenset(n for n, one in self.models.items() if one.fate in fates)

    def as_json(self) -> dict[str, object]:
        return {
            "models": {
                name: {"change": one.fate.value, "keys": list(one.keys)}
                for name, one in self.models.items()
            },
            "keys": list(self.keys),
            "needs_restart": list(self.needs_restart),
        }


def compare(before: Setup, after: Setup) -> Changes:
    """Tell what differs."""
    old, new = before.config.models, after.config.models
    models = {name: Change(Fate.REMOVED) for name in old if name not in new}
    for name in new:
        change = _change(before, after, name) if name in old else Change(Fate.ADDED)
        if change is not None:
            models[name] = change
    above = [name for name in Config.model_fields if name not in {"models", *EXPANDED}]
    differ = [n for n in above if getattr(before.config, n) != getattr(after.config, n)]
    return Changes(
        models,
        tuple(_alias(Config, name) for name in differ),
        tuple(_alias(Config, name) for name in differ if name in FIXED),
    )


def _change(before: Setup, after: Setup, name: str) -> Change | None:
    old, new = before.config.models[name], after.config.models[name]
    runs_otherwise = list(_surroundings(before, after, name))
    keys: list[str] = []
    for field in ModelConfig.model_fields:
        if field not in EXPANDED and getattr(old, field) != getattr(new, field):
            differ = list(
                _differ(_alias(ModelConfig, field), getattr(old, field), getattr(new, field))
            )
            keys += differ
            runs_otherwise += differ if field in RUNNING else []
    if not keys and not runs_otherwise:
        return None
    told = tuple(dict.fromkeys([*keys, *runs_otherwise]))
    return Change(Fate.CHANGED if runs_otherwise else Fate.KEPT, told)


def _surroundings(before: Setup, after: Setup, name: str) -> Iterator[str]:
    """Name what is not the model's own, and what its worker was started with all the same."""
    if before.config.folder != after.config.folder:
        yield "folder"
    if _environment(before, name) != _environment(after, name):
        yield "gpu"  # which ones it sees
    if (before.config.gpu.memory is None) != (after.config.gpu.memory is None):
        yield "gpu.memory"  # seats are no bytes


def _environment(setup: Setup, name: str) -> Mapping[str, str]:
    return setup.devices.environment(setup.config, setup.config.models[name])


def _differ(key: str, old: object, new: object) -> Iterator[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        yield key
        return
    for inner in {**old, **new}:
        if inner not in old or inner not in new or old[inner] != new[inner]:
            yield f"{key}.{inner}"


def _alias(section: type[Config | ModelConfig], field: str) -> str:
    return section.model_fields[field].alias or field
