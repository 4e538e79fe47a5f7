"""A command line of the file as words, without a shell."""

from __future__ import annotations

import re
import shlex

_CONTINUED = re.compile(r"\\[ \t\r]*\n")


def without_comments(text: str) -> str:
    """Leave out the lines that begin with #."""
    if "#" not in text:
        return text
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


def words_of(command: str) -> tuple[str, ...]:
    """Split as a shell would; a # inside a line is a character like any other.

    Raises ValueError where a quote is not closed.
    """
    return tuple(shlex.split(_CONTINUED.sub(" ", command)))


def splits(command: str) -> str:
    if not words_of(command):
        raise ValueError("the command is empty")
    if "\0" in command:
        raise ValueError("the command holds a NUL")
    return command
