"""``python -m tools.fuzz``: send requests that are almost right, and see what breaks.

Exit codes: 0 nothing does, 1 something does, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tools.bench.processes import BenchError
from tools.fuzz.round import Round

COUNT = 20_000


def main() -> int:
    """Do what the command line says."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="edwin-fuzz-") as folder:
            return _run(Path(folder), options.count, options.seed)
    except BenchError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(folder: Path, count: int, seed: int) -> int:
    sending = Round(folder, seed)
    began_at = time.monotonic()
    try:
        before, after = asyncio.run(sending.run(count))
    finally:
        sending.stop()
    statuses = sorted(sending.statuses.items())
    print(
        f"{sum(sending.statuses.values())} answers in {_seconds(began_at)} s:", end=""
    )
    print(*(f" {status}: {often}" for status, often in statuses), sep=",")
    print(f"memory: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")
    for fault in sending.faults:
        print(f"FAULT: {fault}")
    return 1 if sending.faults else 0


def _seconds(began_at: float) -> int:
    return round(time.monotonic() - began_at)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description="Send a gateway in a process of its own requests that are almost "
        "right; there must be no 5xx, no answer that is not in its contract, none that "
        "does not come, no error in the log, and no memory that is not given back.",
    )
    add = parser.add_argument
    add("--count", type=int, default=COUNT, help=f"how many requests ({COUNT})")
    add("--seed", type=int, help="of all that is chosen (a random one)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(10**6)
    if not 1 <= options.count <= 10**7:
        parser.error("--count goes from 1 to 10000000")
    return options


if __name__ == "__main__":
    sys.exit(main())
