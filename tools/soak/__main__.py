"""``python -m tools.soak``: load, kill or cancel, and say whether all is well.

Exit codes: 0 all is well, 1 it is not, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tools.bench.processes import BenchError
from tools.soak import cancel, crash, mix
from tools.soak.report import Report

MINUTES, ROUNDS = 10.0, 3


def main() -> int:
    """Do what the command line says."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="edwin-soak-") as folder:
            report = asyncio.run(_run(options, Path(folder)))
    except BenchError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report)
    if report.faults:
        print(f"{len(report.faults)} faults; the seed was {options.seed}")
    return 1 if report.faults else 0


async def _run(options: argparse.Namespace, folder: Path) -> Report:
    if options.crashes:
        return await crash.run(folder, options.crashes, options.seed)
    if options.cancel:
        return await cancel.run(folder, options.rounds, options.seed)
    return await mix.run(folder, options.minutes, options.seed, series=options.series)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak",
        description="Put a gateway in a process of its own under mixed load, and see "
        "whether anything grows that should not, or any answer is wrong.",
    )
    add = parser.add_argument
    add("--minutes", type=float, default=MINUTES, help=f"of load ({MINUTES:g})")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--crashes",
        type=int,
        metavar="N",
        help="instead, kill it at N random moments, and see whether anything is lost, "
        "repeated or stuck",
    )
    other.add_argument(
        "--cancel",
        action="store_true",
        help="instead, measure how soon the provider sees that an answer was given up",
    )
    add("--rounds", type=int, default=ROUNDS, help=f"of --cancel ({ROUNDS})")
    add("--series", type=Path, metavar="FILE", help="write what --minutes saw, too")
    add("--seed", type=int, help="of all that is chosen (a random one)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(10**6)
    if not 0 < options.minutes <= 24 * 60:
        parser.error("--minutes goes up to a day")
    if not 1 <= options.rounds <= 1000:
        parser.error("--rounds goes from 1 to 1000")
    if options.crashes is not None and not 1 <= options.crashes <= 10_000:
        parser.error("--crashes goes from 1 to 10000")
    return options


if __name__ == "__main__":
    sys.exit(main())
