"""Macro expansion in configuration texts: ``${name}`` → its value."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

RESERVED = frozenset({"PORT", "PID", "MODEL_ID"})
"""Names that are given by us: the first two when a worker runs, the third for each model."""
LONGEST_NAME = 63

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MACRO = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")


class UnknownMacro(Exception):
    """A text uses a macro that nobody defined."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        super().__init__(f"unknown macro ${{{name}}}; known are: {', '.join(known) or 'none'}")
        self.name = name


def expand(text: str, values: Mapping[str, object], late: Collection[str] = ()) -> object:
    """Replace the macros of `text`; a text that is one macro takes the macro's own type.

    Raises UnknownMacro. The names in `late` stay as they are unless `values` has them.
    """
    whole = _MACRO.fullmatch(text)
    if whole and whole[1] in values:
        return values[whole[1]]

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name in values:
            return as_text(values[name])
        if name in late:
            return match[0]
        raise UnknownMacro(name, values.keys())

    return _MACRO.sub(value_of, text)


def names_in(text: str) -> Iterator[str]:
    return (match[1] for match in _MACRO.finditer(text))


def as_text(value: object) -> str:
    """Write a value as one would in YAML."""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def wrong_definition(name: str, value: object) -> str | None:
    """Say what is wrong with a macro in itself; None: nothing."""
    if name in RESERVED:
        return f"macro name {name!r} is reserved"
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        return f"a macro's name has letters, digits, - and _ only, and at most {LONGEST_NAME}"
    if not isinstance(value, str | int | float):
        return "a macro is a text, a number, true or false"
    if isinstance(value, str) and name in names_in(value):
        return f"macro {name!r} contains self-reference"
    return None
