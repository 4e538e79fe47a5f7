"""From the file to a `Config`: macros, types, and clashes that no type can see."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from proxy.config.document import Document, Problem, Where, read_document
from proxy.config.schema import Config, ModelConfig
from proxy.macros import UnknownMacro, expand

TEXTS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
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
    if not isinstance(data, dict) or not isinstance(data.get("models"), dict):
        return data
    values: dict[str, object] = {f"env.{name}": value for name, value in environ.items()}
    macros = data.get("macros")
    for name, value in macros.items() if isinstance(macros, dict) else ():
        values[name] = _expand_tree(value, values, ("macros", str(name)), problems)
    models = {
        name: _expand_tree(entry, values | {"MODEL_ID": name}, ("models", str(name)), problems)
        for name, entry in data["models"].items()
    }
    return {**data, "models": models}


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
        for entry in error.errors(include_url=False):
            where = tuple(str(part) for part in entry["loc"])
            message = TEXTS.get(entry["type"], entry["msg"].removeprefix("Value error, "))
            problems.append(Problem(where, message + _hint(entry["type"], where)))
        return None


def _hint(kind: str, where: tuple[str, ...]) -> str:
    if kind != "extra_forbidden":
        return ""
    section = ModelConfig if where[0] == "models" else Config
    known = [
        f.alias or name
        for name, f in section.model_fields.items()
        if name not in ("folder", "created")
    ]
    near = get_close_matches(where[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(known)}"


def _clashes(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    if not config.models:
        problems.append(Problem(("models",), "is empty: name at least one model"))
    owners: dict[str, str] = dict.fromkeys(config.models, "")
    for model_id, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            where = ("models", model_id, "aliases", str(index))
            if alias in config.models:
                problems.append(Problem(where, f"{alias!r} is a model's id"))
            elif alias in owners:
                told = f"{alias!r} is an alias of {owners[alias]!r} already"
                problems.append(Problem(where, told))
            owners.setdefault(alias, model_id)
    return problems
