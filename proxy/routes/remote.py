"""Requests for models of other servers: the connections to them, and the way there."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from proxy.config import Peer, PeerModel
from proxy.forward import Errand, ToPeer, relay
from proxy.process import HEADER_BYTES

IDLE_S = 90.0
"""How long a connection that nobody uses is kept."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The connections: to servers on this machine, and to those elsewhere."""

    near: aiohttp.ClientSession
    far: aiohttp.ClientSession

    def to(self, peer: Peer) -> aiohttp.ClientSession:
        return self.near if _is_near(URL(peer.proxy).host or "") else self.far


SESSIONS = web.AppKey("peers_sessions", Sessions)


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Have connections to peers for as long as the application runs."""
    # only what is elsewhere may lie behind the HTTPS_PROXY of the environment
    async with _session(obeys_environment=False) as near, _session(obeys_environment=True) as far:
        app[SESSIONS] = Sessions(near, far)
        yield


async def ask(errand: Errand, model: PeerModel) -> web.StreamResponse:
    """Let the peer answer. Raises PeerFailed, which names it, or AnswerLate."""
    peer = errand.config.peers[model.peer_id]
    session = errand.request.app[SESSIONS].to(peer)
    return await relay(errand, ToPeer(model.peer_id, peer, session))


def _session(*, obeys_environment: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=obeys_environment,
    )


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
