"""Pictures from elsewhere: real servers, a real name server, and every trick that is known."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError, FetchImages, load_config, understood
from proxy.errors import BadRequest
from proxy.pictures import Fetcher

PNG = b"\x89PNG\r\n\x1a\n" + b"." * 100
LOOPBACK = ["127.0.0.0/8"]
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


def rules(**keys: object) -> FetchImages:
    return FetchImages.model_validate({"allow": LOOPBACK, "timeout": 5, **keys})


def whole(raw: bytes, *headers: str) -> bytes:
    lines = "".join(f"{one}\r\n" for one in (*headers, f"Content-Length: {len(raw)}"))
    return OK + lines.encode() + b"\r\n" + raw


def moved(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class Server:
    """A server that answers each path with the very bytes it was given, and keeps what it got."""

    port: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    came: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)

    def url(self, path: str = "/x.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            try:
                await self.converse(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        self.came.put_nowait(head)
        path = head.split()[1].decode()
        writer.write(self.answers.get(path, whole(PNG)))
        await writer.drain()
        while path.startswith("/drip"):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)  # a drip is what it has to be


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving_pictures() as one:
        yield one


@contextlib.asynccontextmanager
async def serving_pictures(
    tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    one = Server()
    listening = await asyncio.start_server(one.answer, host, 0, ssl=tls)
    one.port = listening.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        listening.close()
        for task in one.tasks:
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)


class Names(asyncio.DatagramProtocol):
    """A name server (RFC 1035) that has one A record for each answer, the last one for ever."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.asked.append(data[12:-4])
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        head = data[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 0, 4) + socket.inet_aton(address)
        self.transport.sendto(head + data[12:] + record, sender)


async def ask_names(port: int, name: str) -> Sequence[str]:
    """Ask the name server as a resolver does, each time anew."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        sock.connect(("127.0.0.1", port))
        labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
        question = labels + b"\0" + struct.pack(">2H", 1, 1)
        await loop.sock_sendall(sock, b"\0\1" + struct.pack(">5H", 0x100, 1, 0, 0, 0) + question)
        return [socket.inet_ntoa((await loop.sock_recv(sock, 512))[-4:])]


@contextlib.asynccontextmanager
async def naming(
    *answers: str,
) -> AsyncIterator[tuple[Names, Callable[[str], Awaitable[Sequence[str]]]]]:
    """Have a name server, and a resolver that asks it."""
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(
        lambda: Names(answers), ("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    try:
        yield names, lambda name: ask_names(port, name)
    finally:
        transport.close()


async def why_not(fetcher: Fetcher, url: str, its_rules: FetchImages) -> tuple[str, str]:
    """Fetch in vain; give the code and the words."""
    with pytest.raises(BadRequest) as refused:
        await fetcher.fetch(url, its_rules, param="messages")
    assert refused.value.param == "messages"
    return refused.value.told_code, refused.value.message


async def test_a_picture_comes_as_it_is_and_tells_nothing_of_us(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cookie, no key, no proxy of the environment, nothing compressed."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Fetcher() as fetcher:
        raw = await fetcher.fetch(server.url("/a%20b.png?c=%2f"), rules())
    head = server.asked[0].decode().splitlines()

    assert raw == PNG
    assert head[0] == "GET /a%20b.png?c=%2f HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in head[1:] if line}
    assert names <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert "Accept-Encoding: identity" in head


async def test_nothing_that_is_not_public_is_asked_unless_it_is_allowed(server: Server) -> None:
    """Not in any spelling; and what is there cannot be told from what is not."""
    spellings = ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "localhost."]
    spellings += ["[::ffff:127.0.0.1]", "①②⑦。0。0。1", "0", "[::1]", "[::]"]
    with Fetcher() as fetcher:
        told = {await why_not(fetcher, server.url(host=one), rules(allow=[])) for one in spellings}
        nobody = await why_not(fetcher, "http://127.0.0.1:1/x.png", rules(allow=[]))
        cloud = await why_not(fetcher, "http://169.254.169.254/latest/meta-data/", rules(allow=[]))
        absent = await why_not(fetcher, "http://there-is.invalid/", rules(allow=[]))
        file = await why_not(fetcher, "file:///etc/passwd", rules())

    assert server.asked == []
    assert told == {nobody} == {cloud} == {absent}
    assert nobody[0] == file[0] == "image_fetch_refused"
    assert "fetchImages.allow" in nobody[1]


async def test_a_host_may_be_allowed_by_its_name(server: Server) -> None:
    """And then only under that name."""
    with Fetcher() as fetcher:
        raw = await fetcher.fetch(server.url(host="localhost"), rules(allow=["localhost"]))
        other = await why_not(fetcher, server.url(), rules(allow=["localhost"]))

    assert raw == PNG
    assert other[0] == "image_fetch_refused"


async def test_a_name_that_changes_its_mind_is_held_to_its_first_word(server: Server) -> None:
    """Rebinding: judged as public, it must not be this machine when the connection is made."""
    # 127.9.9.9 stands for a public host: it is allowed, and nobody listens there
    async with naming("127.9.9.9", "127.0.0.1") as (names, resolve):
        with Fetcher(resolve) as fetcher:
            allowed = rules(allow=["127.9.9.9"])
            first = await why_not(fetcher, server.url(host="rebind.example"), allowed)
            second = await why_not(fetcher, server.url(host="rebind.example"), allowed)

    assert names.asked == [b"\6rebind\7example\0"] * 2  # once each time
    assert (first[0], second[0]) == ("image_fetch_failed", "image_fetch_refused")
    assert server.asked == []


async def test_the_connection_goes_to_what_was_judged_and_bears_the_name() -> None:
    """The host's name is in the request, whoever is connected to."""
    async with (
        serving_pictures(host="127.0.0.2") as server,
        naming("127.0.0.2", "127.0.0.1") as (names, resolve),
    ):
        with Fetcher(resolve) as fetcher:
            raw = await fetcher.fetch(server.url(host="Some.Example."), rules())

    assert raw == PNG
    assert len(names.asked) == 1
    assert f"Host: some.example:{server.port}\r\n".encode() in server.asked[0]


