"""Fetches a picture that a request names, from nowhere but where that is meant to be possible.

A name is resolved once, all that it resolves to is judged, and the connection is made to what was
judged: who answers for the name cannot change his mind in between. A redirect begins all anew.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Final, Self

import aiohttp
import psutil
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.config import FetchImages
from proxy.errors import BadRequest
from proxy.pictures.addresses import (
    Address,
    Network,
    Refused,
    Target,
    is_allowed,
    is_public,
    onward,
    parse,
)
from proxy.pictures.sniff import EXTENSIONS, HEAD_BYTES, sniff
from proxy.units import as_size

AT_ONCE: Final = 4
"""So many are fetched at a time, each held in memory: the others wait."""
MOVED: Final = frozenset({301, 302, 303, 307, 308})
OK: Final = 200
HEADERS: Final = {
    "Accept": ", ".join(EXTENSIONS),
    "Accept-Encoding": "identity",  # what is small when it comes is small in memory
    "User-Agent": "Hotseat",  # some servers turn away who does not say who he is
}
NOT_PUBLIC: Final = (
    "its address leads to no public host; only those are asked, and what fetchImages.allow names"
)
"""The only words for a host that is not asked: they do not tell whether there is one."""
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Give the addresses that a name has. Raises OSError where it has none."""


class Failed(Exception):
    """It was asked for, and did not come; the message says why."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """The picture is elsewhere."""

    location: str


class Fetcher:
    """Fetches pictures, a few at a time. Use it as a context."""

    def __init__(
        self, resolve: Resolve | None = None, near: Callable[[], Iterable[Network]] | None = None
    ) -> None:
        """`resolve` takes the place of the system's resolver, `near` of a look at our networks."""
        self._threads = ThreadPoolExecutor(
            AT_ONCE, "resolve"
        )  # a slow resolver stops nothing else
        self._resolve = resolve or self._ask_system
        self._near = near or own_networks
        self._turns = asyncio.Semaphore(AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str, rules: FetchImages, *, param: str | None = None) -> bytes:
        """Fetch a picture, whole. Raises BadRequest.

        Its code is `image_fetch_refused` for what is not asked at all, `image_fetch_failed` for
        what was asked in vain.
        """
        try:
            async with self._turns, asyncio.timeout(rules.timeout):
                return await self._follow(url, rules)
        except Refused as error:
            why, code = str(error), "image_fetch_refused"
        except Failed as error:
            why, code = str(error), "image_fetch_failed"
        except TimeoutError:
            why = f"it was not there after {rules.timeout:g} s (fetchImages.timeout)"
            code = "image_fetch_failed"
        told = f"the picture cannot be fetched: {why}; or send it as a data: URI"
        raise BadRequest(told, param=param, code=code)

    async def _follow(self, url: str, rules: FetchImages) -> bytes:
        target = parse(url)
        for _ in range(rules.redirects + 1):
            found = await self._ask(target, await self._judged(target, rules), rules)
            if isinstance(found, bytes):
                return found
            target = onward(target, found.location)
        raise Failed(f"it was moved more than {rules.redirects} times (fetchImages.redirects)")

    async def _judged(self, target: Target, rules: FetchImages) -> Sequence[Address]:
        """Find out where it leads; all of that must be somewhere to ask. Raises Refused."""
        if target.address is not None:
            addresses: Sequence[Address] = [target.address]
        else:
            try:
                addresses = [ip_address(one) for one in await self._resolve(target.host)]
            except (OSError, ValueError):
                addresses = []
        near = tuple(self._near())
        if not addresses or not all(
            is_allowed(target, one, rules.allow) or is_public(one, near) for one in addresses
        ):
            raise Refused(NOT_PUBLIC)
        return addresses

    async def _ask(
        self, target: Target, addresses: Sequence[Address], rules: FetchImages
    ) -> bytes | _Moved:
        """Ask the very addresses that were judged. Raises Failed."""
        url = URL(target.url, encoded=True)  # what is signed must stay as it is
        connector = aiohttp.TCPConnector(
            resolver=_Judged(addresses), use_dns_cache=False, force_close=True, ssl=self._tls
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=aiohttp.ClientTimeout(total=None),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,  # a proxy of the environment would resolve for itself
                ) as session,
                session.get(url, headers=HEADERS, allow_redirects=False) as answer,
            ):
                return await _taken(answer, rules.max_bytes)
        except (aiohttp.ClientError, OSError, ValueError):
            raise Failed("its server cannot be reached, or broke off") from None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def _ask_system(self, name: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(one[4][0]) for one in found))


class _Judged(AbstractResolver):
    """Resolves whatever is asked to what was judged."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._addresses = tuple(addresses)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002  # all that was judged
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(one),
                port=port,
                family=socket.AF_INET6 if isinstance(one, IPv6Address) else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in self._addresses
        ]

    async def close(self) -> None:
        """Have nothing to close."""


async def _taken(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes | _Moved:
    """Take the picture as it comes. Raises Failed as soon as it is none, or too much."""
    if answer.status in MOVED:
        return _Moved(answer.headers.get("Location", ""))
    if answer.status != OK:
        raise Failed(f"its server answered {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Failed("its server sent it compressed, which was not asked for")
    raw = bytearray()
    if (answer.content_length or 0) > most_bytes:
        raise Failed(_too_large(most_bytes))
    async for piece in answer.content.iter_any():
        raw += piece
        if len(raw) > most_bytes:
            raise Failed(_too_large(most_bytes))
        if len(raw) >= HEAD_BYTES and sniff(bytes(raw[:HEAD_BYTES])) is None:
            break
    if sniff(bytes(raw[:HEAD_BYTES])) is None:
        raise Failed("what its server sent is no picture that is known here")
    return bytes(raw)


def _too_large(most_bytes: int) -> str:
    return f"it is larger than {as_size(most_bytes)} (fetchImages.maxBytes)"


def own_networks() -> list[Network]:
    """List the networks that this machine is in: public addresses may be behind our firewall.

    A machine reaches its own addresses, and its neighbours', where the internet does not.
    """
    return [
        network
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family in (socket.AF_INET, socket.AF_INET6)
        and (network := _network(one.address, one.netmask)) is not None
    ]


def _network(address: str, mask: str | None) -> Network | None:
    bare = address.partition("%")[0]
    try:
        bits = int(ip_address(mask)).bit_count() if mask else None
        interface: IPv4Interface | IPv6Interface = ip_interface(
            bare if bits is None else f"{bare}/{bits}"
        )
    except ValueError:
        return None
    return interface.network if interface.network.prefixlen else None
