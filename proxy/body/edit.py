r"""What a request's body is told differently on its way: another name, fewer fields, other values.

A path names a field; dots lead inwards, a number is the index of a list, and `\.` is a dot of the
name itself. The field `model` is set by `Edit.model` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from proxy.body.fields import Member, members
from proxy.body.splice import Splice

Path = tuple[str, ...]
MODEL = "model"
_PART = re.compile(r"(?:[^.\\]|\\.|\\\Z)*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_INDEX = re.compile(r"[0-9]{1,4}")  # a longer one would be a list of its own


class _Nothing:
    """Stands where there is no value."""


NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class Edit:
    """The changes, in this order: the name, what is left out, what is set."""

    model: str | None = None  # None: the name stays as it came
    left_out: Sequence[str] = ()  # paths
    put: Sequence[tuple[str, object]] = ()  # paths and values; a later one counts

    def __bool__(self) -> bool:
        return self.model is not None or bool(self.left_out) or bool(self.put)


@lru_cache(maxsize=4096)
def path_of(text: str) -> Path:
    r"""Read `a.b\.c.0` as the path of three names."""
    parts, at = [], 0
    while at <= len(text):
        found = _PART.match(text, at)
        part = found[0] if found else ""
        parts.append(_ESCAPE.sub(r"\1", part))
        at += len(part) + 1
    return tuple(parts)


def splices_in(raw: bytes, edit: Edit) -> list[Splice]:
    """Find what the edit changes in a valid JSON object; every other byte stays.

    Only a value that is changed inside is parsed; all places of a doubled field are changed.
    """
    every = members(raw)
    changed = _changed(raw, {member.name: member for member in every}, edit)
    present = {member.name for member in every}
    texts = {
        name: json.dumps(value, separators=(",", ":")).encode()
        for name, value in changed.items()
        if value is not NOTHING
    }
    added = [
        json.dumps(name).encode() + b":" + text
        for name, text in texts.items()
        if name not in present
    ]
    gone = [member.name in changed and member.name not in texts for member in every]
    return _splices(raw, every, gone, texts, added)


def _changed(raw: bytes, there: Mapping[str, Member], edit: Edit) -> dict[str, object]:
    """Tell the new values of the fields that change, by name; NOTHING: it is left out."""
    changed: dict[str, object] = {}

    def now(name: str) -> object:
        if name in changed or name not in there:
            return changed.get(name, NOTHING)
        return json.loads(raw[there[name].value_start : there[name].value_end])

    if edit.model is not None:
        changed[MODEL] = edit.model
    for name, *inner in _free(path_of(text) for text in edit.left_out):
        changed[name] = _without(now(name), inner) if inner else NOTHING
    for path, value in ((path_of(text), value) for text, value in edit.put):
        for name, *inner in _free([path]):
            changed[name] = _with(now(name) if inner else NOTHING, inner, value)
    return {
        name: value for name, value in changed.items() if name in there or value is not NOTHING
    }


def _free(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path[0] != MODEL]


def _with(tree: object, path: Sequence[str], value: object) -> object:
    """Give the tree with the value at the path; what is in its way gives way."""
    if not path:
        return value
    name, *inner = path
    is_index = _INDEX.fullmatch(name) is not None
    if isinstance(tree, dict):
        return {**tree, name: _with(tree.get(name, NOTHING), inner, value)}
    if isinstance(tree, list) and (is_index or name == "-1"):
        at = len(tree) if name == "-1" else int(name)
        longer = [*tree, *[None] * (at + 1 - len(tree))]
        longer[at] = _with(longer[at], inner, value)
        return longer
    return _with([] if is_index and tree is NOTHING else {}, path, value)


def _without(tree: object, path: Sequence[str]) -> object:
    """Give the tree without what is at the path, if there is such a thing."""
    name, *inner = path
    if isinstance(tree, dict) and name in tree:
        rest = {key: value for key, value in tree.items() if key != name}
        return {**tree, name: _without(tree[name], inner)} if inner else rest
    if isinstance(tree, list) and _INDEX.fullmatch(name) and int(name) < len(tree):
        at = int(name)
        return [*tree[:at], *([_without(tree[at], inner)] if inner else []), *tree[at + 1 :]]
    return tree


def _splices(
    raw: bytes,
    every: Sequence[Member],
    gone: Sequence[bool],
    texts: Mapping[str, bytes],
    added: Sequence[bytes],
) -> list[Splice]:
    """Place the changes, and see that the commas are right after them."""
    if all(gone):
        start = every[0].start if every else raw.index(b"{") + 1
        end = every[-1].end if every else start
        return [Splice(start, end, b",".join(added))] if every or added else []
    last_kept = max(index for index, is_gone in enumerate(gone) if not is_gone)
    splices = []
    for index, member in enumerate(every):
        if not gone[index]:
            if member.name in texts:
                splices.append(Splice(member.value_start, member.value_end, texts[member.name]))
        elif index < last_kept:
            splices.append(Splice(member.start, member.end + 1))
        else:
            splices.append(Splice(member.start - 1, member.end))
    if added:
        splices.append(Splice(every[-1].end, every[-1].end, b"".join(b"," + one for one in added)))
    return splices
