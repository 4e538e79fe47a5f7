"""Several documents as one, and one without some of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.config.document import Document, Place, Problem, Where

_ROUTER = ("routing", "router", "settings")
NAMED: frozenset[Where] = frozenset(
    [
        *((key,) for key in ("models", "groups", "profiles", "selectors", "peers", "matrix")),
        (*_ROUTER, "groups"),
        (*_ROUTER, "matrix"),
    ]
)
"""Maps whose entries are each made in one place."""


@dataclass(slots=True)
class _Merge:
    first: Document
    second: Document
    shifts: dict[Where, int] = field(default_factory=dict)  # of the second's items
    gone: set[Where] = field(default_factory=set)  # of the first's places
    problems: list[Problem] = field(default_factory=list)

    def of(self, one: object, other: object, where: Where) -> object:
        match one, other:
            case _, None:
                return one
            case None, _:
                self.gone.add(where)
                return other
            case dict(), dict():
                return self._maps(one, other, where)
            case list(), list():
                self.shifts[where] = len(one)
                return [*one, *other]
            case _ if type(one) is type(other) and one == other:
                return one
            case _:
                self._say(where, "is another value than")
                return one

    def _maps(
        self, one: Mapping[object, object], other: Mapping[object, object], where: Where
    ) -> dict[object, object]:
        both = dict(one)
        for key, value in other.items():
            inner = (*where, str(key))
            if key not in one:
                both[key] = value
            elif where in NAMED:
                self._say(inner, "is defined already")
            else:
                both[key] = self.of(one[key], value, inner)
        return both

    def _say(self, where: Where, told: str) -> None:
        place = self.first.place_of(where)
        elsewhere = f"{place.path}:{place.line}" if place else "another file"
        self.problems.append(self.second.problem(where, f"{told} in {elsewhere}"))

    def places(self) -> dict[Where, Place]:
        kept = {where: p for where, p in self.first.places.items() if where not in self.gone}
        for where, place in self.second.places.items():
            kept.setdefault(self._shifted(where), place)
        return kept

    def _shifted(self, where: Where) -> Where:
        for length in range(len(where)):
            if (shift := self.shifts.get(where[:length])) is not None:
                return (*where[:length], str(int(where[length]) + shift), *where[length + 1 :])
        return where


def merged(first: Document, second: Document) -> Document:
    """Put two documents together.

    Maps merge, lists are joined, what says nothing yields; two values for one key are a mistake.
    """
    merge = _Merge(first, second)
    data = merge.of(first.data, second.data, ())
    problems = [*first.problems, *second.problems]
    doubles = [*first.doubles, *second.doubles, *merge.problems]
    environment = {**first.environment, **second.environment}
    return Document(data, merge.places(), problems, doubles, environment)


def without(document: Document, where: Where) -> Document:
    """Take out a key with all that it holds, or an item of a list."""
    data, is_item = _without(document.data, where)
    above, last, length = where[:-1], where[-1], len(where)
    places: dict[Where, Place] = {}
    for path, place in document.places.items():
        if path[:length] == where:
            continue
        is_behind = is_item and path[: length - 1] == above and length <= len(path)
        if is_behind and int(path[length - 1]) > int(last):
            moved = str(int(path[length - 1]) - 1)
            places[(*above, moved, *path[length:])] = place
        else:
            places[path] = place
    return replace(document, data=data, places=places)


def _without(data: object, where: Where) -> tuple[object, bool]:
    """Give what is left, and whether an item of a list was taken out."""
    head, rest = where[0], where[1:]
    match data:
        case dict() if not rest:
            return {key: value for key, value in data.items() if str(key) != head}, False
        case dict():
            inner = {k: _without(v, rest) for k, v in data.items() if str(k) == head}
            left = {**data, **{key: value for key, (value, _) in inner.items()}}
            return left, any(is_item for _, is_item in inner.values())
        case list() if not rest:
            return [*data[: int(head)], *data[int(head) + 1 :]], True
        case list():
            index = int(head)
            value, is_item = _without(data[index], rest)
            return [*data[:index], value, *data[index + 1 :]], is_item
        case _:
            return data, False
