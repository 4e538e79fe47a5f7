"""${env.NAME}, replaced so that no value can change what the file means.

A value does not go into the YAML: a mark does, and the value takes its place in the texts that
were read. So it needs no escapes, and one with a quote, a # or a line of YAML is only a text. Nor
are there macros in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

VARIABLE = re.compile(r"\$\{env\.([A-Za-z0-9_]+)\}")
LIKE_A_VARIABLE = re.compile(r"\$\{env\.[^}]*\}")
_MARK = re.compile("\U0010fffc([0-9]+)\U0010fffd")
_GUARD = "\U0010fffb"
"""Keeps a ${...} within a value from being a macro."""
_LINE_BREAKS = frozenset("\n\r\0")
SHORTEST_SECRET = 4
"""What is shorter hides nothing, and hiding it would spoil the words of a message."""


class Unusable(Exception):
    """A variable is not set, or holds what no text of the file may hold."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Environment:
    """The variables that a text names."""

    values: Mapping[str, str]
    named: list[tuple[str, int]] = field(default_factory=list)  # with the line
    used: dict[str, str] = field(default_factory=dict)

    def marked(self, text: str) -> str:
        """Put a mark for each variable; a comment may go on naming one that is not set."""
        lines = enumerate(text.split("\n"), 1) if "${env." in text else ()
        return "\n".join(self._marked(line, number) for number, line in lines) or text

    def _marked(self, line: str, number: int) -> str:
        is_comment = line.lstrip().startswith("#")

        def mark(match: re.Match[str]) -> str:
            if is_comment and match[1] not in self.values:
                return match[0]
            self.named.append((match[1], number))
            return f"\U0010fffc{len(self.named) - 1}\U0010fffd"

        return VARIABLE.sub(mark, line)

    def filled(self, text: str) -> str:
        """Put the values where the marks are. Raises Unusable."""
        return _MARK.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        if int(match[1]) >= len(self.named):
            return match[0]  # not one of ours
        name, line = self.named[int(match[1])]
        value = self.values.get(name)
        if value is None:
            raise Unusable(f"the environment variable {name} is not set", line)
        if not _LINE_BREAKS.isdisjoint(value):
            raise Unusable(f"the environment variable {name} holds a line break or a NUL", line)
        self.used[name] = value
        return value.replace("${", f"${_GUARD}{{")


def released(tree: object) -> object:
    """Give the texts of a tree back as they are meant, once its macros are expanded."""
    match tree:
        case str():
            return tree.replace(_GUARD, "")
        case list():
            return [released(item) for item in tree]
        case dict():
            return {released(key): released(value) for key, value in tree.items()}
        case _:
            return tree


def hidden(text: str, used: Mapping[str, str]) -> str:
    """Name the variables instead of the values that came from them."""
    for name, value in sorted(used.items(), key=lambda one: -len(one[1])):
        if len(value) >= SHORTEST_SECRET:
            for spelling in {value, repr(value)[1:-1]}:
                text = text.replace(spelling, f"${{env.{name}}}")
    return text
