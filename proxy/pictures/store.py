"""Pictures by content: a picture that is put twice is there once, and is found by its reference.

Who knows a reference may have the picture: it is as hard to guess as a key. A list shows only what
its reader has put there himself, and only he may take that back. A picture leaves when nobody has
used it for long, when all who have put it there have taken it back, and when others need the room.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from proxy.config import FilesConfig, Owner
from proxy.errors import BadRequest, BodyTooLarge, NotKept
from proxy.pictures import folder
from proxy.pictures.incoming import Incoming
from proxy.pictures.sniff import EXTENSIONS, sniff
from proxy.pictures.values import NOBODY, Claim, Kept, Stored
from proxy.units import as_size

log = logging.getLogger(__name__)

MOST_KEPT: Final = 10_000
VISION: Final = "vision"
NO_PICTURE: Final = f"the file is no picture that is known here: {', '.join(sorted(EXTENSIONS))}"
NO_ROOM: Final = "the picture cannot be kept: {}; send it in the request itself instead"
_NAME: Final = re.compile(r"(?:file-)?[0-9a-f]{32}|[0-9a-f]{64}")


class PictureStore:
    """The pictures of a folder, as far as there is room. Any thread may call; nothing waits long.

    It opens even where nothing can be kept: then only what is put there fails.
    """

    def __init__(
        self,
        path: Path,
        settings: FilesConfig,
        *,
        most_kept: int = MOST_KEPT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds, as the times of files are."""
        self.settings = settings
        self._path = path
        self._most_kept = most_kept
        self._clock = clock
        self._lock = threading.Lock()  # what is known and what lies there change as one
        self._has_warned = False
        self._pictures: dict[str, Kept] = {}  # longest unused first
        try:
            self._pictures = {one.id: one for one in folder.found(path)}
        except OSError as error:
            self._warn(error)
        self.tidy()

    def put(self, raw: bytes, name: str | None = None, owner: Owner | None = None) -> Stored:
        """Keep a picture; what is there already is not written again. Blocks for an fsync.

        Raises BadRequest `not_a_picture`, BodyTooLarge, NotKept.
        """
        claim = Claim(name, VISION, self._clock())
        with self._lock, self._telling():
            known = self._used(_reference(hashlib.sha256(raw).hexdigest()))
            if known is not None:
                return self._claimed(known, claim, owner)
        with self.incoming() as incoming:
            self.take(incoming, raw)
            return self.keep(incoming, claim, owner)

    def incoming(self) -> Incoming:
        """Begin a picture that comes piece by piece. Raises NotKept."""
        with self._telling():
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Incoming(self._path)

    def take(self, incoming: Incoming, piece: bytes) -> None:
        """Write its next bytes. Raises BodyTooLarge, NotKept."""
        most_bytes = min(self.settings.max_file_bytes, self.settings.max_bytes)
        if incoming.size_bytes + len(piece) > most_bytes:
            told = f"the file is larger than {as_size(most_bytes)}; send a smaller picture"
            raise BodyTooLarge(f"{told} or raise files.maxFileBytes", code="file_too_large")
        with self._telling():
            incoming.write(piece)

    def keep(self, incoming: Incoming, claim: Claim, owner: Owner | None) -> Stored:
        """Keep what has come. Blocks for an fsync. Raises BadRequest `not_a_picture`, NotKept."""
        media_type = sniff(incoming.head)
        if media_type is None:
            raise BadRequest(NO_PICTURE, param="file", code="not_a_picture")
        with self._telling():
            incoming.sync()
            with self._lock:
                reference = _reference(incoming.digest)
                kept = self._used(reference)
                if kept is None:
                    path = self._path / reference
                    size_bytes = incoming.size_bytes
                    incoming.become(path)
                    new = Kept(reference, path, size_bytes, media_type, self._noted(path))
                    kept = self._put_last(new)  # it takes room, even if it gets no label
                return self._claimed(kept, claim, owner)

    def find(self, told: str, owner: Owner | None = None) -> Stored | None:
        """Find a picture by its reference or its SHA-256 in hex; that counts as a use of it."""
        if not _NAME.fullmatch(told):
            return None
        with self._lock:
            kept = self._used(_reference(told.removeprefix("file-")))
        return kept.as_seen_by(owner or NOBODY, self.settings.ttl) if kept else None

    def of(self, owner: Owner | None) -> list[Stored]:
        """List what the owner has put there, oldest first."""
        who, ttl_s, now = owner or NOBODY, self.settings.ttl, self._clock()
        with self._lock:
            his = [
                kept.as_seen_by(who, ttl_s)
                for kept in self._pictures.values()
                if who in kept.claims and kept.ends_at(kept.claims[who], ttl_s) > now
            ]
        return sorted(his, key=lambda one: (one.created_at, one.id))

    def drop(self, reference: str, owner: Owner | None) -> bool:
        """Take back what the owner has put there; False: that is not there. Raises NotKept."""
        with self._lock, self._telling("the file cannot be taken back: {}"):
            kept = self._pictures.get(reference)
            if kept is None or (owner or NOBODY) not in kept.claims:
                return False
            claims = {who: one for who, one in kept.claims.items() if who != (owner or NOBODY)}
            if claims:
                folder.label(kept.path, claims)
                self._pictures[reference] = replace(kept, claims=claims)
            else:
                kept.path.unlink(missing_ok=True)  # who is told that it is gone must not be wrong
                self._remove(reference)
            return True

    def tidy(self) -> None:
        """Remove what is over, and the longest unused where there is more than there is room."""
        with self._lock:
            now = self._clock()
            for kept in list(self._pictures.values()):
                if kept.is_over(self.settings.ttl, now):
                    self._remove(kept.id)
            self._make_room()

    def _make_room(self) -> None:
        size_bytes = sum(one.size_bytes for one in self._pictures.values())
        while size_bytes > self.settings.max_bytes or len(self._pictures) > self._most_kept:
            longest_unused = next(iter(self._pictures.values()))
            size_bytes -= longest_unused.size_bytes
            self._remove(longest_unused.id)

    def _used(self, reference: str) -> Kept | None:
        """Find it if its time is not over, and note that it was asked for."""
        kept = self._pictures.get(reference)
        if kept is None or kept.is_over(self.settings.ttl, self._clock()):
            return None
        try:
            return self._put_last(replace(kept, used_at=self._noted(kept.path)))
        except FileNotFoundError:  # another proxy needed the room
            del self._pictures[reference]
            return None

    def _noted(self, path: Path) -> float:
        """Note on the file when it is used, for who opens the store next."""
        now = self._clock()
        try:
            os.utime(path, (now, now))
        except FileNotFoundError:
            raise
        except OSError as error:  # a folder that may only be read
            log.debug("use_not_noted", extra={"path": str(path), "error": str(error)})
        return now

    def _claimed(self, kept: Kept, claim: Claim, owner: Owner | None) -> Stored:
        """Note who has put it there. Raises OSError."""
        claims = {**kept.claims, (owner or NOBODY): claim}
        folder.label(kept.path, claims)
        kept = self._put_last(replace(kept, claims=claims))
        self._make_room()
        self._has_warned = False
        return kept.as_seen_by(owner or NOBODY, self.settings.ttl)

    def _put_last(self, kept: Kept) -> Kept:
        self._pictures.pop(kept.id, None)
        self._pictures[kept.id] = kept
        return kept

    def _remove(self, reference: str) -> None:
        folder.remove(self._pictures.pop(reference).path)

    @contextmanager
    def _telling(self, told: str = NO_ROOM) -> Iterator[None]:
        """Say in words that the folder cannot change: to who wanted it, and once in the log."""
        try:
            yield
        except OSError as error:
            self._warn(error)
            raise NotKept(told.format(error.strerror or error)) from None

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            extra = {"path": str(self._path), "error": str(error)}
            log.warning("pictures_not_kept", extra=extra)
        self._has_warned = True


def _reference(digest: str) -> str:
    return f"file-{digest[:32]}"
