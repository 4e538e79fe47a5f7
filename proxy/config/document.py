"""A YAML text as plain values; every path in it has a place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from pydantic.alias_generators import to_snake

from proxy.config.environment import Environment, Unusable, hidden
from proxy.config.yaml_core import MERGE, PLAIN, TAGS, TEXT, StrictLoader, plain_tag

Where = tuple[str, ...]
"""A path in the file: keys and indices."""
MOST_ENTRIES, DEEPEST = 200_000, 100
"""What an alias repeats counts each time: a few lines of them can stand for billions."""
NO_COLON = "could not find expected ':'"
HINTS: Mapping[str, str] = {
    NO_COLON: "a key is followed by a colon and a space",
    "expected <block end>": "is it indented as its neighbours are?",
    "mapping values are not allowed": (
        "a text with a colon and a space needs quotes, a key a space behind its colon"
    ),
}
NOT_A_MAPPING = "must be a mapping with the key `models`"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    path: Path | None
    line: int  # from 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, where it is and what to do."""

    where: Where
    message: str
    line: int | None = None  # from 1
    path: Path | None = None
    passes: bool = False  # whether llama-swap would say nothing of it

    def __str__(self) -> str:
        return ": ".join(part for part in (".".join(self.where), self.message) if part)


@dataclass(slots=True)
class Document:
    """What one file says, or several together."""

    data: object = None
    places: dict[Where, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)  # what stands there is not known
    doubles: list[Problem] = field(default_factory=list)  # of which the first is what counts
    environment: dict[str, str] = field(default_factory=dict)  # the variables that were used

    def place_of(self, where: Where) -> Place | None:
        """Find the place of the path, or of the nearest thing that holds it."""
        lengths = range(len(where), -1, -1)
        return next((p for n in lengths if (p := self.places.get(where[:n]))), None)

    def problem(self, where: Where, message: str, *, passes: bool = False) -> Problem:
        """Make a problem that knows its place and shows no value of the environment."""
        return self.placed(Problem(where, message, passes=passes))

    def placed(self, problem: Problem) -> Problem:
        written = self._as_written(problem.where)
        where = tuple(self.hidden(part) for part in written)
        told = replace(problem, where=where, message=self.hidden(problem.message))
        place = self.place_of(written)
        if place is None or problem.line is not None:
            return told
        return replace(told, line=place.line, path=place.path)

    def _as_written(self, where: Where) -> Where:
        """Spell keys as the file does, where it has `max_bytes` for `maxBytes`."""
        written: Where = ()
        for part in where:
            snake = to_snake(part)
            is_snake = (*written, part) not in self.places and (*written, snake) in self.places
            written = (*written, snake if is_snake else part)
        return written

    def hidden(self, text: str) -> str:
        """Name the variables of the environment instead of their values."""
        return hidden(text, self.environment)


def read_document(
    text: str, environ: Mapping[str, str] | None = None, path: Path | None = None
) -> Document:
    """Parse; what is wrong with the YAML itself is in `problems`."""
    document = Document()
    environment = Environment(environ or {})
    marked = environment.marked(text)
    try:
        _read(document, marked, environment, path)
    except yaml.YAMLError as error:
        document.problems.append(_misread(error, marked, path))
    except RecursionError:
        document.problems.append(Problem((), "not valid YAML: too deeply nested", path=path))
    document.environment = environment.used
    return document


def _read(document: Document, text: str, environment: Environment, path: Path | None) -> None:
    """Fill the document. Raises YAMLError and RecursionError."""
    loader = StrictLoader(text)
    node = loader.get_single_node()
    if node is None:
        return
    for count, entry in enumerate(_Walk(loader, environment).over(node, (), ())):
        if count == MOST_ENTRIES:
            told = f"holds more than {MOST_ENTRIES} keys and items, with what aliases repeat"
            document.problems.append(Problem((), told, path=path))
            break
        _note(document, entry, path)
    data = None if document.problems else loader.construct_document(node)
    if isinstance(data, dict | None):
        document.data = data
    else:
        document.problems.append(Problem((), NOT_A_MAPPING, node.start_mark.line + 1, path))


