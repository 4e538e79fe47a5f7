"""What a model that judges has said before, the last so many times."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

MOST = 4096


class Verdicts:
    """Labels by text and way of asking; neither can be read out of it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[bytes, str | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @staticmethod
    def key(texts: Iterable[str], way: str) -> bytes:
        """Name a question; `way` is who is asked, and how."""
        digest = hashlib.sha256(way.encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return digest.digest()

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def recall(self, key: bytes) -> str | None:
        """Give what was said; raises KeyError where nothing was."""
        self._known.move_to_end(key)
        return self._known[key]

    def note(self, key: bytes, label: str | None) -> None:
        self._known[key] = label
        while len(self._known) > self._most:
            self._known.popitem(last=False)
