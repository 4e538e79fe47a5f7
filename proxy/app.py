"""The composition root: everything is built and wired here, and only here."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from proxy.bundled import check_options
from proxy.config import Config, Document, Problem
from proxy.errors import StartFailed
from proxy.logs import EventFormatter, HubHandler, LogHub
from proxy.pool import Pool
from proxy.routes import application
from proxy.rundir import run_dir

log = logging.getLogger(__name__)

BACKLOG = 1024
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


@contextmanager
def logging_to(hub: LogHub, level: int) -> Iterator[None]:
    """Send our log to stderr and to the hub for the length of the block."""
    root, before = logging.getLogger("proxy"), logging.getLogger("proxy").level
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), HubHandler(hub)]
    for handler in handlers:
        handler.setFormatter(EventFormatter())
        root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
        root.setLevel(before)


async def check_workers(config: Config, document: Document) -> list[Problem]:
    """Ask every bundled worker's program what is wrong with its models' options and files."""
    problems: list[Problem] = []
    kinds = {model.kind for model in config.models.values()} - {"cmd"}
    for kind in sorted(kinds):
        models = {name: m for name, m in config.models.items() if m.kind == kind}
        options = [model.options for model in models.values()]
        try:
            found = await check_options(kind, options, config.folder)
        except StartFailed as error:
            problems.append(Problem(("models",), error.message))
            continue
        for name, told in zip(models, found, strict=True):
            for option, message in told:
                where = ("models", name, kind, *option.split("."))
                problems.append(Problem(where, message, document.line_of(where)))
    return problems


@dataclass(frozen=True, slots=True)
class Server:
    """A proxy that listens."""

    port: int
    pool: Pool
    runner: web.AppRunner

    async def drain(self, drain_s: float) -> None:
        """Stop listening, and let running requests end within `drain_s`."""
        for site in list(self.runner.sites):
            await site.stop()
        await self.pool.shut_down(drain_s)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on; port 0 is any free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


@asynccontextmanager
async def serving(config: Config, listener: socket.socket) -> AsyncIterator[Server]:
    """Serve on `listener` for the length of the block; afterwards no worker is left."""
    hub = LogHub()
    with listener, logging_to(hub, LEVELS[config.log_level]), run_dir() as folder:
        async with Pool(config, folder, hub) as pool:
            runner = web.AppRunner(
                application(config, pool, hub),
                handler_cancellation=True,  # a client that leaves gives its place back
                access_log=None,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            try:
                await web.SockSite(runner, listener, backlog=BACKLOG).start()
                pool.seat_pinned()
                bound: int = listener.getsockname()[1]
                log.info("serving", extra={"port": bound})
                yield Server(bound, pool, runner)
            finally:
                await runner.cleanup()
