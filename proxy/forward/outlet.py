"""Where an answer goes out: to the client who asked, or to a place where it is kept for him."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Protocol

from aiohttp import HttpVersion11, web


class Outlet(Protocol):
    """One answer's way out."""

    def begin(
        self, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Make the answer; it is still to be prepared, and then written."""
        ...

    def cut(self, request: web.Request) -> None:
        """Let the answer look broken: nothing more will come."""


class ToClient:
    """The way to who asked."""

    def begin(
        self, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        return web.StreamResponse(status=status, reason=reason, headers=headers)

    def cut(self, request: web.Request) -> None:
        transport = request.transport
        if transport is None:
            return
        if request.version < HttpVersion11:  # it ends with the connection: only RST tells
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
