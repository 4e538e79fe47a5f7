"""A command's words: as they are written, and as they read when the macros are expanded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_WRITTEN = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""", re.DOTALL)
_DEEPEST = 20  # macros in macros; a circle ends there


@dataclass(frozen=True, slots=True)
class Word:
    """One word: `text` keeps the macros that are written in it, `value` is what it reads."""

    text: str
    value: str

    @property
    def program(self) -> str:
        """The name of the program that it calls, without folder and ending."""
        name = re.split(r"[/\\]", self.value)[-1]
        return name.removesuffix(".exe")


def split(command: str, macros: Mapping[str, str]) -> list[Word]:
    """Split as llama-swap does: no shell, lines with # are comments, macros may hold words.

    Raises ValueError where a quotation does not end.
    """
    lines = (line for line in command.split("\n") if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [word for written in _written(joined) for word in _read(written, macros)]


def _written(text: str) -> Iterable[str]:
    if _WRITTEN.sub("", text).strip():
        raise ValueError("a quotation has no end")
    return _WRITTEN.findall(text)


def _read(written: str, macros: Mapping[str, str]) -> list[Word]:
    """Read one word of the text, which may be several when a macro holds some."""
    values = shlex.split(expand(written, macros))
    if len(values) == 1 and len(texts := shlex.split(written)) == 1:
        return [Word(texts[0], values[0])]
    return [Word(value, value) for value in values]


def expand(text: str, macros: Mapping[str, str]) -> str:
    """Replace the macros that are known; the others stay as they are."""
    for _ in range(_DEEPEST):
        expanded = _MACRO.sub(lambda found: macros.get(found[1], found[0]), text)
        if expanded == text:
            break
        text = expanded
    return text
