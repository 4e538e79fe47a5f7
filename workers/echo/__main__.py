"""Say back what is heard, without any engine; for tests, demos and load tests.

With `--port N` it is a plain HTTP server; `--port N --help` tells its switches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

from aiohttp import web

from workers import memory, serve
from workers.echo import loading
from workers.echo.conduct import take_time
from workers.echo.face import Face
from workers.echo.foreign import serve_port
from workers.echo.held import Held
from workers.echo.options import EchoOptions

INTERPRETER_BYTES = 48 * memory.MIB  # the RSS of one that is ready and has no ballast


class Echo:
    """The worker of `python -m workers.echo`."""

    options_type = EchoOptions

    def __init__(self) -> None:
        self._checked: SimpleQueue[EchoOptions] = SimpleQueue()
        self._options = EchoOptions()
        self._held = Held()

    def check(self, options: EchoOptions) -> Sequence[serve.Problem]:
        self._checked.put(options)
        problems = []
        if options.file is not None and not Path(options.file).is_file():
            problems.append(serve.Problem("file", f"no such file: {options.file}"))
        if options.allocate is not None and not Path(options.allocate.path).is_dir():
            told = f"no such folder: {options.allocate.path}"
            problems.append(serve.Problem("allocate.path", told))
        return problems

    def estimate(self, options: EchoOptions) -> memory.Memory:
        allocated_bytes = options.allocate.size_bytes if options.allocate else 0
        return memory.of(
            [
                memory.Part("interpreter", "host", INTERPRETER_BYTES),
                memory.Part("ballast", "host", options.ballast_bytes),
                memory.Part("allocation", "device", allocated_bytes),
            ]
        )

    def prepare(self) -> None:
        """Import nothing, as an echo has no engine, in the time that the options give."""
        take_time(self._checked.get().import_s)

    def load(self, options: EchoOptions, progress: serve.Progress) -> Mapping[str, object]:
        self._options = options
        return loading.load(options, self._held, progress)

    def routes(self) -> Sequence[web.RouteDef]:
        return Face(self._options, self._held).routes()

    def close(self) -> None:
        loading.stop(self._options)


def main() -> None:
    at_port = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    at_port.add_argument("--port", type=int, help="serve plain HTTP on 127.0.0.1 at this port")
    port = at_port.parse_known_args()[0].port
    if port is None:
        serve.run(Echo())
    asyncio.run(serve_port(_switches(at_port), port))


def _switches(at_port: argparse.ArgumentParser) -> EchoOptions:
    """Read the command line of a plain server, or print its help and leave."""
    parser = argparse.ArgumentParser(
        parents=[at_port],
        description=__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for name, field in EchoOptions.model_fields.items():
        is_flag = field.annotation is bool
        parser.add_argument(_as_flag(name), action="store_true" if is_flag else "store")
    parser.add_argument("--options", type=json.loads, default={}, help="the switches, as JSON")
    switches = vars(parser.parse_known_args()[0])
    del switches["port"]
    return EchoOptions.model_validate({**switches.pop("options"), **switches})


def _as_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    main()
