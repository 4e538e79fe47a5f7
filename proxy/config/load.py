"""From the files to a `Config`: macros, types, and clashes that no type can see."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from pydantic import ValidationError

from proxy.config.checks import clashes
from proxy.config.document import NOT_A_MAPPING, Document, Problem, Where
from proxy.config.expansion import expanded
from proxy.config.merge import without
from proxy.config.mistakes import problems_of
from proxy.config.notes import notes_on
from proxy.config.schema import Config
from proxy.config.sources import Source


class ConfigError(Exception):
    """The config has mistakes; `problems` are all of them, unless they hid what stands there."""

    def __init__(
        self,
        path: Path,
        problems: Iterable[Problem],
        *,
        is_all: bool = True,
        warnings: Iterable[Problem] = (),
    ) -> None:
        self.path = path
        self.warnings = in_order(warnings)  # what was left out, which the problems may be due to
        self.is_all = is_all
        self.problems = in_order(problems)
        super().__init__("\n".join(render(path, problem) for problem in self.problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by place, and leave out doubles."""
    return sorted(dict.fromkeys(problems), key=lambda p: (str(p.path or ""), p.line or 0, p.where))


def render(path: Path, problem: Problem) -> str:
    """Write a problem as an editor finds it; `path` is for one that has no file of its own."""
    place = problem.path or path
    return f"{place}:{problem.line}: {problem}" if problem.line else f"{place}: {problem}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A sound config, and what is to be said of it."""

    config: Config
    document: Document  # tells the place of every path
    warnings: tuple[Problem, ...] = ()  # what was left out, as llama-swap lets it pass
    notes: tuple[Problem, ...] = ()


def load_config(
    source: Source | Path, environ: Mapping[str, str] = os.environ, *, compat: bool = False
) -> Loaded:
    """Read and check the file, or the files.

    With `compat`, what llama-swap would let pass is left out with a warning. Raises ConfigError
    with every mistake that can be seen without starting a worker.
    """
    source = source if isinstance(source, Source) else Source(source)
    document, files = source.read(environ)
    if document.problems:
        raise ConfigError(source.main, [*document.problems, *document.doubles], is_all=False)
    document, problems, notes = expanded(document)
    problems += document.doubles
    reading = _Reading(source, files, compat=compat)
    config, document = reading.checked(document, problems)
    notes += notes_on(config, document)
    told = in_order(document.placed(note) for note in notes)
    return Loaded(config, document, tuple(in_order(reading.passing)), tuple(told))


class _Reading:
    """The rounds of checking a document: what llama-swap lets pass is left out of the next."""

    def __init__(self, source: Source, files: Sequence[Path], *, compat: bool) -> None:
        self._source = source
        self._files = files
        self._compat = compat
        self._left_out: set[str] = set()  # names of models
        self.passing: list[Problem] = []

    def checked(self, document: Document, problems: list[Problem]) -> tuple[Config, Document]:
        """Check until nothing more can be left out. Raises ConfigError."""
        self._note(document, problems, "")
        first = [document.placed(p) for p in problems if not p.passes]
        wrong, is_again = first, False
        while True:
            config, found = self._config(document)
            if config is None and is_again and not self._compat:
                break  # perhaps only because of what was left out
            wrong, is_again = [*first, *(document.placed(p) for p in found if not p.passes)], True
            self._note(document, found, "; this is left out" if self._compat else "")
            after = self._spared(document, found)
            if after.data == document.data:
                break
            document = after
        if self._compat and (config is None or wrong):
            raise ConfigError(self._source.main, wrong, warnings=self.passing)
        if config is None or wrong or (self.passing and not self._compat):
            raise ConfigError(self._source.main, [*wrong, *self.passing])
        return config, document

    def _note(self, document: Document, problems: Iterable[Problem], what_then: str) -> None:
        placed = (document.placed(p) for p in problems if p.passes)
        self.passing += [replace(p, message=p.message + what_then) for p in placed]

    def _spared(self, document: Document, found: Iterable[Problem]) -> Document:
        """Leave out what passes; models only with `compat`, as else nobody could name them."""
        wheres = _sparable(found)
        models = {where[1] for where in wheres if where[:-1] == ("models",)}
        if self._compat:
            self._left_out |= {name for one in models for name in _names_of(document, one)}
            return _without(document, wheres)
        lesser = _without(document, {where for where in wheres if where[:-1] != ("models",)})
        return _with_stand_ins(lesser, models)

    def _config(self, document: Document) -> tuple[Config | None, list[Problem]]:
        if not isinstance(document.data, dict):
            return None, [Problem((), f"is empty: it {NOT_A_MAPPING}")]
        try:
            config = Config.model_validate(document.data)
        except ValidationError as error:
            return None, list(problems_of(error, document.data))
        config.placed(self._source.home, self._files, self._left_out)
        return config, list(clashes(config))


def _sparable(problems: Iterable[Problem]) -> set[Where]:
    """Name what may be left out: nothing else is wrong with it, or in it."""
    wrong = [p.where for p in problems if not p.passes]
    passing = {p.where for p in problems if p.passes}
    return {one for one in passing if not any(where[: len(one)] == one for where in wrong)}


def _names_of(document: Document, model_id: str) -> list[str]:
    """Name a model as its entry does, sound or not."""
    data = document.data
    entry = data["models"][model_id] if isinstance(data, dict) else None
    aliases = entry.get("aliases") if isinstance(entry, dict) else None
    return [model_id, *map(str, aliases if isinstance(aliases, list) else ())]


def _with_stand_ins(document: Document, model_ids: Collection[str]) -> Document:
    """Let these models be such as can be named: who names them does nothing wrong."""
    data = document.data
    if not model_ids or not isinstance(data, dict):
        return document
    models = data["models"]
    stand_ins = {one: {**(models[one] or {}), "echo": {}} for one in model_ids}
    return replace(document, data={**data, "models": {**models, **stand_ins}})


def _without(document: Document, wheres: Iterable[Where]) -> Document:
    """Take out, the last items of a list first, so that the others keep their numbers."""

    def order(where: Where) -> list[tuple[int, str]]:
        return [(int(part) if part.isdecimal() else 0, part) for part in where]

    return reduce(without, sorted(wheres, key=order, reverse=True), document)
