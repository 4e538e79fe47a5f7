"""Reads which models may be seated at once: `a & (b | c)`, or `+name` for another set. PURE."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from proxy.scheduler import ModelName

Way: TypeAlias = frozenset[ModelName]
TOKEN = re.compile(r"\s*(?:([&|()+])|([\w.-]+))\s*")
MOST_WAYS = 1000
"""What one set may stand for: each is looked at whenever a model loads."""


def read_ways(
    text: str, model: Callable[[str], ModelName], named: Callable[[str], Sequence[Way]]
) -> Sequence[Way]:
    """List the ways in which the expression can be met, each once, in the order of the text.

    `model` knows what a word means, `named` what another set stands for; like this, they raise
    ValueError where there is nothing to be meant.
    """
    reader = _Reader(text, model, named)
    ways = reader.either()
    if reader.rest:
        raise ValueError(f"is over before {reader.rest[0]!r}")
    return ways


class _Reader:
    """Goes through the tokens, from the left."""

    def __init__(
        self, text: str, model: Callable[[str], ModelName], named: Callable[[str], Sequence[Way]]
    ) -> None:
        self.rest = list(_tokens(text))
        self._model = model
        self._named = named

    def either(self) -> Sequence[Way]:
        ways = [*self._both()]
        while self._goes_on_with("|"):
            ways += self._both()
        return _few(ways)

    def _both(self) -> Sequence[Way]:
        ways = self._one()
        while self._goes_on_with("&"):
            others = self._one()
            ways = _few(one | other for one in ways for other in others)
        return ways

    def _one(self) -> Sequence[Way]:
        if self._goes_on_with("("):
            ways = self.either()
            if not self._goes_on_with(")"):
                raise ValueError("has a ( without its )")
            return ways
        if self._goes_on_with("+"):
            return self._named(self._word())
        return [frozenset([self._model(self._word())])]

    def _goes_on_with(self, sign: str) -> bool:
        if not self.rest or self.rest[0] != sign:
            return False
        self.rest.pop(0)
        return True

    def _word(self) -> str:
        if not self.rest:
            raise ValueError("ends where a model is missing")
        word = self.rest.pop(0)
        if word in "&|()+":
            raise ValueError(f"has {word!r} where a model is missing")
        return word


def _tokens(text: str) -> Iterable[str]:
    at = 0
    while at < len(text):
        token = TOKEN.match(text, at)
        if token is None:
            told = "a model with such an id needs a name of its own under `vars`"
            raise ValueError(f"has {text[at:].lstrip()[:1]!r}, which means nothing here; {told}")
        yield token[1] or token[2]
        at = token.end()


def _few(ways: Iterable[Way]) -> Sequence[Way]:
    """Leave out what is said twice."""
    out: dict[Way, None] = {}
    for way in ways:
        out[way] = None
        if len(out) > MOST_WAYS:
            raise ValueError(f"stands for more than {MOST_WAYS} sets")
    return list(out)
