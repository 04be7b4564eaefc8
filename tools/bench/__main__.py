"""``python -m tools.bench``: measure, print the table, say whether it counts.

Exit codes: 0 done, 1 it failed, 2 the command line is wrong, 3 the run is void: the
floor measured against itself did not come out the same.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tools.bench import report, results, rounds
from tools.bench.figures import Measure
from tools.bench.measures import MEASURES, WARM_UP
from tools.bench.processes import BenchError

# Rounds that are taken for each one that is to be undisturbed.
TRIES = 3


def main() -> int:
    """Measure, as the command line says."""
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    taken = {}
    try:
        with rounds.Stage(seconds=options.seconds) as stage:
            rounds.take(WARM_UP, stage, 1, _tell)
            for measure in options.measures:
                taken[measure.name] = rounds.take(
                    measure, stage, options.rounds, _tell, tries=options.tries
                )
            apart = stage.cores.apart
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    rows = [
        results.compare(measure.name, figure, taken[measure.name])
        for measure in options.measures
        for figure in measure.figures
    ]
    faults = results.faults(rows, taken)
    document = report.document(
        rows, taken, faults, seconds=options.seconds, apart=apart
    )
    print(report.table(rows), report.words(document), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), "utf-8")
    return 3 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measure what Edwin costs over a bare Tornado relay.",
    )
    add = parser.add_argument
    add("--rounds", type=int, help="how often everything is measured (6)")
    add("--seconds", type=float, help="load for a server in one round (1.0)")
    add("--quick", action="store_true", help="2 rounds of 0.3 s, disturbed or not")
    add(
        "--only",
        action="append",
        metavar="MEASURE",
        help=f"may be repeated: {', '.join(m.name for m in MEASURES)}, or "
        "what stands before the dash, for all of them",
    )
    add("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    options.tries = 1 if options.quick else TRIES
    options.rounds = options.rounds or (2 if options.quick else results.ENOUGH_ROUNDS)
    options.seconds = options.seconds or (0.3 if options.quick else 1.0)
    if not 1 <= options.rounds <= 100 or not 0 < options.seconds <= 60:
        parser.error("--rounds goes from 1 to 100, --seconds up to 60")
    known = {name for m in MEASURES for name in _names(m)}
    if unknown := set(options.only or ()) - known:
        parser.error(f"no measure is called {', '.join(sorted(unknown))}")
    options.measures = _chosen(options.only)
    return options


def _chosen(names: Sequence[str] | None) -> list[Measure]:
    if names is None:
        return list(MEASURES)
    return [m for m in MEASURES if _names(m) & set(names)]


def _names(measure: Measure) -> set[str]:
    return {measure.name, measure.name.split("-")[0]}


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="\r", file=sys.stderr, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
