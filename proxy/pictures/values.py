"""What is known of a picture that is kept, and of who has put it there. PURE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.pictures.sniff import EXTENSIONS

NOBODY: Final = ""
"""Who has put a picture there where no key tells who is who."""


@dataclass(frozen=True, slots=True)
class Claim:
    """That somebody has put a picture there: it stays as long as anybody's claim to it."""

    name: str | None
    purpose: str
    created_at: float  # Unix seconds, as all times here: they outlive the process
    keep_s: float | None = None  # shorter than the store would keep it


@dataclass(frozen=True, slots=True)
class Kept:
    """One picture of the store."""

    id: str
    path: Path
    size_bytes: int
    media_type: str
    used_at: float
    claims: Mapping[str, Claim] = field(default_factory=dict)  # by who has put it there

    def ends_at(self, claim: Claim | None, ttl_s: float) -> float:
        """Tell when a claim is over: not used for long, or as its owner has wished."""
        unused = self.used_at + (ttl_s or math.inf)
        if claim is None or claim.keep_s is None:
            return unused
        return min(unused, claim.created_at + claim.keep_s)

    def is_over(self, ttl_s: float, now: float) -> bool:
        """Tell whether nobody's claim holds any more."""
        return all(self.ends_at(one, ttl_s) <= now for one in self.claims.values() or (None,))

    def as_seen_by(self, owner: str, ttl_s: float) -> Stored:
        """Tell of it; what others have called it is their own."""
        claim = self.claims.get(owner)
        since = min((one.created_at for one in self.claims.values()), default=self.used_at)
        ends_at = self.ends_at(claim, ttl_s)
        return Stored(
            id=self.id,
            size_bytes=self.size_bytes,
            media_type=self.media_type,
            created_at=claim.created_at if claim else since,
            name=(claim and claim.name) or f"picture.{EXTENSIONS[self.media_type]}",
            path=self.path,
            purpose=claim.purpose if claim else "vision",
            expires_at=None if math.isinf(ends_at) else ends_at,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture of the store, as one of its users sees it."""

    id: str
    size_bytes: int
    media_type: str
    created_at: float
    name: str
    path: Path  # may go at any time: open it at once, an open file stays readable
    purpose: str
    expires_at: float | None  # None: it stays as long as there is room
