"""A worker whose answers the tests write themselves, and that talks over websockets as told.

Started as a `cmd:`; `command` gives the line for swap.yaml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aiohttp import WSMessage, WSMsgType, web


def command() -> str:
    """Give the command line that starts it, as a quoted text of YAML."""
    return f"'{sys.executable} {Path(__file__).resolve()} ${{PORT}}'"


async def answer(request: web.Request) -> web.Response:
    """Answer with what the request's own body says."""
    asked = await request.json()
    kind = asked.get("content_type", "application/json")
    response = web.Response(text=asked["answer"], content_type=kind)
    if asked.get("is_zipped"):
        response.enable_compression(web.ContentCoding.gzip)
    return response


async def be_well(_request: web.Request) -> web.Response:
    return web.Response()


async def deny(_request: web.Request) -> web.Response:
    return web.Response(status=403)


async def tell_path(request: web.Request) -> web.Response:
    return web.json_response({"path": request.raw_path, "host": request.host})


async def count(request: web.Request) -> web.Response:
    """Count the bytes of a body, and forget them."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return web.json_response({"received_bytes": size})


async def talk(request: web.Request) -> web.WebSocketResponse:
    """Say back what is heard, or the Host, but for the words that are told below."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    protocols = [name.strip() for name in offered.split(",") if name]
    socket = web.WebSocketResponse(
        autoping=False, autoclose=False, max_msg_size=0, protocols=protocols[-1:]
    )
    await socket.prepare(request)
    while not socket.closed:
        message = await socket.receive()
        match message.type:
            case WSMsgType.TEXT:
                await hear(socket, request.host if message.data == "host" else message.data)
            case WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            case WSMsgType.PING:
                await socket.send_str(f"pinged {message.data.decode()}")
                await socket.pong(message.data)
            case WSMsgType.PONG:
                await socket.send_str(f"ponged {message.data.decode()}")
            case _:
                await end(socket, message)
    return socket


async def hear(socket: web.WebSocketResponse, text: str) -> None:
    match text.split():
        case ["die"]:
            os._exit(9)
        case ["ping"]:
            await socket.ping(b"p")
        case ["close", code, why]:
            await socket.close(code=int(code), message=why.encode())
        case _:
            await socket.send_str(text)


async def end(socket: web.WebSocketResponse, message: WSMessage) -> None:
    """Say a last word after the other side has said its own."""
    if message.type == WSMsgType.CLOSE:
        await socket.send_str(f"heard {message.data} {message.extra}")
    await socket.close(code=4002, message=b"and goodbye")


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/health", be_well),
            web.get("/talk", talk),
            web.get("/deny", deny),
            web.post("/count", count),
            web.post("/{path:.*}", answer),
            web.get("/{path:(?s:.*)}", tell_path),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
