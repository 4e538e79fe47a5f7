"""One reading of an address, whatever it is spelt like, and what is public."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.config import FetchImages
from proxy.pictures.addresses import Refused, is_allowed, is_public, onward, parse
from proxy.pictures.fetch import own_networks

LOOPBACKS = [
    "http://127.0.0.1/x.png",
    "http://127.1/x.png",
    "http://127.0.1",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0X7F.0x0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.01/",
    "http://127.0.0.1./",
    "http://127%2e0%2E0.1/",
    "http://①②⑦。0。0。1/",
    "http://127\uff0e0\uff610\u30021/",
    "http://\U0001d7d9\U0001d7da\U0001d7df.\U0001d7d8.\U0001d7d8.\U0001d7d9/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:FFFF:127.0.0.1]:80/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "HTTP://127.0.0.1:8080?x=1#y",
    "http://127.0.0.1#@example.com/",
]
NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.255.255.254 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1
198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.255
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:10.0.0.1
64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::808:808 100::1 fc00::1
fd00:ec2::254 fe80::1 fec0::1 ff02::1 ff0e::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1
4000::1 5f00::1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.1.1.1 128.0.0.1
169.253.1.1 172.15.0.1 172.32.0.1 192.0.1.1 192.167.1.1 198.17.1.1 198.20.0.1 223.255.255.254
2606:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""


@pytest.mark.parametrize("url", LOOPBACKS)
def test_an_odd_spelling_ends_where_it_leads(url: str) -> None:
    """It is this machine, and is asked for under its plain address only."""
    target = parse(url)

    assert target.address == ip_address("127.0.0.1")
    assert target.host == "127.0.0.1"
    assert not is_public(target.address)
    assert is_allowed(target, target.address, [ip_network("127.0.0.0/8")])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/x.png",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1:70/_",
        "unix:///var/run/docker.sock",
        "//example.com/x.png",
        "example.com/x.png",
        "http:/example.com",
        "http://",
        "http:///x.png",
        "http://user@example.com/",
        "http://example.com@127.0.0.1/",
        "http://:secret@example.com/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com /",
        "http://exam\nple.com/",
        "\thttp://example.com/",
        "http://127.0.0.1\0.example.com/",
        "http://127.0.0.1%00.example.com/",
        "http://example.com%2f@127.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1",
        "http://::1/",
        "http://[::1]x/",
        "http://[v1.x]/",
        "http://[127.0.0.1]/",
        "http://example..com/",
        "http://.example.com/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:x/",
        "http://example.com:80:80/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://1.2.3.08/",
        "http://0x100000000/",
        "http://1.0x1000000/",
        "http://foo.127/",
        "http://a_℀b.com/",
        "http://example.com/\ud800",
        "http://\ud800.com/",
        f"http://{'a' * 64}.com/",
        f"http://example.com/{'a' * 9000}",
        "",
    ],
)
def test_what_cannot_be_read_in_one_way_is_not_asked(url: str) -> None:
    """In words, and whatever it may have meant."""
    with pytest.raises(Refused, match="its address"):
        parse(url)


def test_who_sends_a_password_is_told_to_leave_it_out() -> None:
    """It is never sent on, and an at sign is the oldest of tricks."""
    with pytest.raises(Refused, match="leave them out"):
        parse("http://user:secret@example.com/")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://example.com", "https://example.com/"),
        ("http://EXAMPLE.com.:8080/a%20b?c=d%2f#e", "http://example.com:8080/a%20b?c=d%2f"),
        ("https://bücher.example/ü.png", "https://xn--bcher-kva.example/%C3%BC.png"),
        ("http://[2606:4700::1111]:81/", "http://[2606:4700::1111]:81/"),
        ("http://my_nas.lan/x?y", "http://my_nas.lan/x?y"),
        ("http://example.com/a@b:c", "http://example.com/a@b:c"),
        ("http://1e100.net/", "http://1e100.net/"),
    ],
)
def test_an_address_is_asked_for_as_it_was_read(url: str, asked: str) -> None:
    """Host in lower case and ASCII, path and query as they came, the fragment left out."""
    assert parse(url).url == asked


@pytest.mark.parametrize(
    "address",
    NOT_PUBLIC.split(),
)
def test_what_is_not_the_public_internet_is_not_public(address: str) -> None:
    """The registries of special addresses, and IPv4 ones within IPv6 ones."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    PUBLIC.split(),
)
def test_the_public_internet_is_public(address: str) -> None:
    """Next to what is not, too, and behind a NAT64 that leads there."""
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_nothing_is_public_that_the_standard_library_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """A second opinion, on any address."""
    meant = getattr(address, "ipv4_mapped", None) or address
    is_special = not meant.is_global or meant.is_multicast or meant.is_reserved

    assert not (is_special and is_public(address)) or address in IPv6Network("64:ff9b::/96")


def test_what_is_near_is_not_public() -> None:
    """A machine reaches itself and its neighbours from behind the firewall."""
    near = [ip_network("2a02:8071::/64"), ip_network("93.184.216.0/24")]

    assert not is_public(ip_address("2a02:8071::5"), near)
    assert not is_public(ip_address("93.184.216.34"), near)
    assert not is_public(ip_address("::ffff:93.184.216.34"), near)
    assert is_public(ip_address("2a02:8071:0:1::5"), near)
    assert ip_network("127.0.0.0/8") in own_networks()


def test_a_list_names_hosts_addresses_and_networks() -> None:
    """A host by its name alone, an address wherever it is found."""
    rules = FetchImages.model_validate(
        {"allow": ["NAS.lan.", "10.1.0.0/16", "192.168.1.7", "[fd00::1]"]}
    )

    def allowed(url: str, address: str) -> bool:
        return is_allowed(parse(url), ip_address(address), rules.allow)

    assert allowed("http://nas.LAN/", "172.16.0.1")
    assert allowed("http://x/", "10.1.2.3")
    assert allowed("http://x/", "::ffff:10.1.2.3")
    assert allowed("http://192.168.1.7/", "192.168.1.7")
    assert allowed("http://[fd00::1]/", "fd00::1")
    assert not allowed("http://evil-nas.lan/", "172.16.0.1")
    assert not allowed("http://nas.lan.evil.com/", "172.16.0.1")
    assert not allowed("http://x/", "10.2.0.1")
    assert not allowed("http://x/", "192.168.1.8")


@pytest.mark.parametrize(
    "entry", ["http://nas.lan", "nas.lan:80", "", "10.0.0.0/33", "1.2.3", "*"]
)
def test_an_entry_that_would_never_match_is_a_mistake(entry: str) -> None:
    """A list that allows less than it seems to is found when it is read."""
    with pytest.raises(ValidationError, match="name of a host, an address, or a network"):
        FetchImages.model_validate({"allow": [entry]})


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b.png", "https://example.com/b.png"),
        ("b.png?x", "https://example.com/a/b.png?x"),
        ("//other.com/b", "https://other.com/b"),
        ("https://127.1/", "https://127.0.0.1/"),
        ("", "https://example.com/a/a.png"),
    ],
)
def test_a_redirect_is_read_like_an_address(location: str, leads_to: str) -> None:
    """Relative ones too."""
    assert onward(parse("https://example.com/a/a.png"), location).url == leads_to


@pytest.mark.parametrize(
    "location", ["http://example.com/", "file:///etc/passwd", "//a@b/", "//[x"]
)
def test_a_redirect_leads_nowhere_that_an_address_may_not(location: str) -> None:
    """Nor out of https."""
    with pytest.raises(Refused):
        onward(parse("https://example.com/a/a.png"), location)
