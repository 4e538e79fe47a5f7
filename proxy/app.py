"""The composition root: everything is built and wired here, and only here."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from proxy.budget import Devices, budgets_of
from proxy.bundled import Estimate, check_options
from proxy.config import Config, Document, Problem
from proxy.demand import Demands
from proxy.errors import StartFailed
from proxy.footprints import Footprints, default_path
from proxy.logs import EventFormatter, HubHandler, LogHub
from proxy.memory import open_gpus
from proxy.metrics import Metrics
from proxy.pool import Pool
from proxy.refusals import amounts
from proxy.report import Outlook, homes_of, look, trials, with_savers
from proxy.routes import application
from proxy.rundir import run_dir
from proxy.swaps import SwapLog

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


@dataclass(frozen=True, slots=True)
class Survey:
    """What the workers' programs say of the models, before any is started."""

    problems: Sequence[Problem]
    estimates: Mapping[str, Estimate]


async def survey(config: Config, document: Document | None = None) -> Survey:
    """Ask each bundled worker's program what is wrong with its models, and what they will hold."""
    problems: list[Problem] = []
    estimates: dict[str, Estimate] = {}
    kinds = {model.kind for model in config.models.values()} - {"cmd"}
    for kind in sorted(kinds):
        models = {name: m for name, m in config.models.items() if m.kind == kind}
        options = [model.options for model in models.values()]
        try:
            checked = await check_options(kind, options, config.folder)
        except StartFailed as error:
            problems.append(Problem(("models",), error.message))
            continue
        for name, told in zip(models, checked, strict=True):
            for one in told.problems:
                where = ("models", name, kind, *one.option.split("."))
                line = document.line_of(where) if document else None
                problems.append(Problem(where, one.message, line))
            if told.memory is not None:
                estimates[name] = told.memory
    return Survey(problems, estimates)


@contextmanager
def opened_devices(config: Config) -> Iterator[Devices]:
    """Open what can be looked at, for the length of the block. Raises NoBudget."""
    with open_gpus() as gpus:
        devices = Devices(gpus, budgets_of(config, gpus))
        homes_of(config, devices)  # complains where there is no such GPU
        yield devices


def demands_of(config: Config, devices: Devices, estimates: Mapping[str, Estimate]) -> Demands:
    """Gather what is known of the models' memory."""
    footprints = Footprints(config.footprints_path(default_path()))
    return Demands(config, devices, estimates, footprints)


async def outlook(config: Config, estimates: Mapping[str, Estimate]) -> Outlook:
    """Reckon what the models will need, what there is, and what would help. Raises NoBudget."""
    with open_gpus() as gpus:

        def seen(config: Config, estimates: Mapping[str, Estimate]) -> Outlook:
            return look(config, gpus, estimates, lambda on: demands_of(config, on, estimates))

        told = seen(config, estimates)
        variants = trials(config, told)
        surveyed = await survey(variants)
        return with_savers(config, told, seen(variants, surveyed.estimates))


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
async def serving(
    config: Config, listener: socket.socket, surveyed: Survey | None = None
) -> AsyncIterator[Server]:
    """Serve on `listener` for the length of the block; afterwards no worker is left.

    Raises NoBudget when the devices cannot be looked at as the config asks.
    """
    hub, metrics = LogHub(), Metrics()
    with (
        listener,
        logging_to(hub, LEVELS[config.log_level]),
        run_dir() as folder,
        opened_devices(config) as devices,
    ):
        if surveyed is None and devices.budgets:
            surveyed = await survey(config)
        demands = demands_of(config, devices, surveyed.estimates if surveyed else {})
        swaps = SwapLog(metrics)
        async with Pool(
            config, folder, hub=hub, devices=devices, demands=demands, swaps=swaps, metrics=metrics
        ) as pool:
            runner = web.AppRunner(
                application(pool, hub, swaps, metrics),
                handler_cancellation=True,  # a client that leaves gives its place back
                access_log=None,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            try:
                await web.SockSite(runner, listener, backlog=BACKLOG).start()
                pool.seat_pinned()
                bound: int = listener.getsockname()[1]
                log.info("serving", extra={"port": bound, "budget": amounts(pool.standing.budget)})
                yield Server(bound, pool, runner)
            finally:
                await runner.cleanup()
