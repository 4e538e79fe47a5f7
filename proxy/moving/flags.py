"""What may become of a flag: a table's building blocks, and how a command is read by a table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from proxy.moving.words import Word

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | list[float] | list[int | str]
Read: TypeAlias = Callable[[Word], Value | None]
"""Tells an option's value; None: it is the default. Raises ValueError if it cannot be said."""


class NoCounterpart(Exception):
    """A bundled worker cannot do what the command says; the message is the flag and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the model's new entry; the path starts at the entry."""

    path: tuple[str, ...]
    value: Value
    remark: str = ""  # stands beside the line


@dataclass(frozen=True, slots=True)
class Flag:
    """How many words follow a flag, and the settings that it becomes."""

    words: int
    becomes: Callable[[Word], Sequence[Setting]]
    optional: frozenset[str] | None = None  # the word follows only if it is one of these
    is_left_out: bool = False  # it is not translated and a comment names it


Table: TypeAlias = Mapping[str, Flag]


@dataclass(slots=True)
class Reading:
    """What a command came to."""

    settings: dict[tuple[str, ...], Setting] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def set(self, setting: Setting) -> None:
        """Take a setting; as with the servers themselves the last word counts."""
        self.settings[setting.path] = setting

    def value(self, *path: str) -> Value | None:
        found = self.settings.get(path)
        return None if found is None else found.value


def read(words: Sequence[Word], table: Table) -> Reading:
    """Read the words after the program's name; raises NoCounterpart at the first bad one."""
    reading, at = Reading(), 0
    while at < len(words):
        name = words[at].value
        flag = table.get(_spelling(name))
        if flag is None:
            raise NoCounterpart(f"{name} has no counterpart")
        following = _following(flag, words, at)
        try:
            for setting in flag.becomes(following):
                reading.set(setting)
        except ValueError as error:
            raise NoCounterpart(f"{name} {following.value}: {error}") from error
        if flag.is_left_out:
            reading.left_out.append(name)
        at += 1 + (following is not NOTHING)
    return reading


NOTHING = Word("", "")
"""What follows a flag that stands alone."""


def _following(flag: Flag, words: Sequence[Word], at: int) -> Word:
    if flag.words == 0:
        return NOTHING
    if at + 1 < len(words) and (flag.optional is None or words[at + 1].value in flag.optional):
        return words[at + 1]
    if flag.optional is not None:
        return NOTHING
    raise NoCounterpart(f"{words[at].value} has no value")


def _spelling(name: str) -> str:
    """Take `--ctx_size` for `--ctx-size`, as the servers do, unless it is spelt with _ there."""
    return name.replace("_", "-") if name.startswith("--") else name


# the blocks of which tables are made


def named(*names: str, flag: Flag) -> Iterator[tuple[str, Flag]]:
    """Give a flag all its spellings."""
    return ((_spelling(name), flag) for name in names)


def option(path: tuple[str, ...], reads: Read) -> Flag:
    """Say it with the word that follows."""

    def becomes(word: Word) -> Sequence[Setting]:
        value = reads(word)
        return () if value is None else (Setting(path, value),)

    return Flag(1, becomes)


def switch(*settings: Setting) -> Flag:
    """Stand alone."""
    return Flag(0, lambda _: settings)


def granted(words: int = 0) -> Flag:
    """Need no saying, nor a comment: everybody has to say it, and a bundled worker nobody."""
    return Flag(words, lambda _: ())


def left_out(words: int = 0) -> Flag:
    """Be named in a comment: it is so with a bundled worker, or no answer is another for it."""
    return Flag(words, lambda _: (), is_left_out=True)


def only(*values: str) -> Flag:
    """Be named in a comment, if the word that follows is one of these."""

    def becomes(word: Word) -> Sequence[Setting]:
        if word.value not in values:
            raise ValueError(f"only {' or '.join(values)} can be had")
        return ()

    return Flag(1, becomes, is_left_out=True)


def text(word: Word) -> Value:
    """Keep the word as it is written, macros and all."""
    return word.text


def whole(low: int, high: float = math.inf, *, unset: Sequence[str] = ()) -> Read:
    """Take a whole number in these bounds; `unset` are the words that leave it to the engine."""

    def reads(word: Word) -> Value | None:
        if word.value in unset:
            return None
        if not re.fullmatch(r"[-+]?\d+", word.value) or not low <= int(word.value) <= high:
            raise ValueError(_bounds("a whole number", low, high))
        return int(word.value)

    return reads


def number(low: float, high: float = math.inf) -> Read:
    """Take a number in these bounds."""

    def reads(word: Word) -> Value:
        try:
            value = float(word.value)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            raise ValueError(_bounds("a number", low, high))
        return int(value) if value.is_integer() else value

    return reads


def _bounds(what: str, low: float, high: float) -> str:
    return f"the option takes {what} of {low} {'or more' if high == math.inf else f'to {high}'}"


def one_of(*values: str, unset: Sequence[str] = ()) -> Read:
    """Take one of these words, in any case."""

    def reads(word: Word) -> Value | None:
        value = word.value.lower()
        if value in unset:
            return None
        if value not in values:
            raise ValueError(f"the option takes {', '.join(values)}")
        return value

    return reads
