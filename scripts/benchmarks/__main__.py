"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import sys

from scripts.benchmarks import eyes, images, looks, schedule, swap


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("figures", help="what a request and a swap cost, for the README (default)")
    schedule.add_to(
        commands.add_parser("schedule", help="mixed workloads", description=schedule.__doc__)
    )
    swap.add_to(
        commands.add_parser("swap", help="Hotseat and llama-swap", description=swap.__doc__)
    )
    eyes.add_to(
        commands.add_parser("eyes", help="descriptions on a CPU", description=eyes.__doc__)
    )
    images.add_to(
        commands.add_parser("images", help="the image worker", description=images.__doc__)
    )
    looks.add_to(commands.add_parser("looks", help="pictures in chats", description=looks.__doc__))
    args = parser.parse_args()
    if args.command == "looks":
        return looks.main(args)
    if args.command == "images":
        return images.main(args)
    if args.command == "eyes":
        return eyes.main(args)
    if args.command == "swap":
        return swap.main(args)
    if args.command == "schedule":
        return schedule.main(args)
    from scripts.benchmarks import figures  # noqa: PLC0415  # it serves in this process

    figures.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
