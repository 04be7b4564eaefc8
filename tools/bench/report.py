"""A run as a table and as JSON, with what it was taken on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from tools.bench.figures import FLOOR_A, LOAD_BUSY, SERVER_BUSY, Round
from tools.bench.gate import Outcome, gated
from tools.bench.results import (
    ENOUGH_ROUNDS,
    ITSELF,
    PeerRow,
    Row,
    Spread,
    disturbed,
)

PACKAGES = ("tornado", "aiohttp", "orjson", "jsonschema-rs", "SQLAlchemy")
_HEAD = (
    "measure",
    "figure",
    "floor",
    "edwin",
    "edwin / floor",
    "added",
    "floor / itself",
)


def document(
    rows: Sequence[Row],
    taken: Mapping[str, Sequence[Round]],
    faults: Sequence[str],
    *,
    seconds: float,
    apart: bool,
    peers: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return all there is to say about a run, fit for JSON.

    Args:
        rows: The figures.
        taken: The rounds of each measure.
        faults: Why they do not count.
        seconds: The load for a server in one round.
        apart: Whether the servers had a core of their own.
        peers: Versions of what was measured beside Edwin.

    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **peers},
        "settings": {
            "rounds": max(len(rounds) for rounds in taken.values()),
            "seconds": seconds,
            "servers on a core of their own": apart,
        },
        "void": list(faults),
        "rows": [row_document(row) for row in rows],
        "samples": {name: list(rounds) for name, rounds in taken.items()},
    }


def row_document(row: Row | PeerRow) -> dict[str, Any]:
    """Return a row, fit for JSON."""
    spreads = {k: asdict(v) for k, v in vars(row).items() if isinstance(v, Spread)}
    figure = {"figure": row.figure.name, "unit": row.figure.unit}
    return {"measure": row.measure, **figure, **spreads}


def table(rows: Sequence[Row]) -> str:
    """Return the figures as a Markdown table that reads as plain text too."""
    return _table(_HEAD, [_cells(row) for row in rows])


def _table(head: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> str:
    lines = [head, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def peer_table(name: str, rows: Sequence[PeerRow], *, variant: bool) -> str:
    """Return the same of what was measured beside Edwin; see :func:`table`."""
    beside = f"edwin / {name}" if variant else f"{name} / edwin"
    head = ("measure", "figure", "floor", "edwin", name, f"{name} / floor", beside)
    return _table(
        (*head, "floor / itself"),
        [
            (
                row.measure,
                f"{row.figure.name}, {row.figure.unit}",
                *(_number(s.median) for s in (row.floor, row.edwin, row.peer)),
                *(_ratio(s) for s in (row.ratio, row.beside, row.itself)),
            )
            for row in rows
        ],
    )


def gate_table(outcomes: Sequence[Outcome]) -> str:
    """Return what the gate found, likewise."""
    head = ("measure", "figure", "edwin and floor", "limit", "floor / itself")
    return _table(
        (*head, "taken", "verdict"),
        [
            (
                row.measure,
                f"{row.figure.name}, {row.figure.unit}",
                f"+{_ratio(gated(row))}" if added else f"× {_ratio(gated(row))}",
                f"+{limit:g}" if added else f"× {limit:g}",
                _ratio(row.itself),
                str(outcome.takes),
                outcome.verdict.upper().replace("WITHIN", "within"),
            )
            for outcome in outcomes
            for row, limit in outcome.rows
            for added in [row.figure.gated == "added"]
        ],
    )


def gate_document(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return what the gate found, fit for JSON."""
    return [
        {
            "measure": row.measure,
            "figure": row.figure.name,
            "on": row.figure.gated,
            "limit": limit,
            "value": asdict(gated(row)),
            "taken": outcome.takes,
            "verdict": outcome.verdict,
        }
        for outcome in outcomes
        for row, limit in outcome.rows
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.measure,
        f"{row.figure.name}, {row.figure.unit}",
        _number(row.floor.median),
        _number(row.edwin.median),
        _ratio(row.ratio),
        _number(row.added.median),
        _ratio(row.itself) + ("" if row.sound else " VOID"),
    )


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.min:.2f}–{spread.max:.2f})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def words(document: Mapping[str, Any]) -> str:
    """Return what stands above and below the table, in sentences."""
    settings, machine = document["settings"], document["machine"]
    packages = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    place = (
        "on a core of their own"
        if settings["servers on a core of their own"]
        else ("on the one core there is, with everything else")
    )
    lines = [
        f"{document['date']}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; {packages}.",
        f"Rounds: {settings['rounds']}, of {settings['seconds']:g} s; "
        f"the servers {place}.",
        *_shares(document["samples"]),
    ]
    if settings["rounds"] < ENOUGH_ROUNDS and "gate" not in document:
        lines.append(
            f"Fewer than {ENOUGH_ROUNDS} rounds show that the instrument works, and "
            "not what Edwin costs."
        )
    if document["void"]:
        lines += ["VOID, these figures say nothing:", *document["void"]]
    else:
        low, high = ITSELF
        lines.append(f"Sound: the floor against itself is within {low} to {high}.")
    return "\n".join(lines)


def _shares(samples: Mapping[str, Sequence[Round]]) -> list[str]:
    """Say who set the pace, and how quiet it was."""
    lines = []
    for name in [m for m in ("whole-32", "burst-8") if m in samples]:
        floor, load = (
            median(turn[FLOOR_A][share] for turn in samples[name])
            for share in (SERVER_BUSY, LOAD_BUSY)
        )
        lines.append(
            f"{name}: the floor's core was busy with it {floor:.0%} of the time, the "
            f"other with load and upstream {load:.0%}."
        )
    waited = [disturbed(turn) for rounds in samples.values() for turn in rounds]
    lines.append(
        f"Somebody else had the floor's core {median(waited):.0%} of the time it "
        f"wanted to run, in the worst round {max(waited):.0%}."
    )
    return lines


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    from edwin import __version__

    return {
        "edwin": __version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "implementation": sys.implementation.name,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
