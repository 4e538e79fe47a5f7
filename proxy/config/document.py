"""YAML without its surprises: duplicates are told, `no` is a text, and every path has a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

Where = tuple[str, ...]
"""A path in the file: keys and indices."""


class StrictLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, more or less: only what looks like a number is one.

    PyYAML's own rules are YAML 1.1's: `no` is False, 12:30:00 is 45000, 010 is 8.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", [*"~nN", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_pattern}$"), list(_first)
    )


TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, where it is and what to do."""

    where: Where
    message: str
    line: int | None = None  # from 1

    def __str__(self) -> str:
        return ": ".join(part for part in (".".join(self.where), self.message) if part)


@dataclass(slots=True)
class Document:
    """A YAML text as plain values, with the line of every path in it."""

    data: object = None
    lines: dict[Where, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, where: Where) -> int | None:
        """Find the line of the path, or of the nearest thing that holds it."""
        for length in range(len(where), -1, -1):
            if where[:length] in self.lines:
                return self.lines[where[:length]]
        return None


def read_document(text: str) -> Document:
    """Parse; what is wrong with the YAML itself is in `problems`."""
    document = Document()
    try:
        loader = StrictLoader(text)
        node = loader.get_single_node()
        if node is not None:
            for entry in _walk(node, (), ()):
                _note(document, entry)
        if node is not None and not document.problems:
            document.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        told = f"not valid YAML: {error.problem}"
        document.problems.append(Problem((), told, mark.line + 1 if mark else None))
    except yaml.YAMLError as error:
        document.problems.append(Problem((), f"not valid YAML: {error}"))
    return document


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key or an item, and what is wrong with it."""

    where: Where
    line: int
    is_double: bool = False
    mistake: str | None = None


def _note(document: Document, entry: _Entry) -> None:
    mistake = entry.mistake
    if entry.is_double:
        mistake = f"is given twice; the first is in line {document.lines[entry.where]}"
    if mistake is not None:
        document.problems.append(Problem(entry.where, mistake, entry.line))
    document.lines.setdefault(entry.where, entry.line)


def _walk(node: yaml.Node, where: Where, above: tuple[yaml.Node, ...]) -> Iterator[_Entry]:
    """Yield every path with its line and its mistake, if any."""
    line = node.start_mark.line + 1
    if any(node is one for one in above):
        yield _Entry(where, line, mistake="refers to itself")
        return
    if node.tag not in TAGS:
        yield _Entry(where, line, mistake=f"has a tag that means nothing here: {node.tag}")
        return
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            inner = (*where, name)
            yield _Entry(inner, key.start_mark.line + 1, name in keys and name != "<<")
            keys.add(name)
            yield from _walk(value, inner, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = (*where, str(index))
            yield _Entry(inner, item.start_mark.line + 1)
            yield from _walk(item, inner, (*above, node))
