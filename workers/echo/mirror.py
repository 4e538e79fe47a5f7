"""What arrived, told back: for tests of what a proxy passes on, and of what it starts."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aiohttp import WSMessage, WSMsgType, web


class Mirror:
    """Answers every request with the request itself, and a websocket with what it says."""

    def __init__(self, reply: str | None) -> None:
        self._reply = reply
        self._up_at = time.monotonic()

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.get("/process", self._tell_process),
            web.get("/environment/{name}", self._tell_variable),
            web.route("*", "/{path:.*}", self._tell_request),
        ]

    async def _tell_process(self, _request: web.Request) -> web.Response:
        """Tell how the process was started, and when it came up by the system's clock."""
        return web.json_response(
            {
                "pid": os.getpid(),
                "argv": sys.argv[1:],
                "folder": str(Path.cwd()),
                "up_at": self._up_at,
            }
        )

    async def _tell_variable(self, request: web.Request) -> web.Response:
        return web.json_response(os.environ.get(request.match_info["name"]))

    async def _tell_request(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._converse(request)
        return web.json_response(self._heard(request, await request.read()))

    async def _converse(self, request: web.Request) -> web.WebSocketResponse:
        """Tell what arrived, then say back every message until the client closes."""
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in offered.split(",") if name]
        socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0)
        await socket.prepare(request)
        await socket.send_json(self._heard(request, b""))
        async for message in socket:
            await _say_back(socket, message)
        return socket

    def _heard(self, request: web.Request, raw: bytes) -> dict[str, object]:
        return {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[k, v] for k, v in request.headers.items()],
            "body": base64.b64encode(raw).decode(),
            "reply": self._reply,
            "pid": os.getpid(),
        }


async def _say_back(socket: web.WebSocketResponse, message: WSMessage) -> None:
    if message.type is WSMsgType.TEXT:
        await socket.send_str(message.data)
    elif message.type is WSMsgType.BINARY:
        await socket.send_bytes(message.data)
