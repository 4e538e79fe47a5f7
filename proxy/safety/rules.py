"""Which rule refuses a text, or which person is named in it. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from proxy.config import PERSON, Terms
from proxy.safety.reading import bare, readings

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = "\u2e80"
"""From here on stand the scripts that put no spaces between words, and others."""


def refused_by(terms: Terms, texts: Iterable[str]) -> str | None:
    """Name the label of the first rule that refuses one of the texts; None: they may pass."""
    persons = _index(terms.persons)
    for text in texts:
        ways = list(dict.fromkeys(readings(text)))
        for rule in terms.rules:
            if any(rule.pattern.isinstance_python(way) for way in ways):
                return rule.label
        if any(persons.names_one(way) for way in ways):
            return PERSON
    return None


@dataclass(frozen=True, slots=True)
class _Persons:
    """Names, to be found as whole words in a row; `unspaced` ones anywhere."""

    rows: frozenset[tuple[str, ...]]
    lengths: frozenset[int]
    unspaced: tuple[str, ...]

    def names_one(self, text: str) -> bool:
        if not self.rows and not self.unspaced:
            return False
        said = bare(text)
        words = _WORD.findall(said)
        starts = range(len(words))
        if any(tuple(words[at : at + n]) in self.rows for n in self.lengths for at in starts):
            return True
        together = "".join(words)
        return any(name in together for name in self.unspaced)


@lru_cache(maxsize=64)
def _index(names: frozenset[str]) -> _Persons:
    rows = {row for name in names if (row := tuple(_WORD.findall(bare(name))))}
    joined = {("".join(row),) for row in rows}  # as in #TaylorSwift
    both = frozenset(rows | joined)
    unspaced = tuple("".join(row) for row in rows if max("".join(row)) >= _UNSPACED)
    return _Persons(both, frozenset(map(len, both)), unspaced)
