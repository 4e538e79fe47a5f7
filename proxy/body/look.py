"""What is known of a body: what an edit changes in it, and which pictures and words it holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.body.edit import Edit
from proxy.body.parts import Picture, pictures_in
from proxy.body.peek import Peek
from proxy.body.query import splices_in_query
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Span, Splice
from proxy.body.texts import Passage, texts_in, texts_in_query


class Known(Protocol):
    """What is known of a body that has come."""

    def splices(self, edit: Edit, /) -> Sequence[Splice]:
        """Find what an edit changes in it."""
        ...

    def pictures(self) -> Sequence[Picture]:
        """Find the pictures in it, and those that it names."""
        ...

    def texts(self, names: Collection[str], /) -> Sequence[Passage]:
        """Find the words in these fields of it. Raises BadRequest."""
        ...


class Look(Known, Protocol):
    """What follows a body as it comes."""

    def feed(self, piece: bytes, /) -> None:
        """Take the next bytes. Raises BadRequest."""

    def end(self) -> Peek:
        """Tell what was in it. Raises BadRequest."""
        ...


@dataclass(frozen=True, slots=True)
class Blind:
    """Follows what nobody wants to know of; `peek` is known otherwise."""

    peek: Peek = field(default_factory=Peek)

    def feed(self, _: bytes) -> None:
        """Let it pass."""

    def end(self) -> Peek:
        return self.peek

    def splices(self, _: Edit) -> Sequence[Splice]:
        """Change nothing."""
        return ()

    def pictures(self) -> Sequence[Picture]:
        """Know of none."""
        return ()

    def texts(self, _: Collection[str]) -> Sequence[Passage]:
        """Know of none."""
        return ()


@dataclass(frozen=True, slots=True)
class KnownJson:
    """What is known of JSON, `text.peek` having found it valid."""

    text: Skeleton

    def splices(self, edit: Edit) -> Sequence[Splice]:
        return self.text.splices(edit)

    def pictures(self) -> Sequence[Picture]:
        return pictures_in(self.text)

    def texts(self, names: Collection[str]) -> Sequence[Passage]:
        return texts_in(self.text, names)


@dataclass(frozen=True, slots=True)
class KnownQuery:
    """What is known of a urlencoded form; `models` are the values of `model`."""

    raw: bytes
    models: Sequence[Span]

    def splices(self, edit: Edit) -> Sequence[Splice]:
        return splices_in_query(self.models, edit)

    def pictures(self) -> Sequence[Picture]:
        """Know of none."""
        return ()

    def texts(self, names: Collection[str]) -> Sequence[Passage]:
        return texts_in_query(self.raw, names)
