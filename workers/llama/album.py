"""What pictures became in the model's eyes: kept, so that a long chat encodes each of them once.

A picture is known by its content. Kept are how it lies in a prompt, and the encodings of its
slices, within a bound of bytes; the one that was used longest ago goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NewType

import numpy as np
import numpy.typing as npt

PictureId = NewType("PictureId", bytes)  # a hash of its bytes, and of how closely it is looked at
Encoding = npt.NDArray[np.float32]

MOST_PICTURES = 1024  # the layout of one, without encodings, takes a few KB


@dataclass(slots=True)
class Media:
    """One picture, or a slice of one, at its place in a prompt; equal is what shows the same."""

    picture: PictureId
    number: int  # among the slices of the picture
    cells: int  # of KV cache
    positions: int  # that it takes; fewer than cells where positions have several dimensions
    outline: object = field(compare=False, repr=False)  # mtmd's chunk without the pixels
    pixels: object = field(default=None, compare=False, repr=False)  # the chunk with them
    encoding: Encoding | None = field(default=None, compare=False, repr=False)

    @property
    def bare(self) -> Media:
        """The same without pixels and encoding, which are megabytes."""
        return replace(self, pixels=None, encoding=None)


Item = int | Media
"""What a prompt is made of: tokens, and pictures between them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What stands in a prompt for one picture."""

    items: Sequence[Item]
    width_px: int  # of the upright original
    height_px: int


def cells(items: Sequence[Item]) -> int:
    """Count what items take of the context, pictures too."""
    return sum(item.cells if isinstance(item, Media) else 1 for item in items)


def picture_cells(items: Sequence[Item]) -> int:
    return sum(item.cells for item in items if isinstance(item, Media))


def positions(items: Sequence[Item]) -> int:
    """Count the positions that items take: where the next one stands."""
    return sum(item.positions if isinstance(item, Media) else 1 for item in items)


def bare(items: Sequence[Item]) -> list[Item]:
    return [item.bare if isinstance(item, Media) else item for item in items]


@dataclass(slots=True)
class _Kept:
    """One picture: a look without encodings, and as many of these as there are yet."""

    look: Look
    encodings: dict[int, Encoding] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(encoding.nbytes for encoding in self.encodings.values())

    def whole_look(self) -> Look | None:
        """Give the look with its encodings; None as long as one of them is missing."""
        items = [
            replace(item, encoding=self.encodings.get(item.number))
            if isinstance(item, Media)
            else item
            for item in self.look.items
        ]
        lacking = any(isinstance(item, Media) and item.encoding is None for item in items)
        return None if lacking else replace(self.look, items=items)


class Album:
    """The latest pictures; any thread may use it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[PictureId, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, picture: PictureId) -> Look | None:
        """Give what a prompt needs of a picture, if nothing of it has to be computed again."""
        with self._lock:
            kept = self._used(picture)
            return kept.whole_look() if kept else None

    def begin(self, picture: PictureId, look: Look) -> None:
        """Take in how a picture lies in a prompt; its encodings come one by one."""
        with self._lock:
            if self._used(picture) is None:
                self._kept[picture] = _Kept(replace(look, items=bare(look.items)))
            self._shrink()

    def encoding(self, media: Media) -> Encoding | None:
        with self._lock:
            kept = self._used(media.picture)
            return kept.encodings.get(media.number) if kept else None

    def keep(self, media: Media, encoding: Encoding) -> None:
        with self._lock:
            kept = self._used(media.picture)
            if kept is not None:
                kept.encodings[media.number] = encoding
            self._shrink()

    @property
    def size_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())

    def _used(self, picture: PictureId) -> _Kept | None:
        if picture in self._kept:
            self._kept.move_to_end(picture)
        return self._kept.get(picture)

    def _shrink(self) -> None:
        while len(self._kept) > MOST_PICTURES or self.size_bytes > self._most_bytes:
            self._kept.popitem(last=False)
