"""The command line: `hotseat serve`, `hotseat check` and `hotseat import`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shlex
import signal
import ssl
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxy import app, report
from proxy.budget import NoBudget
from proxy.config import (
    ConfigError,
    Loaded,
    Problem,
    Source,
    absent_programs,
    load_config,
    render,
    understood,
)
from proxy.moving import move
from proxy.reload import Rereading

USAGE = """\
hotseat [serve] [--config swap.yaml] [--config-dir DIR] [--listen 127.0.0.1:8080]
                [--watch-config] [--compat] [--tls-cert-file FILE --tls-key-file FILE]
hotseat check [--config swap.yaml] [--config-dir DIR] [--compat] [--memory]
hotseat import --from config.yaml [--to swap.yaml]
hotseat --version"""
STANDARD_CONFIG, OTHER_CONFIG = Path("swap.yaml"), Path("config.yaml")
UNDONE = {"serve": "nothing was started", "check": "", "import": "nothing was written"}
STANDARD_PORT, STANDARD_TLS_PORT = 8080, 8443


def main(argv: list[str] | None = None) -> None:
    """Run the command; exits with 1 when the config has mistakes, 2 on a wrong command line."""
    parser = _parser()
    args = parser.parse_args(_with_command(sys.argv[1:] if argv is None else argv))
    if args.command == "serve" and bool(args.tls_cert_file) != bool(args.tls_key_file):
        parser.error("--tls-cert-file and --tls-key-file go together: give both or none")
    if args.command != "import" and not (args.config or args.config_dir):
        args.config = _standard_config()
    command = {"serve": _serve, "check": _check, "import": _import}[args.command]
    try:
        sys.exit(asyncio.run(command(args)))
    except ConfigError as error:
        _tell(error, UNDONE[args.command])
        sys.exit(1)
    except NoBudget as error:
        _say(f"{_source(args).main}: {'.'.join(error.where)}: {error}")
        sys.exit(1)


def _with_command(words: list[str]) -> list[str]:
    """Serve where only flags are given, as llama-swap does."""
    is_bare = not words or words[0].startswith("-")
    asks = {"-h", "--help", "-version", "--version"}
    return ["serve", *words] if is_bare and asks.isdisjoint(words) else words


def _standard_config() -> Path:
    """Name the file that is read when none is named."""
    if STANDARD_CONFIG.exists() or not OTHER_CONFIG.exists():
        return STANDARD_CONFIG
    _say(f"{OTHER_CONFIG} is read, as there is no {STANDARD_CONFIG}")
    return OTHER_CONFIG


def _tell(error: ConfigError, undone: str) -> None:
    """Say what is wrong with a file, how much of it, and what may help."""
    for warning in error.warnings:
        _say(f"warning: {render(error.path, warning)}")
    _say(str(error))
    count = len(error.problems)
    is_read = any(problem.where or problem.line for problem in error.problems)
    counted = f"{count} mistake(s) in {error.path}" if is_read else ""
    if counted or undone:
        _say("; ".join(part for part in (counted, undone) if part))
    if is_read and not error.is_all:
        _say("what else there may be is seen when that is mended")
    if passing := sum(problem.passes for problem in error.problems):
        them = "it" if count == 1 else f"{'one' if passing == 1 else passing} of them"
        gone = "it is" if passing == 1 else "they are"
        _say(f"llama-swap would let {them} pass; with --compat {gone} left out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotseat", description="One GPU, many models.", usage=USAGE
    )
    told = f"hotseat {version('hotseat')}"
    parser.add_argument("--version", "-version", action="version", version=told)
    commands = parser.add_subparsers(dest="command", required=True, prog="hotseat")
    serve = commands.add_parser("serve", help="serve the models of a config file")
    check = commands.add_parser("check", help="tell every mistake in a config file")
    for command in (serve, check):
        _add(command, "config", type=Path, metavar="FILE")
        _add(command, "config-dir", type=Path, metavar="DIR")
        _add(command, "compat", action="store_true")
    _add(serve, "listen", type=_address, metavar="HOST:PORT")
    _add(serve, "watch-config", action="store_true")
    _add(serve, "tls-cert-file", type=Path, metavar="FILE")
    _add(serve, "tls-key-file", type=Path, metavar="FILE")
    _add(check, "memory", action="store_true")
    moving = commands.add_parser("import", help="make a swap.yaml of a llama-swap file")
    _add(moving, "from", dest="source", type=Path, required=True, metavar="FILE")
    _add(moving, "to", dest="target", type=Path, metavar="FILE")
    return parser


HELP = {
    "config": "the config file (swap.yaml, or config.yaml if only that is there)",
    "config-dir": "a directory whose .yml and .yaml files are read too, by name",
    "compat": "warn of what llama-swap would let pass, leave it out and go on",
    "listen": "where to serve (127.0.0.1:8080, or 127.0.0.1:8443 with TLS)",
    "watch-config": "read the config again when it changes",
    "tls-cert-file": "the certificate, with its chain, to serve HTTPS",
    "tls-key-file": "the certificate's key",
    "memory": "tell what each model needs, and what fits",
    "from": "the llama-swap file, which stays as it is",
    "to": "the file to write, which must not be there yet (without it: the output)",
}


def _add(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Add a flag that may be written with one dash too, as Go's are."""
    parser.add_argument(f"--{name}", f"-{name}", help=HELP[name], **options)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # `:8080` asks for it


