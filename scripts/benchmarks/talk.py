"""HTTP by hand: a client that costs so little that what a proxy adds can be seen."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

JSON = "application/json"


class NoAnswer(Exception):
    """Something else than 200 came back."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One kept-alive connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(
        self, model: str, path: str = "/v1/chat/completions", filler: int = 0, **wishes: object
    ) -> Mapping[str, Any]:
        """Ask a model and read the whole answer; `wishes` are headers of the worker's.

        `filler` are further bytes of the body. Raises NoAnswer.
        """
        await self.send(path, {"model": model, "prompt": "x" * filler}, **wishes)
        body = b"".join([part async for part in self.parts()])
        told: Mapping[str, Any] = json.loads(body)
        return told

    async def events(self, model: str, **wishes: object) -> AsyncIterator[bytes]:
        """Ask for a stream, and yield its events as they come; comments are none."""
        await self.send("/v1/chat/completions", {"model": model, "stream": True}, **wishes)
        rest = b""
        async for part in self.parts():
            *events, rest = (rest + part).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: "):
                    yield event[6:]

    async def send(self, path: str, body: Mapping[str, object], **headers: object) -> None:
        text = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Content-Type: {JSON}",
            f"Content-Length: {len(text)}",
            *(f"X-{name.capitalize()}: {value}" for name, value in headers.items()),
        ]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + text)
        await self.writer.drain()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        if headers.get("transfer-encoding") == "chunked":
            chunks = [chunk async for chunk in self._chunks()] if " 200 " not in status else None
        else:
            chunks = [await self.reader.readexactly(int(headers.get("content-length", 0)))]
        if " 200 " not in f"{status} ":
            raise NoAnswer(f"{status}: {b''.join(chunks or [])[:200]!r}")
        if chunks is None:
            async for chunk in self._chunks():
                yield chunk
        else:
            yield chunks[0]

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def ask(port: int, model: str, **more: Any) -> Mapping[str, Any]:
    """Ask once, on a connection of its own."""
    async with connected(port) as connection:
        return await connection.ask(model, **more)
