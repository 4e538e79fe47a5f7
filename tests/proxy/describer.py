"""A worker that describes pictures as the pictures say themselves: those of `picture`.

Started as a `cmd:`; `command` gives the line for swap.yaml. GET /asked tells what it was asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

MAGIC = b"\x89PNG\r\n\x1a\n"


def command() -> str:
    """Give the command line that starts it, as a quoted text of YAML."""
    return f"'{sys.executable} {Path(__file__).resolve()} ${{PORT}}'"


def picture(**told: Any) -> bytes:
    """Make a picture that is described so; `status`: as an error; `gate`: once it is open."""
    return MAGIC + json.dumps(told).encode()


def uri(raw: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(raw).decode()}"


asked: list[dict[str, Any]] = []
passed: set[str] = set()  # gates, at each of which is waited once


async def describe(request: web.Request) -> web.Response:
    document = await request.json()
    head, _, coded = document.pop("image").partition(",")
    raw = base64.b64decode(coded)
    asked.append({**document, "head": head, "bytes": len(raw)})
    told = json.loads(raw.removeprefix(MAGIC))
    if (gate := told.pop("gate", None)) and gate not in passed:
        passed.add(gate)
        await asyncio.to_thread(Path(gate).read_bytes)
    if status := told.pop("status", None):
        error = {"message": "told to", "type": "x", "param": None, "code": "told"}
        return web.json_response({"error": error}, status=status)
    return web.json_response(told)


async def tell_asked(_request: web.Request) -> web.Response:
    return web.json_response(asked)


async def be_well(_request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/health", be_well),
            web.get("/asked", tell_asked),
            web.post("/v1/images/descriptions", describe),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