def _bracketed(host: str) -> str:
    """Write a host as a URL has it."""
    return f"[{host}]" if ":" in host else host


def _source(args: argparse.Namespace) -> Source:
    return Source(args.config, args.config_dir)


async def _check(args: argparse.Namespace) -> int:
    source = _source(args)
    loaded = load_config(source, compat=args.compat)
    config, document = loaded.config, loaded.document
    surveyed = await app.survey(config, document)
    if surveyed.problems:
        raise ConfigError(source.main, surveyed.problems)
    names = ", ".join(config.models)
    sys.stdout.write(f"{source.main}: {len(config.models)} model(s), no mistakes: {names}\n")
    sys.stdout.write(document.hidden(understood(config)))
    absent = [document.placed(problem) for problem in absent_programs(config, os.environ)]
    notes = sorted((*loaded.notes, *absent), key=lambda note: (str(note.path), note.line or 0))
    for kind, problems in (("warning", loaded.warnings), ("note", notes)):
        for problem in problems:
            sys.stdout.write(f"{kind}: {render(source.main, problem)}\n")
    return await _check_memory(loaded, surveyed) if args.memory else 0


async def _check_memory(loaded: Loaded, surveyed: app.Survey) -> int:
    outlook = await app.outlook(loaded.config, surveyed.estimates)
    sys.stdout.write(f"\n{report.text(outlook)}")
    return 1 if outlook.too_big or outlook.trouble else 0


async def _import(args: argparse.Namespace) -> int:
    moved = move(args.source)
    if args.target is None:
        sys.stdout.write(moved.text)
    else:
        try:
            with args.target.open("x", encoding="utf-8") as file:
                file.write(moved.text)
        except OSError as error:
            _say(f"{args.target}: cannot be written: {error.strerror}")
            return 1
    for note in moved.notes:
        _say(note)
    bundled = f"{moved.bundled_count} of {moved.model_count} models bundled"
    if args.target is None:
        _say(f"{bundled}; write it to a file with: --to swap.yaml")
    else:
        how = f"hotseat check --config {shlex.quote(str(args.target))}"
        _say(f"wrote {args.target}: {bundled}; check it with: {how}")
    return 0


def _allow_many_connections() -> None:
    """Use as many descriptors as the system lets us: each waiting client takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(args: argparse.Namespace) -> int:
    _allow_many_connections()
    source = _source(args)
    loaded = load_config(source, compat=args.compat)
    surveyed = await app.survey(loaded.config, loaded.document)
    _warn(source, (*loaded.warnings, *surveyed.problems))
    try:
        tls = _tls(args)
    except (OSError, ssl.SSLError) as error:
        _say(f"{args.tls_cert_file}, {args.tls_key_file}: cannot be used for TLS: {error}")
        return 1
    host, port = args.listen or ("127.0.0.1", STANDARD_TLS_PORT if tls else STANDARD_PORT)
    try:
        listener = app.listen(host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        _say(f"cannot listen on {_bracketed(host)}:{port}: {reason}; choose another with --listen")
        return 1
    rereading = Rereading(
        read=lambda: load_config(source, compat=args.compat),
        files=source.files,
        is_watched=args.watch_config,
    )
    async with app.serving(
        loaded.config, listener, surveyed, rereading=rereading, ssl_context=tls
    ) as server:
        url = f"{'https' if tls else 'http'}://{_bracketed(host)}:{server.port}"
        count = len(loaded.config.models)
        _say(f"Hotseat serves {count} model(s) at {url}/v1  (stop: Ctrl-C)")
        await _until_stopped(server)
    return 0


def _warn(source: Source, problems: Iterable[Problem]) -> None:
    for problem in problems:
        _say(f"warning: {render(source.main, problem)}")


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    """Read the certificate, if there is one. Raises OSError and SSLError."""
    if args.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.tls_cert_file, args.tls_key_file)
    return context


async def _until_stopped(server: app.Server) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the drain at once.

    SIGHUP reads the config again.
    """
    loop, asked, hurried = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurried if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, server.reloader.ask, "SIGHUP")
    await asked.wait()
    drain_s = server.pool.config.shutdown_timeout
    _say(f"stopping; running requests have {drain_s:g} s (again: now)")
    async with asyncio.TaskGroup() as tasks:
        drained = tasks.create_task(server.drain(drain_s))
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
