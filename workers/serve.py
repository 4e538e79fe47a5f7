"""The shell that bundled workers share: the contract of the package docstring, kept once."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar, runtime_checkable

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from workers import lifeline, memory, wire
from workers.memory import Memory
from workers.readahead import read_ahead, weights_of
from workers.status import StatusPipe

log = logging.getLogger(__name__)

Reason = Literal[
    "bad_options", "bad_file", "not_installed", "out_of_memory", "engine_error", "crashed"
]
Progress = Callable[[float], None]
"""Takes the part that is loaded, 0 to 1; callable from any thread, as often as one likes."""

NO_HOST_MEMORY = "the host has no memory left"
NO_THREAD = "can't start new thread"  # for want of room for its stack
BACKLOG = 4096  # connections that may come while the loop is busy; the kernel's own bound


class Options(BaseModel):
    """What a model's entry in swap.yaml may say to its worker; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one option, and what to do; `option` is a dotted path."""

    option: str
    message: str
    reason: Reason = "bad_file"


class LoadFailed(Exception):
    """The model cannot be loaded; `detail` is told to the client."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


OptionsT = TypeVar("OptionsT", bound=Options)
OptionsT_contra = TypeVar("OptionsT_contra", bound=Options, contravariant=True)


class Worker(Protocol[OptionsT]):
    """What a worker program brings to `run`. Nothing here but `load` may touch the device."""

    options_type: type[OptionsT]

    def check(self, options: OptionsT) -> Sequence[Problem]:
        """Find what is wrong without the engine: files, their heads, clashing options.

        It runs before anything is evicted for this model, and in `--check`.
        """

    def prepare(self) -> None:
        """Import what is slow to import. Runs in a thread. Raises ImportError."""

    def load(self, options: OptionsT, progress: Progress) -> Mapping[str, object]:
        """Load and warm up; runs in a thread. Returns facts to tell. Raises LoadFailed."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Name the HTTP face; asked once, after `load`. Paths are literal."""

    def close(self) -> None:
        """Stop the engine's work soon. Called on SIGTERM; the process exits right after."""


@runtime_checkable
class Estimator(Protocol[OptionsT_contra]):
    """A worker that can tell what a load will take."""

    def estimate(self, options: OptionsT_contra) -> Memory:
        """Reckon it without the engine, in milliseconds.

        It is asked only of options without problems, and raises for nothing that a file holds.
        """


def run(worker: Worker[Any]) -> NoReturn:
    """Be the worker program: read the command line and keep the contract until the end."""
    parser = argparse.ArgumentParser(description=sys.modules[type(worker).__module__].__doc__)
    parser.add_argument("--socket", help="path of the unix socket to serve on")
    parser.add_argument("--status-fd", type=int, help="descriptor to write status lines to")
    parser.add_argument("--check", action="store_true", help="check options on stdin and exit")
    args = parser.parse_args()
    if args.check:
        _check_lines(worker)
    if args.socket is None or args.status_fd is None:
        parser.error("--socket and --status-fd are needed (the proxy gives them), or --check")
    stdin = lifeline.take()
    lifeline.watch(stdin)
    shell = Shell(worker, args.socket, StatusPipe(args.status_fd))
    status = asyncio.run(shell.serve(stdin))
    if status == 0:  # stdin has ended
        lifeline.die()
    # os._exit, not sys.exit: an engine's threads must not meet a half torn down interpreter
    os._exit(status)


def problems_of(
    worker: Worker[OptionsT], line: str | bytes
) -> tuple[OptionsT | None, list[Problem]]:
    """Parse one options line and check it; the options are None when they cannot be read."""
    try:
        options = worker.options_type.model_validate_json(line)
    except ValidationError as error:
        return None, [
            Problem(".".join(str(p) for p in e["loc"]), e["msg"], "bad_options")
            for e in error.errors(include_url=False)
        ]
    return options, list(worker.check(options))


