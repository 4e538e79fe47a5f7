"""A whole file: every model that is plainly a server's call becomes a bundled worker's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy.config import ConfigError, Problem
from proxy.config.sources import beside
from proxy.config.yaml_core import StrictLoader
from proxy.moving import rewriting
from proxy.moving.entry import USELESS, Kept, Translated, translate
from proxy.moving.written import Edit, Pair, Source, pairs, shared

HEAD = "Made from {name} by `hotseat import`. What was changed is said beside it."
DIFFERENT: Mapping[str, tuple[str, ...]] = {
    "llama": (
        "The llama workers share n_ctx among their requests, leave <think> in the text, without",
        "reasoning_content, and serve OpenAI's paths and /v1/rerank. All else of llama-server is",
        "gone: its page, /slots, /v1/messages, /infill, /tokenize. For that keep the cmd.",
    ),
    "sd": ("The sd workers paint with a random seed unless a request says one.",),
}
"""What no flag says, by worker."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The text of a swap.yaml, and a line for a person about every model that was looked at."""

    text: str
    notes: tuple[str, ...]
    model_count: int
    bundled_count: int  # of the models


@dataclass(frozen=True, slots=True)
class _Model:
    """A model whose `cmd` calls a server that we know."""

    key: object  # as YAML reads it: 7 is a number
    pair: Pair
    outcome: Translated | Kept


def move(source: Path) -> Moved:
    """Translate the file; nothing is written, and no file that it names is looked for.

    Raises ConfigError if it cannot be read as YAML.
    """
    text = _text(source)
    root, data = _parsed(source, text)
    models = list(_models(root, data))
    written = Source(text)
    moved = written.with_edits(edit for model in models for edit in _edits(written, model))
    if not _reads_as(_meant(data, models), source, moved):
        told = "nothing was changed: the file is written in a way that is not known"
        return Moved(text, (told,), len(data["models"]), 0)
    bundled_count = sum(isinstance(model.outcome, Translated) for model in models)
    head, notes = _head(source, models, written), tuple(map(_note, models))
    return Moved(head + moved, notes, len(data["models"]), bundled_count)


def _text(source: Path) -> str:
    try:
        return source.read_bytes().decode("utf-8-sig")
    except OSError as error:
        told = f"cannot be read: {error.strerror}{beside(source)}; name another file with --from"
        raise ConfigError(source, [Problem((), told)]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(source, [Problem((), f"is not UTF-8: {error}")]) from error


def _parsed(source: Path, text: str) -> tuple[yaml.Node, Mapping[str, Any]]:
    """Give the nodes of a text, and what they say."""
    try:
        root = StrictLoader(text).get_single_node()
        data = StrictLoader(text).get_single_data()  # it melts what is merged into its own nodes
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = Problem((), f"not valid YAML: {error.problem}", line)
        raise ConfigError(source, [problem]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(source, [Problem((), f"not valid YAML: {error}")]) from error
    if root is None or not isinstance(data, dict) or not isinstance(data.get("models"), dict):
        told = "is not there; a llama-swap file has a mapping of that name"
        raise ConfigError(source, [Problem(("models",), told)])
    return root, data


def _reads_as(meant: Mapping[str, Any], source: Path, text: str) -> bool:
    """Tell whether the edits did what they should, however the file is written."""
    try:
        return _parsed(source, text)[1] == meant
    except ConfigError:
        return False


def _models(root: yaml.Node, data: Mapping[str, Any]) -> Iterator[_Model]:
    in_two_places, section = shared(root), pairs(root).get("models")
    if section is None or getattr(section.value, "flow_style", True):
        return  # in braces, or merged: nobody writes so by hand
    keys = {str(key): key for key in data["models"]}
    for name, pair in pairs(section.value).items():
        entry = data["models"][keys[name]] if name in keys else None
        if not isinstance(entry, dict):
            continue
        outcome = translate(entry, _macros(data.get("macros"), entry.get("macros"), name))
        if isinstance(outcome, Translated) and (
            why := _obstacle(pair, entry, outcome, in_two_places)
        ):
            outcome = Kept(why)
        if outcome is not None:
            yield _Model(keys[name], pair, outcome)


def _macros(common: object, own: object, name: str) -> Mapping[str, str]:
    given = {
        **(common if isinstance(common, dict) else {}),
        **(own if isinstance(own, dict) else {}),
    }
    texts = {
        str(key): str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in given.items()
    }
    return {**texts, "MODEL_ID": name}


def _obstacle(
    pair: Pair, entry: Mapping[str, Any], outcome: Translated, in_two_places: frozenset[int]
) -> str | None:
    """Tell why the entry cannot be edited where it stands."""
    own = pairs(pair.value)
    changed = {"cmd", *(USELESS.keys() & entry.keys()), *(["env"] if outcome.env else [])}
    nodes = [pair.value, *(own[name].value for name in changed & own.keys())]
    if not own.keys() >= changed or any(id(node) in in_two_places for node in nodes):
        return "what it says is shared with others by an anchor"
    in_braces = isinstance(pair.value, yaml.MappingNode) and pair.value.flow_style
    if in_braces and pair.key.start_mark.line != pair.value.end_mark.line:
        return "it is written in braces over several lines"
    return None


def _edits(source: Source, model: _Model) -> Iterator[Edit]:
    match model.outcome:
        case Kept() as outcome:
            return rewriting.kept(source, model.pair, outcome)
        case Translated() as outcome:
            return rewriting.translated(source, model.pair, outcome)


def _meant(data: Mapping[str, Any], models: list[_Model]) -> Mapping[str, Any]:
    """Give what the new text must read as."""
    meant: dict[str, Any] = deepcopy(dict(data))
    for model in models:
        if isinstance(model.outcome, Translated):
            meant["models"][model.key] = _meant_entry(
                meant["models"][model.key], model.outcome, pairs(model.pair.value)
            )
    return meant


def _meant_entry(
    entry: dict[str, Any], outcome: Translated, own: Mapping[str, Pair]
) -> dict[str, Any]:
    new = {key: value for key, value in entry.items() if key != "cmd"}
    for key in USELESS.keys() & own.keys():
        del new[key]
    if outcome.env:
        left = [item for index, item in enumerate(entry["env"]) if index not in outcome.env]
        new = {key: value for key, value in new.items() if key != "env"}
        new |= {"env": left} if left else {}
    for one in outcome.settings:
        at = new
        for part in one.path[:-1]:
            at = at.setdefault(part, {})
        at[one.path[-1]] = one.value
    return new


def _head(source: Path, models: list[_Model], written: Source) -> str:
    kinds = {one.outcome.kind for one in models if isinstance(one.outcome, Translated)}
    lines = [HEAD.format(name=source.name)]
    if kinds:
        lines.append("Relative paths are relative to this file.")
    lines += [line for kind, told in DIFFERENT.items() if kind in kinds for line in told]
    return "".join(f"# {line}{written.newline}" for line in lines) + written.newline


def _note(model: _Model) -> str:
    match model.outcome:
        case Kept(why):
            return f"{model.key}: stays a cmd: {why}"
        case Translated(kind):
            return f"{model.key}: {kind}, instead of a cmd"