async def test_one_bad_address_among_good_ones_is_enough(server: Server) -> None:
    """A name with a public and a private address is not asked at all."""

    async def resolve(_: str) -> Sequence[str]:
        return ["127.0.0.1", "10.0.0.1"]

    with Fetcher(resolve) as fetcher:
        code, _ = await why_not(fetcher, server.url(host="both.example"), rules())

    assert (code, server.asked) == ("image_fetch_refused", [])


async def test_a_redirect_is_judged_like_the_first_address(server: Server) -> None:
    """To this machine, to a file, to a name that leads here: none of them is asked."""
    async with serving_pictures(host="127.0.0.2") as outside:
        for number, location in enumerate(
            [server.url(), f"http://127.1:{server.port}/", "file:///etc/passwd", "http://[::1]/"]
        ):
            outside.answers[f"/{number}"] = moved(location)
        with Fetcher() as fetcher:
            only = rules(allow=["127.0.0.2"])
            url = outside.url(host="127.0.0.2")
            told = [await why_not(fetcher, url.replace("/x.png", f"/{n}"), only) for n in range(4)]

    assert {code for code, _ in told} == {"image_fetch_refused"}
    assert len(outside.asked) == 4
    assert server.asked == []


async def test_redirects_are_followed_so_far_and_no_further(server: Server) -> None:
    """Relative ones too; a circle ends."""
    server.answers |= {"/1": moved("/2"), "/2": moved(server.url("/x.png")), "/o": moved("/o")}
    with Fetcher() as fetcher:
        raw = await fetcher.fetch(server.url("/1"), rules(redirects=2))
        far = await why_not(fetcher, server.url("/1"), rules(redirects=1))
        server.asked.clear()
        circle = await why_not(fetcher, server.url("/o"), rules())

    assert raw == PNG
    assert far[0] == circle[0] == "image_fetch_failed"
    assert len(server.asked) == 4


async def test_what_is_too_large_is_cut_where_it_is_too_large(server: Server) -> None:
    """By its own word, by what comes, and in chunks; nothing is unpacked."""
    server.answers |= {
        "/told": OK + b"Content-Length: 10000000000\r\n\r\n" + PNG,
        "/comes": OK + b"\r\n" + PNG + bytes(1 << 20),
        "/chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n400000\r\n" + PNG + bytes(1 << 20),
        "/packed": whole(PNG, "Content-Encoding: gzip"),
    }
    small = rules(maxBytes="64KiB")
    with Fetcher() as fetcher:
        told = {path: await why_not(fetcher, server.url(path), small) for path in server.answers}

    assert {code for code, _ in told.values()} == {"image_fetch_failed"}
    assert "compressed" in told.pop("/packed")[1]
    assert all("64 KiB (fetchImages.maxBytes)" in message for _, message in told.values())


