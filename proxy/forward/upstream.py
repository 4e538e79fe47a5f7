"""Who answers a request, as the one who brings it there sees him: a worker of ours, or a peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import aiohttp
from multidict import CIMultiDict, MultiMapping

from proxy.config import Timeouts
from proxy.errors import HotseatError

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 §7.6.1, and those that `Connection` names."""
KEYS = ("authorization", "x-api-key", "api-key")
"""Headers in which clients send a key."""


class NotSent(Exception):
    """The worker could not be reached: it has not seen the request, so another may."""


class Upstream(Protocol):
    """One who answers."""

    @property
    def name(self) -> str:
        """Name him for people."""

    @property
    def url(self) -> str:
        """Tell where he is, without a slash at the end."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """Give the connections to him."""

    @property
    def timeouts(self) -> Timeouts: ...

    @property
    def not_told(self) -> frozenset[str]:
        """Name headers of requests, in small letters, that are not for him."""

    @property
    def not_heard(self) -> frozenset[str]:
        """Name headers of his answers, in small letters, that are not for clients."""

    @property
    def own_headers(self) -> Mapping[str, str]:
        """Give what he is told beside what the client says."""

    def note_head(self, headers: Mapping[str, str]) -> None:
        """See the head of his answer."""

    def note_first_byte(self) -> None:
        """Note that his answer has begun."""

    async def not_reached(self, error: Exception) -> Exception:
        """Make the error for a connection that did not come about."""

    def spoke_nonsense(self, told: str) -> HotseatError:
        """Make the error for an answer that nobody can read."""

    async def broke_off(self, when: str, error: Exception | None = None) -> HotseatError:
        """Make the error for a connection that broke."""

    async def has_died(self) -> bool:
        """Tell at the end of an answer that does not say where it ends whether it is whole."""


def end_to_end(headers: MultiMapping[str], drop: Iterable[str]) -> CIMultiDict[str]:
    """Copy the headers without those that are for one hop only, and without `drop`."""
    named = {
        name.strip().lower()
        for value in headers.getall("Connection", ())
        for name in value.split(",")
    }
    left_out = HOP_BY_HOP.union(named, drop)
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in left_out)
