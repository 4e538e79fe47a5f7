"""Where the address of a picture leads, and whether that is somewhere public. PURE.

There is one reading of an address, this one: the host is taken apart as browsers do it (the URL
standard's host parser), put together anew, and only what came of that is ever asked or connected
to. So an odd spelling is no way around a rule; it ends where it leads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias
from urllib.parse import quote, unquote, urljoin, urlsplit

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MOST_CHARACTERS: Final = 8192
UNREADABLE: Final = "its address names no host that can be read"
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_NEVER: Final = re.compile(r"[\x00-\x20\x7f\\]")
_PLACE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@]+))(?::([0-9]{1,5}))?")
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_NUMBER: Final = re.compile(r"0x(?P<hex>[0-9a-f]*)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*)")
_IPV4_PARTS, _PORT_END = 4, 1 << 16

# The IANA registries of special-purpose addresses, as far as they are not the public internet
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(one)
    for one in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and where clouds tell a machine its secrets
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols' own
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_6: Final = IPv6Network("2000::/3")
"""All global unicast; loopback, unique local, link-local and multicast addresses are outside."""
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(one)
    for one in (
        "2001::/23",  # Teredo, which hides an IPv4 address, and protocols' own
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which hides an IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """What is never fetched; the message says why and tells nothing of what lies there."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an address leads: `host` is a name in lower case, or an address as it is written."""

    scheme: str
    host: str
    port: int | None
    tail: str  # path and query, in ASCII
    address: Address | None  # when the host is one

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.tail}"


def parse(url: str) -> Target:
    """Read an address. Raises Refused."""
    if len(url) > MOST_CHARACTERS:
        raise Refused(f"its address has more than {MOST_CHARACTERS} characters")
    if _NEVER.search(url):
        raise Refused("its address holds a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        tail = quote(f"{parts.path or '/'}{query}", safe=_ASCII, errors="surrogateescape")
    except ValueError:
        raise Refused("its address cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise Refused("its address does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise Refused("its address holds a user or a password; leave them out")
    place = _PLACE.fullmatch(parts.netloc)
    if place is None:
        raise Refused(UNREADABLE)
    host, address = _host(*place.group(1, 2))
    return Target(parts.scheme, host, _port(place[3]), tail, address)


def onward(before: Target, location: str) -> Target:
    """Read where a redirect leads. Raises Refused."""
    try:
        target = parse(urljoin(before.url, location))
    except ValueError:
        raise Refused("it was moved to an address that cannot be read") from None
    if (before.scheme, target.scheme) == ("https", "http"):
        raise Refused("it was moved from https to http")
    return target


def is_allowed(target: Target, address: Address, allow: Iterable[Network | str]) -> bool:
    """Tell whether the config names the host or the address as one that may be asked."""
    meant = plain(address)
    return any(
        target.host == one if isinstance(one, str) else meant in one or address in one
        for one in allow
    )


def is_public(address: Address, near: Iterable[Network] = ()) -> bool:
    """Tell whether it is on the public internet, and in none of the networks that are near."""
    meant = plain(address)
    if any(meant in one or address in one for one in near):
        return False
    if isinstance(meant, IPv4Address):
        return not any(meant in one for one in _NOT_PUBLIC_4)
    return meant in _PUBLIC_6 and not any(meant in one for one in _NOT_PUBLIC_6)


def plain(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for where both lead to the same host."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _port(told: str | None) -> int | None:
    if told is not None and not 0 < int(told) < _PORT_END:
        raise Refused("its address has no such port")
    return None if told is None else int(told)


def _host(six: str | None, told: str | None) -> tuple[str, Address | None]:
    address = _ipv6(six) if six is not None else None
    if address is None:
        name = _name(told or "")
        address = _ipv4(name)
        if address is None:
            return name, None
    return str(address), address


def _ipv6(text: str) -> Address:
    try:
        return plain(IPv6Address(text))
    except AddressValueError:
        raise Refused(UNREADABLE) from None


def _name(told: str) -> str:
    """Write a name in ASCII and lower case: digits and dots of any script are digits and dots."""
    try:
        name = unquote(told, errors="strict").encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise Refused(UNREADABLE)
    return name


def _ipv4(name: str) -> IPv4Address | None:
    """Read 127.1, 0x7f.1, 017700000001 and 2130706433 too; None: it is a name."""
    *first, last = name.split(".")
    if not (last.isdecimal() or _NUMBER.fullmatch(last)):
        return None
    numbers = [_number(part) for part in first]
    rest_bits = 8 * (_IPV4_PARTS - len(first))
    if rest_bits <= 0 or any(one >> 8 for one in numbers) or _number(last) >> rest_bits:
        raise Refused(UNREADABLE)
    high = int.from_bytes(bytes(numbers), "big") << rest_bits
    return IPv4Address(high | _number(last))


def _number(text: str) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise Refused(UNREADABLE)
    if found["hex"] is not None:
        return int(found["hex"] or "0", 16)
    return int(found["octal"], 8) if found["octal"] else int(found["decimal"])