async def test_what_is_no_picture_is_not_taken_whatever_it_is_called(server: Server) -> None:
    """A secret of an allowed host is no picture either; a picture needs no right name."""
    server.answers |= {
        "/page": whole(b"<html>" + b"." * 100, "Content-Type: image/png"),
        "/empty": whole(b"", "Content-Type: image/png"),
        "/drip-text": OK + b"\r\nthis goes on for ever and is no picture at all, as can be seen"
        b" from its first bytes",
        "/gone": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "/broken": OK + b"Content-Length: 1000\r\n\r\n" + PNG,
        "/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    }
    with Fetcher() as fetcher:
        told = {path: await why_not(fetcher, server.url(path), rules()) for path in server.answers}
        server.answers["/named"] = whole(PNG, "Content-Type: text/html")
        raw = await fetcher.fetch(server.url("/named"), rules())

    assert {code for code, _ in told.values()} == {"image_fetch_failed"}
    assert ["no picture" in told[path][1] for path in ("/page", "/empty", "/drip-text")] == [
        1,
        1,
        1,
    ]
    assert "answered 404" in told["/gone"][1]
    assert told["/broken"] == told["/garbage"]
    assert raw == PNG


async def test_a_drip_is_cut_by_the_deadline(server: Server) -> None:
    """A byte now and then is no reason to wait on."""
    server.answers["/drip"] = OK + b"\r\n" + PNG
    began = asyncio.get_running_loop().time()
    with Fetcher() as fetcher:
        code, message = await why_not(fetcher, server.url("/drip"), rules(timeout="300ms"))
    took_s = asyncio.get_running_loop().time() - began

    assert code == "image_fetch_failed"
    assert "0.3 s (fetchImages.timeout)" in message
    assert 0.3 <= took_s < 3


async def test_so_many_are_fetched_at_a_time(server: Server) -> None:
    """The others wait, and are served."""
    server.answers["/drip"] = OK + b"\r\n" + PNG
    slow = rules(timeout="300ms")
    with Fetcher() as fetcher:
        async with asyncio.TaskGroup() as tasks:
            cut = [
                tasks.create_task(why_not(fetcher, server.url("/drip"), slow)) for _ in range(4)
            ]
            for _ in cut:
                await server.came.get()
            raw = await fetcher.fetch(server.url(), slow)
            were_cut = [task.done() for task in cut]

    assert raw == PNG
    assert any(were_cut)
    assert all(task.result()[0] == "image_fetch_failed" for task in cut)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for a name, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
                "-addext",
                f"subjectAltName=DNS:{name}",
            ),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_the_certificate_must_be_the_name_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever address it led to; https never leads to http."""
    cert, key = await asyncio.to_thread(certificate, tmp_path, "some.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)

    async with serving_pictures(tls) as server, naming("127.0.0.1") as (_, resolve):
        server.answers["/down"] = moved("http://some.example/")
        with Fetcher(resolve) as fetcher:
            url = server.url(host="some.example").replace("http:", "https:")
            raw = await fetcher.fetch(url, rules())
            other = await why_not(fetcher, url.replace("some.", "other."), rules())
            down = await why_not(fetcher, url.replace("/x.png", "/down"), rules())

    assert raw == PNG
    assert (other[0], down[0]) == ("image_fetch_failed", "image_fetch_refused")
    assert "from https to http" in down[1]


@pytest.mark.parametrize("key", ["fetchImages", "fetch_images"])
def test_fetching_is_off_unless_it_is_turned_on(tmp_path: Path, key: str) -> None:
    """By a word, or by its own section."""

    def read(text: str) -> FetchImages | None:
        path = tmp_path / "swap.yaml"
        path.write_text(f"{{{text} models: {{a: {{echo: {{}}}}}}}}")
        return load_config(path).config.fetch_images

    told = read(f"{key}: {{allow: [nas.lan], max_bytes: 1MiB, timeout: 3s, redirects: 0}},")

    assert read("") is read(f"{key}: false,") is None
    assert read(f"{key}: true,") == FetchImages()
    assert told is not None
    assert (told.allow, told.max_bytes, told.timeout) == (("nas.lan",), 1 << 20, 3.0)


def test_what_was_understood_tells_whom_we_ask(tmp_path: Path) -> None:
    """`hotseat check` says it of the fetching and of the files."""
    path = tmp_path / "swap.yaml"
    path.write_text(
        "fetchImages: {allow: [nas.lan, 10.0.0.0/8]}\nfiles: {dir: pictures}\n"
        "models: {a: {echo: {}}}"
    )
    told = understood(load_config(path).config)

    assert "fetches pictures from public hosts, nas.lan, 10.0.0.0/8, up to 20 MiB each" in told
    assert "files in pictures, up to 1.0 GiB" in told


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fetchImages: {allow: [nas.lan, 'http://x']}", "fetchImages.allow.1: must be the name"),
        ("fetch_images: {timeout: 0}", "fetch_images.timeout: must be greater than 0"),
        ("fetchImages: sure", "fetchImages: must be a mapping"),
        ("fetchImages: {redirect: 1}", "did you mean redirects?"),
        ("files: {maxBytes: lots}", "files.maxBytes: "),
        ("files: {dir: ''}", "files.dir: must be a path"),
    ],
)
def test_a_mistake_in_these_sections_has_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """As all mistakes of the file have."""
    path = tmp_path / "swap.yaml"
    path.write_text(f"models: {{a: {{echo: {{}}}}}}\n{text}\n")
    with pytest.raises(ConfigError) as wrong:
        load_config(path)

    assert f"{path.name}:2: " in str(wrong.value)
    assert complaint in str(wrong.value)
