"""Replays mixed workloads through a real proxy with real processes, and prints what they cost.

The workers are echoes that take as long to load and to answer as engines do, `--speed` times as
fast. What is not sped up is the interpreter's own start, about 0.3 s of each load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.benchmarks import decisions, models
from scripts.benchmarks.client import connected, swaps_told
from scripts.benchmarks.report import HEAD, Result, as_data, rows, workers_seen
from scripts.benchmarks.serving import NotServing, hotseat
from scripts.benchmarks.traces import TRACES, Trace

OPEN_FILES = 8192
DECISIONS = "decisions"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Tell the command line what there is to choose."""
    names = [*(trace.name for trace in TRACES), DECISIONS]
    parser.add_argument(
        "--trace", action="append", choices=names, help="only this one (may be given again)"
    )
    parser.add_argument("--speed", type=float, default=10.0, help="times as fast as real engines")
    parser.add_argument(
        "--base-url", help="another proxy with the models that --print-config prints for it"
    )
    parser.add_argument("--print-config", choices=["hotseat", "llama-swap"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="store all figures there")


def main(args: argparse.Namespace) -> int:
    """Run the chosen traces; 1 if one could not be run or a request failed."""
    chosen = [trace for trace in TRACES if not args.trace or trace.name in args.trace]
    if args.print_config:
        print(config_text(args.print_config, chosen, args.speed), end="")
        return 0
    allow_open_files()
    print(f"{os.cpu_count()} CPU cores, {args.speed:g} times as fast as real engines\n")
    results, failed = asyncio.run(run_traces(chosen, args.speed, args.base_url))
    told: dict[str, object] = {"speed": args.speed, "traces": [as_data(r) for r in results]}
    if DECISIONS in args.trace if args.trace else not args.base_url:
        told[DECISIONS] = decisions.measure_and_tell()
    if args.json:
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if failed or any(result.errors for result in results) else 0


def config_text(proxy: str, traces: Sequence[Trace], speed: float) -> str:
    """Write one config with the models of all these traces."""
    all_models = [model for trace in traces for model in trace.models]
    settings = {key: value for trace in traces for key, value in trace.settings.items()}
    if proxy == "hotseat":
        return models.as_yaml(models.hotseat(all_models, speed, settings))
    return models.as_yaml(models.llama_swap(all_models, speed))


def allow_open_files() -> None:
    """Raise the limit for us and the proxy that we start: a crowd is two files a client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def run_traces(
    traces: Sequence[Trace], speed: float, base_url: str | None
) -> tuple[list[Result], Mapping[str, str]]:
    """Run one after the other and print the table as it grows; gives what could not be run too."""
    results: list[Result] = []
    failed: dict[str, str] = {}
    print(HEAD, flush=True)
    for trace in traces:
        try:
            result = await run_trace(trace, speed, base_url)
        except NotServing as error:
            failed[trace.name] = str(error)
            continue
        results.append(result)
        print(*rows(result), sep="\n", flush=True)
    tell_the_rest(results, failed)
    return results, failed


async def run_trace(trace: Trace, speed: float, base_url: str | None) -> Result:
    async with proxy_for(trace, speed, base_url) as url, connected(url, speed) as client:
        client.began, began_at = time.monotonic(), time.time()
        await trace.play(client)
        makespan_s = time.monotonic() - client.began
        told = await swaps_told(client.session, began_at)
    swaps = workers_seen(client.outcomes) if told is None else told
    remark = trace.remark(client.outcomes, speed)
    return Result(trace, makespan_s, swaps, client.outcomes, remark)


@asynccontextmanager
async def proxy_for(trace: Trace, speed: float, base_url: str | None) -> AsyncIterator[str]:
    """Give the URL of a proxy on which nothing is loaded."""
    if base_url is None:
        config = models.as_yaml(models.hotseat(trace.models, speed, trace.settings))
        async with hotseat(config) as url:
            yield url
        return
    async with connected(base_url, speed) as client, client.session.get("/unload"):
        pass
    yield base_url


def tell_the_rest(results: Sequence[Result], failed: Mapping[str, str]) -> None:
    print()
    for result in results:
        print(f"{result.trace.name}: {result.trace.about}. {result.remark}".rstrip())
        for error in sorted(set(result.errors))[:5]:
            print(f"{result.trace.name}: error: {error}", file=sys.stderr)
    for name, why in failed.items():
        print(f"{name}: could not be run: {why}", file=sys.stderr)
