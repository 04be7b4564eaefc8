"""Whether the gateway grows: figures over time, held to bounds; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import linear_regression, median
from typing import NamedTuple

from tools.soak.report import Report

# What may be added to the resident memory in LONG_S, warm-up excluded: the larger one.
RSS_SHARE, RSS_BYTES = 0.05, 8_000_000
LONG_S = 600.0
# By how much the last third of the load may be above the second.
BUSY_SHARE, BUSY_MORE = 1.25, 16
# What an idle gateway may hold more than before the load: who looks at it, its store.
IDLE_MORE = 8
MAX_MESSAGES = 40
# Of a session, in messages; a run's go together.
MESSAGES_MORE = 2
SESSION_BYTES = 32_000
RUN_BYTES = 2_000
"""What the store's files may grow by with each run: its line in the ledger, an
idempotency key and an outcome that are kept for a day, the indexes of all that."""


class Sample(NamedTuple):
    """What was seen of the gateway at one moment.

    Attributes:
        at_s: Since the load began.
        rss_bytes: Resident memory.
        descriptors: Open file descriptors.
        connections: Those of them that clients and the provider hold open too.
        tasks: Of asyncio, or None where the gateway does not say.
        runs: Under way or waiting.
        answers: Being given.

    """

    at_s: float
    rss_bytes: int
    descriptors: int
    connections: int
    tasks: int | None
    runs: int
    answers: int

    @property
    def own_descriptors(self) -> int:
        """Open file descriptors that only the gateway knows of."""
        return self.descriptors - self.connections


class Stored(NamedTuple):
    """What was seen of the store at one moment.

    Attributes:
        sessions: That have messages.
        message_bytes: Bodies of all messages.
        most_messages: Of the session that has most.
        runs: Lines of the ledger.
        file_bytes: The size of its files.

    """

    sessions: int
    message_bytes: int
    most_messages: int
    runs: int
    file_bytes: int

    @property
    def session_bytes(self) -> int:
        """Bytes of messages for each session."""
        return self.message_bytes // max(1, self.sessions)


def judge(
    idle: Sample,
    samples: Sequence[Sample],
    rest: Sample,
    stored: Sequence[Stored],
    *,
    settled: bool,
) -> Report:
    """Return the figures, and what is over its bound.

    Args:
        idle: Before the load.
        samples: Under load, evenly spaced.
        rest: After the load.
        stored: At the start, after a third of the load, and after its end.
        settled: Whether it had the time to clear its store up, and to close what it
            kept for the next calls.

    """
    third = len(samples) // 3
    warm = samples[third:]
    first, last = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    faults = [
        *_growth(warm, settled=settled),
        *_busy(first, last, settled=settled),
        *_left(idle, rest, settled=settled),
    ]
    faults += _store_faults(stored, settled=settled)
    return Report(_rows(idle, samples[third], samples[-1], rest, stored), faults, HEAD)


HEAD = ("", "before", "at a third", "at the end", "after")


def _growth(warm: Sequence[Sample], *, settled: bool) -> Iterator[str]:
    times = [sample.at_s for sample in warm]
    slope, _ = linear_regression(times, [sample.rss_bytes for sample in warm])
    span_s = times[-1] - times[0]
    grown = slope * span_s
    # A short load is held to what a long one may grow by: its slope is mostly noise.
    allowed = max(RSS_BYTES, RSS_SHARE * warm[0].rss_bytes)
    if not settled:
        # A third of it was not enough to warm up.
        allowed *= 2
    allowed *= max(1.0, span_s / (LONG_S * 2 / 3))
    if grown > allowed:
        yield (
            f"resident memory grew by {grown / 1e6:.1f} MB in {span_s:.0f} s; "
            f"{allowed / 1e6:.1f} MB are allowed"
        )


def _busy(
    first: Sequence[Sample], last: Sequence[Sample], *, settled: bool
) -> Iterator[str]:
    judged = [("descriptors", "own_descriptors")]
    if settled:
        # In a short load clients still come in, each with a task; what leaks of them
        # is there at rest, too.
        judged.append(("tasks", "tasks"))
    for name, field in judged:
        before = median(getattr(sample, field) or 0 for sample in first)
        after = median(getattr(sample, field) or 0 for sample in last)
        if after > before * BUSY_SHARE + BUSY_MORE:
            yield f"{name} under load rose from {before:g} to {after:g}"


def _left(idle: Sample, rest: Sample, *, settled: bool) -> Iterator[str]:
    if not settled:
        rest = rest._replace(descriptors=rest.own_descriptors)
    for name, more in (
        ("descriptors", IDLE_MORE),
        ("tasks", IDLE_MORE),
        ("runs", 0),
        ("answers", 0),
    ):
        before, after = getattr(idle, name) or 0, getattr(rest, name) or 0
        if after > before + more:
            yield f"{name} at rest: {before} before the load, {after} after it"


def _store_faults(stored: Sequence[Stored], *, settled: bool) -> Iterator[str]:
    _, third, end = stored
    if settled and end.most_messages > MAX_MESSAGES + MESSAGES_MORE:
        yield f"a session has {end.most_messages} messages, not {MAX_MESSAGES}"
    if settled and end.session_bytes > SESSION_BYTES:
        yield f"a session takes {end.session_bytes} bytes, not {SESSION_BYTES}"
    runs = end.runs - third.runs
    grown = end.file_bytes - third.file_bytes
    if settled and grown > runs * RUN_BYTES:
        yield f"the store's files grew by {grown} bytes in {runs} runs"


def _rows(
    idle: Sample, third: Sample, end: Sample, rest: Sample, stored: Sequence[Stored]
) -> list[tuple[str, ...]]:
    seen = (idle, third, end, rest)
    rows = [
        ("resident, MB", *(f"{sample.rss_bytes / 1e6:.1f}" for sample in seen)),
        ("descriptors", *(str(sample.descriptors) for sample in seen)),
        ("of them connections", *(str(sample.connections) for sample in seen)),
        ("tasks", *("?" if s.tasks is None else str(s.tasks) for s in seen)),
        ("runs", *(str(sample.runs) for sample in seen)),
        ("answers open", *(str(sample.answers) for sample in seen)),
    ]
    for name, field in (
        ("sessions", "sessions"),
        ("messages of the longest", "most_messages"),
        ("message bytes a session", "session_bytes"),
        ("runs in the ledger", "runs"),
    ):
        start, later, after = (str(getattr(figures, field)) for figures in stored)
        rows.append((name, start, later, "", after))
    sizes = [f"{figures.file_bytes / 1e6:.1f}" for figures in stored]
    rows.append(("store's files, MB", *sizes[:2], "", sizes[2]))
    return rows