def _misread(error: yaml.YAMLError, text: str, path: Path | None) -> Problem:
    match error:
        case yaml.MarkedYAMLError(problem=str(told), problem_mark=yaml.Mark(line=before)):
            if told == NO_COLON and error.context_mark is not None:
                before = error.context_mark.line  # where the key is; it is missed further on
            line = "".join(text.split("\n")[before : before + 1])
            return Problem((), f"not valid YAML: {told}{_hint(told, line)}", before + 1, path)
        case yaml.reader.ReaderError(position=at, character=character):
            told = f"not valid YAML: it holds the character U+{character:04X}"
            return Problem((), told, text.count("\n", 0, at) + 1, path)
        case _:
            return Problem((), f"not valid YAML: {error}", path=path)


def _hint(told: str, line: str) -> str:
    """Say what is often wrong with such a line."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; YAML is indented by spaces, never by tabs"
    if "${" in line:  # those of the environment are marks by now, and need none
        return "; within braces or brackets a text with ${...} needs quotes"
    return next((f"; {hint}" for start, hint in HINTS.items() if told.startswith(start)), "")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key or an item, and what is wrong with it."""

    where: Where
    line: int
    is_double: bool = False
    mistake: str | None = None


def _note(document: Document, entry: _Entry, path: Path | None) -> None:
    if entry.is_double:
        told = f"is given twice; the first is in line {document.places[entry.where].line}"
        document.doubles.append(Problem(entry.where, told, entry.line, path))
    if entry.mistake is not None:
        document.problems.append(Problem(entry.where, entry.mistake, entry.line, path))
    document.places.setdefault(entry.where, Place(path, entry.line))


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk over the nodes of a text, which puts the environment's values into them."""

    loader: StrictLoader
    environment: Environment

    def over(
        self, node: yaml.Node, where: Where, above: tuple[yaml.Node, ...]
    ) -> Iterator[_Entry]:
        """Yield every path with its line and its mistake, if any."""
        line = node.start_mark.line + 1
        if len(above) > DEEPEST:
            yield _Entry(where[:3], line, mistake="is too deeply nested")
        elif any(node is one for one in above):
            yield _Entry(where, line, mistake="refers to itself")
        elif node.tag not in TAGS:
            yield _Entry(where, line, mistake=f"has a tag that means nothing here: {node.tag}")
        elif isinstance(node, yaml.MappingNode):
            yield from self._over_keys(node, where, (*above, node))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                inner = (*where, str(index))
                yield _Entry(inner, item.start_mark.line + 1)
                yield from self.over(item, inner, (*above, node))
        else:
            yield from self._fill(node, where)
            if not self._reads(node):
                told = "is not what its tag says, has too many digits or half a character"
                yield _Entry(where, line, mistake=told)

    def _reads(self, node: yaml.Node) -> bool:
        """Tell whether the text of a scalar is what it is said to be; PyYAML would break off."""
        try:
            self.loader.construct_object(node)
            str(node.value).encode()  # "\\ud83d" is half a character
        except (ValueError, KeyError):
            return False
        return True

    def _over_keys(
        self, node: yaml.MappingNode, where: Where, above: tuple[yaml.Node, ...]
    ) -> Iterator[_Entry]:
        firsts: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merges: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            yield from self._fill(key, where)
            if key.tag in PLAIN:
                key.tag = TEXT  # 1.50 is a name like any other
            name = str(key.value)
            inner = (*where, name)
            is_merge = key.tag == MERGE
            yield _Entry(inner, key.start_mark.line + 1, name in firsts and not is_merge)
            if is_merge:
                merges.append((key, value))
            else:
                firsts.setdefault(name, (key, value))
            yield from self.over(value, inner, above)
        node.value = [*merges, *firsts.values()]

    def _fill(self, node: yaml.Node, where: Where) -> Iterator[_Entry]:
        """Put the values in; in a text without quotes, one like 8080 or true is no text."""
        if not isinstance(node, yaml.ScalarNode):
            return
        try:
            text = self.environment.filled(node.value)
        except Unusable as error:
            yield _Entry(where, error.line, mistake=str(error))
            return
        if text == node.value:
            return
        node.value = text
        if node.style is None:
            node.tag = plain_tag(self.loader, text) or node.tag
