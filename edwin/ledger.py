"""The ledger: which runs there are and were, and how they ended.

Called for every surface that shows runs, or ends them.  What a function returns is the
document that the client gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from edwin.audit import NOBODY, Source
from edwin.auth import owns
from edwin.errors import (
    EdwinError,
    InternalError,
    RunCancelled,
    RunNotFound,
    StorageUnavailable,
    shorten,
)
from edwin.runs import outcome
from edwin.runs.run import Run
from edwin.types import (
    OWNER,
    KeptRun,
    Message,
    Principal,
    RunFailed,
    RunFinished,
    RunRecord,
    SessionId,
)
from edwin.wire import cursors, records

if TYPE_CHECKING:
    from edwin.gateway import Gateway

STATES = ("queued", "running", "finished", "cancelled", "failed")
RESTARTED = "gateway_restarted"

_OPEN = frozenset(("queued", "running"))
_UNDER_WAY: Mapping[str, Any] = MappingProxyType(
    {"state": "running", "finished_at": None, "finish_reason": None, "error_code": None}
)
_MESSAGES = 100


class Wanted(NamedTuple):
    """Which runs a page is to show; None: whichever.

    Attributes:
        agent: Id of their agent, in any case.
        session: Their session key.
        state: One of :data:`STATES`.

    """

    agent: str | None = None
    session: str | None = None
    state: str | None = None

    def fits(self, record: RunRecord) -> bool:
        """Return whether *record* is one of them."""
        return (
            self.agent in (None, record.session.agent)
            and self.session in (None, record.session.key)
            and self.state in (None, record.state)
        )


async def page(
    gateway: Gateway,
    principal: Principal,
    wanted: Wanted | None = None,
    *,
    limit: int = 20,
    after: str | None = None,
) -> dict[str, Any]:
    """Return a page of the principal's runs, newest first: schema ``runs/run_list``.

    The live ones are among them, as of now; messages are left out.

    Args:
        gateway: Whose runs.
        principal: Sees its own runs; the owner sees all.
        wanted: Which of them; None: all.
        limit: How many at most.
        after: What an earlier page gave as ``next``.

    Raises:
        InvalidRequest: If *after* is no cursor.
        StorageUnavailable: If the ledger cannot be read.

    """
    wanted = wanted or Wanted()
    wanted = wanted._replace(agent=wanted.agent and wanted.agent.lower())
    before = cursors.read(after) if after else None
    # As they are before the store is asked: what ends meanwhile is not seen twice.
    live = {
        run.id: _line(run)
        for run in gateway.engine.live()
        if owns(principal, run.session)
    }
    stored = await _stored(gateway, principal, wanted, live, before, limit + 1)
    for record in live.values():
        if wanted.fits(record) and (before is None or _place(record) < before):
            stored.setdefault(record.run_id, record)
    found = sorted(stored.values(), key=_place, reverse=True)
    more = len(found) > limit
    found = found[:limit]
    next = cursors.write(*_place(found[-1])) if more else None
    data = [records.run_object(record) for record in found]
    return {"object": "list", **records.page(data, next)}


async def _stored(
    gateway: Gateway,
    principal: Principal,
    wanted: Wanted,
    live: dict[str, RunRecord],
    before: tuple[float, str] | None,
    count: int,
) -> dict[str, RunRecord]:
    """Return the ledger's next *count* lines that fit, or all that are left.

    Of a run that is live the ledger has an older state, which it may not have any more.
    """
    found: dict[str, RunRecord] = {}
    while True:
        lines = await gateway.store.runs(
            principal=None if principal.id == OWNER.id else principal.id,
            agent=wanted.agent,
            session_key=wanted.session,
            state=wanted.state,
            before=before,
            limit=count,
        )
        for line in lines:
            if line.state in _OPEN:
                line = live.get(line.run_id, line)
            if wanted.fits(line):
                found[line.run_id] = line
        if len(found) >= count or len(lines) < count:
            return found
        before = _place(lines[-1])


async def find(gateway: Gateway, principal: Principal, run_id: str) -> Run | KeptRun:
    """Return the principal's run with this id, live or as the store has it.

    Raises:
        RunNotFound: If there is none, or it is another principal's.
        StorageUnavailable: If the store cannot be read.

    """
    found: Run | KeptRun | None = gateway.engine.find(run_id)
    if found is None:
        found = await gateway.store.run(run_id)
    if found is None or not owns(principal, _session(found)):
        raise RunNotFound(f"no such run: {shorten(run_id)!r}")
    return found


async def run(gateway: Gateway, principal: Principal, run_id: str) -> dict[str, Any]:
    """Return the run with this id: schema ``runs/run``.

    Raises:
        RunNotFound: If there is none, or it is another principal's.
        StorageUnavailable: If the store cannot be read.

    """
    return _shown(await find(gateway, principal, run_id))


async def cancel(
    gateway: Gateway, principal: Principal, run_id: str, source: Source = NOBODY
) -> dict[str, Any]:
    """End the run with this id, and return it when it has ended: ``runs/run``.

    Without effect on one that has ended before.

    Args:
        gateway: Whose run.
        principal: Who ends it.
        run_id: Which one.
        source: How that was asked for, for the audit log.

    Raises:
        RunNotFound: If there is none, or it is another principal's.
        StorageUnavailable: If the store cannot be read.

    """
    found = await find(gateway, principal, run_id)
    if isinstance(found, Run):
        if (owner := _session(found).principal) != principal.id and not found.ended:
            source = source._replace(principal=principal.id)
            gateway.audit.write(
                "run.cancelled_by_another", source, run=run_id, owner=owner
            )
        found.cancel(RunCancelled("the run was cancelled"))
        await found.wait()
    return _shown(found)


async def end(gateway: Gateway, kept: KeptRun) -> RunFinished | RunFailed:
    """Return how a run ended that is no longer live, as far as that is kept.

    From its outcome, or from its session's transcript; a message that is nowhere is
    empty, and an error has its code alone.

    Raises:
        StorageUnavailable: If its end is not in the store yet, or cannot be read.

    """
    record = kept.record
    if record.state in _OPEN:
        raise StorageUnavailable("the run's end is not stored yet", retry_after_s=1)
    if kept.outcome is not None:
        return outcome.read(kept.outcome, record.usage)
    if record.state != "finished":
        return RunFailed(_error(record))
    message = await _answer(gateway, record) if record.session.key else None
    return RunFinished(message or {}, record.finish_reason or "stop", record.usage)


def last_event(record: RunRecord, *, seen: int) -> int:
    """Return the number of the last event of a run that is no longer live.

    Args:
        record: Its line in the ledger.
        seen: Number of the last event that the reader has.

    """
    if record.error_code == RESTARTED:
        # Nobody counted to its end: its failure is what comes next.
        return max(record.events, seen) + 1
    return max(record.events, 1)


async def _answer(gateway: Gateway, record: RunRecord) -> Message | None:
    """Return the last message that the run gave, from its session's transcript."""
    answer, after = None, 0
    while lines := await gateway.store.messages(
        record.session, after=after, limit=_MESSAGES, superseded=True
    ):
        for line in lines:
            if line.run_id != record.run_id:
                if answer is not None:
                    return answer
            elif line.own and line.message["role"] == "assistant":
                answer = line.message
        after = lines[-1].seq
    return answer


def _error(record: RunRecord) -> EdwinError:
    """Return the error that ended the run, of which the ledger has the code."""
    code = record.error_code
    kind = next((kind for kind in _kinds() if kind.code == code), InternalError)
    message = f"the run ended with {code}; no more is kept of its end"
    if code == RESTARTED:
        message = "the run was lost when the gateway went down"
    return kind(message, code=code)


def _kinds() -> Iterator[type[EdwinError]]:
    kinds = [EdwinError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        yield kind


def _session(found: Run | KeptRun) -> SessionId:
    return found.session if isinstance(found, Run) else found.record.session


def _line(run: Run) -> RunRecord:
    """Return the ledger line of a live run; it has not ended before that is stored."""
    line = run.record()
    if run.ended or line.finished_at is None:
        return line
    return line._replace(events=run.last, **_UNDER_WAY)


def _shown(found: Run | KeptRun) -> dict[str, Any]:
    if isinstance(found, Run):
        return records.run_object(_line(found), found.end)
    ended = found.outcome and outcome.read(found.outcome, found.record.usage)
    return records.run_object(found.record, ended or None)


def _place(record: RunRecord) -> tuple[float, str]:
    return record.created_at, record.run_id
