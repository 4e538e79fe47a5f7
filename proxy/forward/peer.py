"""Another server as one who answers: it gets its own key, and none that was meant for us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from proxy.config import Peer, Timeouts
from proxy.errors import HotseatError, PeerFailed
from proxy.forward.upstream import KEYS

CREDENTIALS = frozenset({*KEYS, "cookie"})
"""Meant for us, if for anybody: another server never sees them."""


@dataclass(frozen=True, slots=True)
class ToPeer:
    """The way of requests to one peer."""

    peer_id: str
    peer: Peer
    session: aiohttp.ClientSession
    not_told: frozenset[str] = CREDENTIALS
    not_heard: frozenset[str] = frozenset({"set-cookie"})

    @property
    def name(self) -> str:
        return f"the peer {self.peer_id}"

    @property
    def url(self) -> str:
        return self.peer.proxy

    @property
    def timeouts(self) -> Timeouts:
        return self.peer.timeouts

    @property
    def own_headers(self) -> Mapping[str, str]:
        if self.peer.api_key is None:
            return {}
        key = self.peer.api_key.get_secret_value()
        return {"Authorization": f"Bearer {key}", "x-api-key": key}

    def note_head(self, headers: Mapping[str, str]) -> None:
        """Nothing in it concerns us."""

    def note_first_byte(self) -> None:
        """Nobody waits for that."""

    async def not_reached(self, error: Exception) -> Exception:
        return PeerFailed(f"{self.name} cannot be reached: {_said(error)}")

    def spoke_nonsense(self, told: str) -> HotseatError:
        return PeerFailed(f"{self.name} {told}")

    async def broke_off(self, when: str, error: Exception | None = None) -> HotseatError:
        return PeerFailed(f"{self.name} broke off {when}: {_said(error)}")

    async def has_died(self) -> bool:
        return False  # nothing more is to be known of it


def _said(error: Exception | None) -> str:
    return str(error) or type(error).__name__
