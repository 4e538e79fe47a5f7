"""The composition root: everything is built and wired here, and only here."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from proxy.budget import Devices, budgets_of
from proxy.config import Config, Document, Loaded, Problem
from proxy.demand import Demands
from proxy.errors import StartFailed
from proxy.footprints import Footprints, default_path
from proxy.logs import HubHandler, LogHub
from proxy.memory import Gpus, open_gpus
from proxy.metrics import Metrics
from proxy.pictures import Fetcher, PictureStore
from proxy.pool import Launcher, Pool
from proxy.process import Estimate, check_options
from proxy.refusals import amounts
from proxy.reload import Reloader, Rereading
from proxy.report import Outlook, homes_of, look, trials, with_savers
from proxy.routes import application
from proxy.routes.keys import FETCHER, FILES, RELOADER
from proxy.rundir import run_dir, sweep
from proxy.setup import Setup
from proxy.swaps import SwapLog

log = logging.getLogger(__name__)

BACKLOG = 1024
TIDY_S = 60.0
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


@contextmanager
def logging_to(hub: LogHub, config: Config) -> Iterator[None]:
    """Send our log to the hub, and to stderr as the config says, for the length of the block."""
    root, before = logging.getLogger("proxy"), logging.getLogger("proxy").level
    handler = HubHandler(hub, sys.stderr if config.log_to_stdout in ("proxy", "both") else None)
    root.addHandler(handler)
    set_level(config)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def set_level(config: Config) -> None:
    """Say from now on what is grave enough."""
    logging.getLogger("proxy").setLevel(LEVELS[config.log_level])


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
                problem = Problem(where, one.message)
                problems.append(document.placed(problem) if document else problem)
            if told.memory is not None:
                estimates[name] = told.memory
    return Survey(problems, estimates)


@contextmanager
def opened_devices(config: Config) -> Iterator[Devices]:
    """Open what can be looked at, for the length of the block. Raises NoBudget."""
    with open_gpus() as gpus:
        yield devices_of(config, gpus)


def devices_of(config: Config, gpus: Gpus) -> Devices:
    """Count the devices as the config wants them counted. Raises NoBudget."""
    devices = Devices(gpus, budgets_of(config, gpus))
    homes_of(config, devices)  # complains where there is no such GPU
    return devices


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
    reloader: Reloader

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
    config: Config,
    listener: socket.socket,
    surveyed: Survey | None = None,
    *,
    rereading: Rereading | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """Serve on `listener` for the length of the block; afterwards no worker is left.

    Raises NoBudget when the devices cannot be looked at as the config asks.
    """
    hub, metrics = LogHub(), Metrics()
    swaps = SwapLog(metrics)
    with (
        listener,
        logging_to(hub, config),
        opened_devices(config) as devices,
        run_dir() as folder,
        Fetcher() as fetcher,
    ):
        await asyncio.to_thread(sweep)
        setup = await _first_setup(config, devices, surveyed)
        launcher = Launcher(folder, hub, shows_lines=config.log_to_stdout in ("upstream", "both"))
        async with Pool(setup, launcher, swaps=swaps, metrics=metrics) as pool:
            reloader = Reloader(pool, rereading, partial(_next_setup, pool), set_level)
            face = application(pool, hub, swaps, metrics, folder.path / "answers")
            face[RELOADER], face[FETCHER] = reloader, fetcher
            face[FILES] = await asyncio.to_thread(_opened_files, config, folder.path)
            async with _listening(face, listener, ssl_context) as runner:
                pool.begin()
                bound: int = listener.getsockname()[1]
                log.info("serving", extra={"port": bound, "budget": amounts(pool.standing.budget)})
                pool.run_beside(reloader.run())
                pool.run_beside(_tidying(face[FILES]))
                yield Server(bound, pool, runner, reloader)


def _opened_files(config: Config, folder: Path) -> PictureStore:
    """Open what earlier proxies have kept; without a home pictures live as long as this one."""
    learned = default_path()
    standard = (learned.parent if learned else folder) / "files"
    return PictureStore(config.files_path(standard), config.files)


async def _tidying(files: PictureStore) -> None:
    """Let pictures leave when their time is over, as long as anybody serves them."""
    while True:
        await asyncio.sleep(TIDY_S)  # nobody is told when one is over: it is looked for
        await asyncio.to_thread(files.tidy)


async def _first_setup(config: Config, devices: Devices, surveyed: Survey | None) -> Setup:
    if surveyed is None and devices.budgets:
        surveyed = await survey(config)
    return Setup(
        config, devices, demands_of(config, devices, surveyed.estimates if surveyed else {})
    )


async def _next_setup(pool: Pool, loaded: Loaded) -> tuple[Setup, Sequence[Problem]]:
    """Make what follows from another config: what was opened and learned goes on with it."""
    config, before = loaded.config, pool.setup
    devices = devices_of(config, before.devices.gpus)
    surveyed = await survey(config, loaded.document)
    demands = before.demands.renewed(config, devices, surveyed.estimates)
    return Setup(config, devices, demands), surveyed.problems


@asynccontextmanager
async def _listening(
    face: web.Application, listener: socket.socket, ssl_context: ssl.SSLContext | None
) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(
        face,
        handler_cancellation=True,  # a client that leaves gives its place back
        access_log=None,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=ssl_context, backlog=BACKLOG).start()
        yield runner
    finally:
        await runner.cleanup()
