"""Macro expansion in configuration texts: ``${name}`` → its value."""

from __future__ import annotations

import re
from collections.abc import Mapping

LATE = frozenset({"PORT"})
"""Known only when a worker starts; they pass through until then."""

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


class UnknownMacro(Exception):
    """A text uses a macro that nobody defined."""

    def __init__(self, name: str, known: Mapping[str, object]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"unknown macro ${{{name}}}; known are: {names}")


def expand(text: str, values: Mapping[str, object]) -> object:
    """Replace the macros of `text`; a text that is one macro takes the macro's own type.

    Raises UnknownMacro. The names in `LATE` stay as they are unless `values` has them.
    """
    whole = _MACRO.fullmatch(text)
    if whole and whole[1] in values:
        return values[whole[1]]

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name in values:
            return str(values[name])
        if name in LATE:
            return match[0]
        raise UnknownMacro(name, values)

    return _MACRO.sub(value_of, text)
