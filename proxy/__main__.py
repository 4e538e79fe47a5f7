"""The command line: `hotseat serve` and `hotseat check`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from proxy import app, report
from proxy.budget import NoBudget
from proxy.config import Config, ConfigError, load_config

USAGE = """\
hotseat serve [--config swap.yaml] [--listen 127.0.0.1:8080]
hotseat check [--config swap.yaml] [--memory]"""


def main(argv: list[str] | None = None) -> None:
    """Run the command; exits with 1 when the config has mistakes, 2 on a wrong command line."""
    args = _parser().parse_args(argv)
    command = {"serve": _serve, "check": _check}[args.command]
    try:
        sys.exit(asyncio.run(command(args)))
    except ConfigError as error:
        _say(str(error))
        _say(f"{len(error.problems)} mistake(s) in {error.path}; nothing was started")
        sys.exit(1)
    except NoBudget as error:
        _say(f"{args.config}: {'.'.join(error.where)}: {error}")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotseat", description="One GPU, many models.", usage=USAGE
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the models of a config file")
    check = commands.add_parser("check", help="tell every mistake in a config file")
    for command in (serve, check):
        command.add_argument("--config", type=Path, default=Path("swap.yaml"), metavar="FILE")
    serve.add_argument("--listen", type=_address, default=("127.0.0.1", 8080), metavar="HOST:PORT")
    check.add_argument(
        "--memory", action="store_true", help="tell what each model needs, and what fits"
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # `:8080` asks for it


async def _check(args: argparse.Namespace) -> int:
    config, document = load_config(args.config)
    surveyed = await app.survey(config, document)
    if surveyed.problems:
        raise ConfigError(args.config, surveyed.problems)
    names = ", ".join(config.models)
    sys.stdout.write(f"{args.config}: {len(config.models)} model(s), no mistakes: {names}\n")
    return await _check_memory(config, surveyed) if args.memory else 0


async def _check_memory(config: Config, surveyed: app.Survey) -> int:
    outlook = await app.outlook(config, surveyed.estimates)
    sys.stdout.write(f"\n{report.text(outlook)}")
    return 1 if outlook.too_big or outlook.trouble else 0


def _allow_many_connections() -> None:
    """Use as many descriptors as the system lets us: each waiting client takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(args: argparse.Namespace) -> int:
    _allow_many_connections()
    config, document = load_config(args.config)
    surveyed = await app.survey(config, document)
    for problem in surveyed.problems:
        _say(f"warning: {args.config}:{problem.line}: {problem}")
    host, port = args.listen
    try:
        listener = app.listen(host, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        _say(f"cannot listen on {host}:{port}: {reason}; choose another with --listen")
        return 1
    async with app.serving(config, listener, surveyed) as server:
        url = f"http://{host}:{server.port}"
        _say(f"Hotseat serves {len(config.models)} model(s) at {url}/v1  (stop: Ctrl-C)")
        await _until_stopped(server, config)
    return 0


async def _until_stopped(server: app.Server, config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the drain at once."""
    loop, asked, hurried = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurried if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asked.wait()
    _say(f"stopping; running requests have {config.shutdown_timeout:g} s (again: now)")
    async with asyncio.TaskGroup() as tasks:
        drained = tasks.create_task(server.drain(config.shutdown_timeout))
        hurry = tasks.create_task(hurried.wait())
        await asyncio.wait({drained, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            server.pool.kill()
        hurry.cancel()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
