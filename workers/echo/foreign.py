"""An echo as a plain HTTP server at a port, as any `cmd:` may be one."""

from __future__ import annotations

import asyncio
import os
import signal

from aiohttp import web

from workers import wire
from workers.echo import loading
from workers.echo.conduct import pass_gate, take_time
from workers.echo.face import Face
from workers.echo.held import Held
from workers.echo.options import EchoOptions


async def serve_port(options: EchoOptions, port: int) -> None:
    """Serve on 127.0.0.1 until killed: /health is 503 until the load is done, then 200."""
    loop, held, app = asyncio.get_running_loop(), Held(), wire.application()

    def come_up() -> None:
        take_time(options.import_s)
        loading.load(options, held, lambda _: None)

    def stop() -> None:
        if not options.ignore_sigterm:
            loading.stop(options)
            os._exit(0)

    async def health(_request: web.Request) -> web.Response:
        if options.health_hangs:
            await asyncio.Event().wait()
        return web.Response(status=options.health_status if loaded.done() else 503)

    loop.add_signal_handler(signal.SIGTERM, stop)
    if options.listen_gate is not None:
        await asyncio.to_thread(pass_gate, options.listen_gate)
    loaded = loop.run_in_executor(None, come_up)
    app.router.add_get("/health", health)
    app.add_routes(Face(options, held).routes())
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await loaded
    await asyncio.Event().wait()
