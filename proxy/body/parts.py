"""Where the pictures of a JSON body stand: content parts of its messages, or fields of its own.

The forms are those of OpenAI's chats (`image_url`), responses (`input_image`) and assistants
(`image_file`), and HearthNet's (`image` with an `image_cid`). Only short strings are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxy.body.fields import LONG_BYTES, QUOTE, Member, items, members
from proxy.body.peek import PICTURE_PARTS
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Span

FIELDS: Final = ("image", "image[]", "images", "images[]", "mask")
"""Hold pictures themselves, where pictures are painted or described."""
LISTS: Final[Mapping[str, str]] = {"messages": "text", "input": "input_text"}
"""Hold messages: of chats, and of responses; with the type that a part with words has there."""
KEYS: Final = ("image_url", "file_id", "image_file", "image_cid")
"""Under one of these a part has its picture."""
WRAPPED: Final = 3
"""Objects around what names a picture: no form has more, and each is read to its end."""
STORED: Final = "file-"
"""How the names of stored pictures begin."""
_RIGHT: Final[Mapping[str, str]] = {"messages": "image_url", "input": "input_image"}
"""What a part with a picture is called there."""
BRACE, BRACKET = ord("{"), ord("[")


@dataclass(frozen=True, slots=True)
class Inline:
    """It is in the body: as a data URI, or in base64 alone."""

    text: Span  # the string, with its quotes


@dataclass(frozen=True, slots=True)
class Reference:
    """It was sent earlier, and has this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Remote:
    """It is elsewhere in the world."""

    url: str


@dataclass(frozen=True, slots=True)
class Odd:
    """It is none of these: who gets it is the judge of it."""


Source: TypeAlias = Inline | Reference | Remote | Odd
_Around: TypeAlias = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a body. Spans are of the body's bytes as they came."""

    where: str  # its path, as errors tell it
    source: Source
    place: Span  # gives way to `before`, a data URI and `after`
    before: bytes
    after: bytes
    part: Span | None = None  # gives way to words; None: nothing but a picture will do
    text_type: str = "text"  # of a part with words


def pictures_in(text: Skeleton) -> Sequence[Picture]:
    """Find them, in their order; the text must be a valid JSON object."""
    find = _Finder(text)
    return [one for root in members(text.raw) for one in find.below(root.name, value_of(root))]


@dataclass(frozen=True, slots=True)
class _Finder:
    """Walks through one text; its own spans are of the text, not of the body."""

    text: Skeleton

    def below(self, root: str, value: Span) -> Iterator[Picture]:
        """Find what is in a field of the body."""
        if root in LISTS:
            for number, message in enumerate(self._items(value)):
                parts = self._items(self._fields(message).get("content"))
                for index, part in enumerate(parts):
                    yield from self._part(root, f"{root}.{number}.content.{index}", part)
        elif root in FIELDS:
            for index, item in enumerate(self._items(value)):
                yield self._named(f"{root}.{index}", item)
            if self.text.raw[value.start] != BRACKET:
                yield self._named(root, value)

    def _part(self, root: str, where: str, part: Span) -> Iterator[Picture]:
        said = self._fields(part)
        kind = self._string(said.get("type"))
        if kind not in PICTURE_PARTS:
            return
        key = next((name for name in KEYS if name in said), "")
        name, value = self._inmost(key, said.get(key, part))
        if kind == _RIGHT[root] and name in ("image_url", "url"):
            place, before, after = value, b'"', b'"'
        else:
            place, (before, after) = part, self._around(root, said, said.get(key))
        source, words = self._source(name, value), LISTS[root]
        yield Picture(where, source, self._placed(place), before, after, self._placed(part), words)

    def _named(self, where: str, value: Span) -> Picture:
        source = self._source(*self._inmost("", value))
        return Picture(where, source, self._placed(value), b'"', b'"')

    def _inmost(self, name: str, value: Span) -> tuple[str, Span]:
        """Follow objects that only wrap what names the picture."""
        for _ in range(WRAPPED):
            inner = self._fields(value)
            if not (found := {*KEYS, "url"} & inner.keys()):
                break
            name = min(found)
            value = inner[name]
        return name, value

    def _source(self, name: str, value: Span) -> Source:
        if self._is_long(value):
            return Inline(self._placed(value))
        said = self._string(value) or ""
        head = said[:8].lower()
        if head.startswith("data:"):
            return Inline(self._placed(value))
        if head.startswith(("http://", "https://")):
            return Remote(said)
        is_name = said.startswith(STORED) or name in ("image_cid", "file_id")
        return Reference(said) if said and is_name else Odd()

    def _is_long(self, value: Span) -> bool:
        text, at = self.text, value.start
        is_left_out = bool(text.gaps) and text.raw.startswith(text.mark.encode(), at + 1)
        return text.raw[at] == QUOTE and (is_left_out or len(value) > LONG_BYTES)

    def _around(self, root: str, said: Mapping[str, Span], named: Span | None) -> _Around:
        """Write a part anew, but for the URL in it."""
        detail = self._string({**said, **self._fields(named)}.get("detail"))
        told = b"" if detail is None else b',"detail":' + json.dumps(detail).encode()
        if root == "input":
            return b'{"type":"input_image","image_url":"', b'"' + told + b"}"
        return b'{"type":"image_url","image_url":{"url":"', b'"' + told + b"}}"

    def _items(self, value: Span | None) -> Sequence[Span]:
        is_list = value is not None and self.text.raw[value.start] == BRACKET
        return items(self.text.raw, value.start) if value is not None and is_list else ()

    def _fields(self, value: Span | None) -> Mapping[str, Span]:
        """Give the fields of an object, the last of a name; none of anything else."""
        if value is None or self.text.raw[value.start] != BRACE:
            return {}
        return {one.name: value_of(one) for one in members(self.text.raw, value.start)}

    def _string(self, value: Span | None) -> str | None:
        """Read a short string."""
        if value is None or self.text.raw[value.start] != QUOTE or self._is_long(value):
            return None
        told: str = json.loads(self.text.raw[value.start : value.end])
        return told

    def _placed(self, span: Span) -> Span:
        return Span(self.text.place(span.start), self.text.place(span.end))


def value_of(member: Member) -> Span:
    return Span(member.value_start, member.value_end)
