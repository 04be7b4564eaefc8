"""``python -m tools.bench``: measure, print the table, say whether it counts.

Exit codes: 0 done, 1 it failed or is over a limit, 2 the command line is wrong, 3 the
run is void: the floor measured against itself did not come out the same.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from tools.bench import gate, lock, report, results, rounds
from tools.bench.figures import Measure, Round
from tools.bench.measures import GATE, MEASURES, WARM_UP
from tools.bench.peers import PEERS
from tools.bench.processes import BenchError

# Rounds that are taken for each one that is to be undisturbed.
TRIES = 3
GATE_ROUNDS, GATE_SECONDS, GATE_TRIES = 4, 0.3, 2


def main() -> int:
    """Measure, as the command line says."""
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    try:
        for peer in options.peers.values():
            peer.prepare()
        with (
            lock.alone(Path(tempfile.gettempdir())),
            rounds.Stage(seconds=options.seconds, peers=options.peers) as stage,
        ):
            rounds.take(WARM_UP, stage, 1, _tell)
            return _gate(options, stage) if options.gate else _run(options, stage)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, stage: rounds.Stage) -> int:
    """Take every measure, and show what came of it."""
    taken = {m.name: _take(m, options, stage) for m in options.measures}
    rows = [
        results.compare(measure.name, figure, taken[measure.name])
        for measure in options.measures
        for figure in measure.figures
    ]
    faults = results.faults(rows, taken)
    document = _document(options, stage, rows, taken, faults)
    tables = [report.table(rows)]
    for name, peer in options.peers.items():
        beside = [
            results.compare_peer(
                measure.name, figure, taken[measure.name], name, variant=peer.edwin
            )
            for measure in options.measures
            for figure in measure.figures
            if figure.name in taken[measure.name][0].get(name, {})
        ]
        document.setdefault("peers", {})[name] = list(map(report.row_document, beside))
        tables.append(report.peer_table(name, beside, variant=peer.edwin))
    print(*tables, report.words(document), sep="\n\n")
    _write(document, options.json)
    return 3 if faults else 0


def _gate(options: argparse.Namespace, stage: rounds.Stage) -> int:
    """Hold the gate's measures to their limits, and show what came of it."""
    limits = gate.load()
    outcomes = [
        gate.hold(
            measure,
            limits[measure.name],
            partial(_take, measure, options, stage),
        )
        for measure in options.measures
    ]
    rows = [row for outcome in outcomes for row, _ in outcome.rows]
    taken = {outcome.measure: outcome.rounds for outcome in outcomes}
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    document = _document(options, stage, rows, taken, faults)
    document["gate"] = report.gate_document(outcomes)
    print(report.gate_table(outcomes), report.words(document), sep="\n\n")
    _write(document, options.json)
    return gate.exit_code(outcomes)


def _take(
    measure: Measure, options: argparse.Namespace, stage: rounds.Stage
) -> Sequence[Round]:
    return rounds.take(measure, stage, options.rounds, _tell, tries=options.tries)


def _document(options: argparse.Namespace, stage: rounds.Stage, *what: Any) -> Any:
    versions: dict[str, str] = {}
    for peer in options.peers.values():
        versions |= peer.versions()
    apart = stage.cores.apart
    return report.document(*what, seconds=options.seconds, apart=apart, peers=versions)


def _write(document: Any, path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(document, indent=1), "utf-8")


def _options() -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args()
    options.tries = 1 if options.quick else TRIES
    if options.gate:
        if options.quick or options.peers:
            parser.error("--gate has a budget of its own, and no peers")
        options.rounds = options.rounds or GATE_ROUNDS
        options.seconds = options.seconds or GATE_SECONDS
        options.tries = GATE_TRIES
    options.rounds = options.rounds or (2 if options.quick else results.ENOUGH_ROUNDS)
    options.seconds = options.seconds or (0.3 if options.quick else 1.0)
    if not 1 <= options.rounds <= 100 or not 0 < options.seconds <= 60:
        parser.error("--rounds goes from 1 to 100, --seconds up to 60")
    known = {name for m in MEASURES for name in _names(m)}
    if unknown := set(options.only or ()) - known:
        parser.error(f"no measure is called {', '.join(sorted(unknown))}")
    options.measures = _chosen(options.only)
    if options.gate:
        options.measures = [m for m in options.measures if m.name in GATE]
        if not options.measures:
            parser.error(f"the gate's measures are {', '.join(GATE)}")
    options.peers = {name: PEERS[name] for name in options.peers}
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measure what Edwin costs over a bare Tornado relay.",
    )
    add = parser.add_argument
    add("--rounds", type=int, help="how often everything is measured (6)")
    add("--seconds", type=float, help="load for a server in one round (1.0)")
    add("--quick", action="store_true", help="2 rounds of 0.3 s, disturbed or not")
    add(
        "--gate",
        action="store_true",
        help="hold some measures to limits.json: "
        f"{GATE_ROUNDS} rounds of {GATE_SECONDS:g} s, exit code 1 if one is over",
    )
    add(
        "--with",
        dest="peers",
        action="append",
        default=[],
        choices=PEERS,
        help="measure this one beside Edwin; may be repeated",
    )
    add(
        "--only",
        action="append",
        metavar="MEASURE",
        help=f"may be repeated: {', '.join(m.name for m in MEASURES)}, or "
        "what stands before the dash, for all of them",
    )
    add("--json", type=Path, metavar="FILE", help="write everything there too")
    return parser


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
