"""Takes the figures that a user feels, of Hotseat and of a llama-swap beside it.

Both are given the same file in llama-swap's format, whose models are tiny servers that start at
once. Each figure is taken on a proxy that has just started, of one program after the other. They
are of this machine in this minute: compare the columns, not two runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence

from scripts.benchmarks.contest import HOTSEAT, NotUp, Program, serving
from scripts.benchmarks.measures import MEASURES, Rows, Sizes
from scripts.benchmarks.talk import NoAnswer

FAILURES = (NoAnswer, NotUp, OSError, EOFError, ValueError, ExceptionGroup)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Tell the command line what there is to choose."""
    parser.add_argument("--llama-swap", metavar="PATH", help="its program, a whole path")
    parser.add_argument(
        "--only", action="append", choices=MEASURES, help="this figure (may be given again)"
    )
    for name, default, what in (
        ("swaps", 30, "between two models that are up at once"),
        ("slow", 12, "swaps to models that take 0.3 to 3.3 s"),
        ("rounds", 10, "of requests straight and proxied, and of streams"),
        ("requests", 300, "of a round"),
        ("chunks", 100, "of a stream"),
        ("upload-mib", 40, "size of the large body"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    for name, seconds, what in (
        ("seconds", 5.0, "that 16 clients ask together"),
        ("starve-s", 12.0, "after which the starving client gives up"),
    ):
        parser.add_argument(f"--{name}", type=float, default=seconds, help=f"{what} ({seconds})")


def main(args: argparse.Namespace) -> int:
    """Print the table; 1 if a figure could not be taken."""
    programs = [HOTSEAT]
    if args.llama_swap:
        programs.append(Program(os.path.basename(args.llama_swap), [args.llama_swap]))  # noqa: PTH119
    sizes = Sizes(**{name: getattr(args, name) for name in Sizes.__dataclass_fields__})
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| what | {' | '.join(program.name for program in programs)} |")
    print(f"|---|{'--:|' * len(programs)}", flush=True)
    names = [name for name in MEASURES if not args.only or name in args.only]
    complete = [asyncio.run(tell(name, programs, sizes)) for name in names]
    return 0 if all(complete) else 1


async def tell(name: str, programs: Sequence[Program], sizes: Sizes) -> bool:
    """Take one figure of all programs and print its rows; False if one did not give it."""
    columns = [await taken(name, program, sizes) for program in programs]
    told = [column for column in columns if not isinstance(column, str)]
    for what in dict.fromkeys(what for column in told for what in column) or [name]:
        cells = [c if isinstance(c, str) else c[what] for c in columns]
        print(f"| {what} | {' | '.join(cells)} |", flush=True)
    return len(told) == len(columns)


async def taken(name: str, program: Program, sizes: Sizes) -> Rows | str:
    """Take one figure of one program; gives a text if there is none."""
    try:
        async with serving(program, sizes.slow if name == "slow-swap" else 0) as on:
            return await MEASURES[name](on, sizes)
    except FAILURES as error:
        return f"failed: {_first(error)}"


def _first(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".replace("|", "¦")[:120]
