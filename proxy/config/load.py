"""From the file to a `Config`: macros, types, and clashes that no type can see."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from proxy.config.document import Document, Problem, Where, read_document
from proxy.config.memory import DeclaredMemory, GpuConfig, HostConfig
from proxy.config.schema import Config, ModelConfig
from proxy.config.section import LONG, SHORT, Section
from proxy.macros import UnknownMacro, expand

NO_PLACES = (SHORT, LONG, "[key]")
"""What pydantic puts into a mistake's path that is no key of the file."""
TEXTS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "tuple_type": "must be a list",
}


class ConfigError(Exception):
    """The file has mistakes; `problems` are all of them."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda p: (p.line or 0, p.where))
        super().__init__("\n".join(render(path, problem) for problem in self.problems))


def render(path: Path, problem: Problem) -> str:
    place = f"{path}:{problem.line}" if problem.line else str(path)
    return f"{place}: {problem}"


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[Config, Document]:
    """Read and check the file; the document tells the line of every path in it.

    Raises ConfigError with every mistake that can be seen without starting a worker.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        told = f"cannot be read: {error.strerror}; name another file with --config"
        raise ConfigError(path, [Problem((), told)]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, [Problem((), f"is not UTF-8: {error}")]) from error
    document = read_document(text)
    if document.problems:
        raise ConfigError(path, document.problems)
    problems: list[Problem] = []
    tree = _expand(document.data, environ, problems)
    config = _validate(tree, path, problems)
    if config is not None:
        problems += _clashes(config)
    if config is None or problems:
        placed = (Problem(p.where, p.message, document.line_of(p.where)) for p in problems)
        raise ConfigError(path, placed)
    return config, document


def _expand(data: object, environ: Mapping[str, str], problems: list[Problem]) -> object:
    """Expand the macros of the file's texts; `macros` may use those above them."""
    if not isinstance(data, dict):
        return data
    values: dict[str, object] = {f"env.{name}": value for name, value in environ.items()}
    macros = data.get("macros")
    for name, value in macros.items() if isinstance(macros, dict) else ():
        values[name] = _expand_tree(value, values, ("macros", str(name)), problems)
    return {key: _expand_part(key, tree, values, problems) for key, tree in data.items()}


def _expand_part(
    key: object, tree: object, values: Mapping[str, object], problems: list[Problem]
) -> object:
    match key, tree:
        case "macros", _:
            return tree
        case "models", dict():
            own = {name: {**values, "MODEL_ID": name} for name in tree}
            return {
                name: _expand_tree(entry, own[name], ("models", str(name)), problems)
                for name, entry in tree.items()
            }
        case _:
            return _expand_tree(tree, values, (str(key),), problems)


def _expand_tree(
    tree: object, values: Mapping[str, object], where: Where, problems: list[Problem]
) -> object:
    match tree:
        case str():
            try:
                return expand(tree, values)
            except UnknownMacro as error:
                problems.append(Problem(where, _without_environment(str(error))))
                return tree
        case list():
            items = enumerate(tree)
            return [_expand_tree(v, values, (*where, str(i)), problems) for i, v in items]
        case dict():
            pairs = tree.items()
            return {k: _expand_tree(v, values, (*where, str(k)), problems) for k, v in pairs}
        case _:
            return tree


def _without_environment(message: str) -> str:
    """Leave the hundred variables of the environment out of the names that are known."""
    head, _, names = message.partition("; known are: ")
    known = [name for name in names.split(", ") if not name.startswith("env.")]
    return f"{head}; known are: {', '.join([*known, 'env.NAME', 'PORT'])}"


def _validate(tree: object, path: Path, problems: list[Problem]) -> Config | None:
    if not isinstance(tree, dict):
        problems.append(Problem((), "must be a mapping with the key `models`"))
        return None
    try:
        return Config.model_validate(tree).placed(path)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_input=False):
            where = tuple(str(part) for part in entry["loc"] if part not in NO_PLACES)
            message = TEXTS.get(entry["type"], entry["msg"].removeprefix("Value error, "))
            problems.append(Problem(where, message + _hint(entry["type"], where)))
        return None


def _hint(kind: str, where: Where) -> str:
    if kind != "extra_forbidden":
        return ""
    known = [field.alias or name for name, field in _section(where).model_fields.items()]
    near = get_close_matches(where[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(known)}"


def _section(where: Where) -> type[Section]:
    """Tell which section the key stands in."""
    match where[:-1]:
        case ("gpu", *_):
            return GpuConfig
        case ("host", *_):
            return HostConfig
        case ("models", _, "memory", *_):
            return DeclaredMemory
        case ("models", *_):
            return ModelConfig
        case _:
            return Config


def _clashes(config: Config) -> list[Problem]:
    problems = [*_double_names(config), *_double_keys(config)]
    if not config.models:
        problems.append(Problem(("models",), "is empty: name at least one model"))
    for model_id, model in config.models.items():
        where = ("models", model_id)
        problems += [Problem((*where, *p.where), p.message) for p in _misplaced(config, model)]
    return problems


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


def _double_keys(config: Config) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, entry in enumerate(config.api_keys):
        owner = first.setdefault(entry.key.get_secret_value(), index)
        if owner != index:
            yield Problem(("apiKeys", str(index)), f"is the same key as entry {owner}")


def _double_names(config: Config) -> Iterator[Problem]:
    owners: dict[str, str] = dict.fromkeys(config.models, "")
    for model_id, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            where = ("models", model_id, "aliases", str(index))
            if alias in config.models:
                yield Problem(where, f"{alias!r} is a model's id")
            elif alias in owners:
                yield Problem(where, f"{alias!r} is an alias of {owners[alias]!r} already")
            owners.setdefault(alias, model_id)