class Shell(Generic[OptionsT]):
    """One worker process: its socket, its status pipe, its way from options to ready."""

    def __init__(self, worker: Worker[OptionsT], socket: str, status: StatusPipe) -> None:
        self._worker = worker
        self._socket = socket
        self._status = status
        self._state: dict[str, object] = {"status": "waiting"}
        self._face: web.Application | None = None
        self._stop = asyncio.Event()

    async def serve(self, stdin_fd: int) -> int:
        """Serve until SIGTERM or until stdin ends. Returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the proxy's business
        runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=0
        )
        await runner.setup()
        await web.UnixSite(runner, self._socket, backlog=BACKLOG).start()
        lines = await _open_lines(stdin_fd)
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(self._live(lines))
            stopped = tasks.create_task(self._stop.wait())
            await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                self._worker.close()
                os._exit(0)
            stopped.cancel()
        return life.result()

    async def _live(self, lines: asyncio.StreamReader) -> int:
        """Go from the options to ready, and live on until the lifeline ends."""
        try:
            await self._become_ready(lines)
            await lines.read()  # what comes after `load` is nothing but EOF
        except LoadFailed as failure:
            self._status.say("failed", reason=failure.reason, detail=failure.detail)
            return 1
        return 0

    async def _become_ready(self, lines: asyncio.StreamReader) -> None:
        with _failures_told():
            imports = _start_thread(self._worker.prepare)
            options_line = await _next_line(lines)
            options, problems = problems_of(self._worker, options_line)
        if options is None or problems:
            raise LoadFailed(
                problems[0].reason, "; ".join(f"{p.option}: {p.message}" for p in problems)
            )
        self._status.say("checked")
        with _failures_told():
            await imports
        self._status.say("imported")
        with _failures_told():
            _start_thread(lambda: self._read_ahead(json.loads(options_line)))
        await _next_line(lines)
        lifeline.name_process()
        self._state = {"status": "loading"}
        self._status.progress(0.0)
        with _failures_told():
            facts = await _start_thread(lambda: self._worker.load(options, self._status.progress))
            face = wire.application()
            face.add_routes(self._worker.routes())
        face.freeze()
        self._face = face
        self._state = {"status": "ok", **facts}
        self._status.say("ready", facts=dict(facts))

    def _read_ahead(self, options: Mapping[str, object]) -> None:
        """Have the files ready for the load; what fails here, fails there with better words."""
        with suppress(OSError):
            took_s = read_ahead(weights_of(options), memory.available_bytes())
            if took_s is not None:
                self._status.say("read", seconds=round(took_s, 3))

    def _application(self) -> web.Application:
        """Answer /health at all times, and everything else once the worker is ready."""
        app = wire.application()
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response(self._state, status=200 if self._face else 503)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        if self._face is None:
            raise wire.ApiError(503, "the model is still loading", code="loading")
        match = await self._face.router.resolve(request)
        if match.http_exception is not None:
            raise match.http_exception
        return await match.handler(request)


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turn whatever a worker raises on its way to ready into LoadFailed."""
    try:
        yield
    except LoadFailed:
        raise
    except MemoryError as error:
        raise LoadFailed("out_of_memory", NO_HOST_MEMORY) from error
    except ImportError as error:
        told = f"{error}; run: pip install 'hotseat[{lifeline.program()}]' (README, Install)"
        raise LoadFailed("not_installed", told) from error
    except Exception as error:  # an engine may raise anything, and the client must be told
        if NO_THREAD in str(error):
            raise LoadFailed("out_of_memory", f"{NO_HOST_MEMORY}: {error}") from error
        log.exception("start_failed")
        raise LoadFailed("engine_error", f"{type(error).__name__}: {error}") from error


def _start_thread(work: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run `work` in a daemon thread, which never keeps the process from exiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(done: Callable[[Any], None], value: object) -> None:
        if not future.cancelled():
            done(value)

    def body() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # handed to the waiter, whatever it is
            loop.call_soon_threadsafe(tell, future.set_exception, error)
        else:
            loop.call_soon_threadsafe(tell, future.set_result, result)

    threading.Thread(target=body, daemon=True, name=getattr(work, "__name__", "work")).start()
    return future


async def _open_lines(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader


async def _next_line(lines: asyncio.StreamReader) -> bytes:
    line = await lines.readline()
    if not line.endswith(b"\n"):
        lifeline.die()
    return line


def _check_lines(worker: Worker[Any]) -> NoReturn:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_checked(worker, line)) + "\n")
    sys.exit(0)


def _checked(worker: Worker[Any], line: str) -> dict[str, object]:
    options, problems = problems_of(worker, line)
    told = [{"option": p.option, "message": p.message} for p in problems]
    memory = None
    if options is not None and not problems and isinstance(worker, Estimator):
        memory = worker.estimate(options).as_json()
    return {"problems": told, "memory": memory}
