"""Runs and sessions as the JSON objects that the API gives; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edwin.errors import envelope
from edwin.types import (
    RunFailed,
    RunFinished,
    RunRecord,
    SessionId,
    SessionRecord,
    StoredMessage,
)
from edwin.wire.openai import usage_object

_NO_SESSION = re.compile(r"(agent:[^:]+:openai:[0-9a-f-]{36})?")


def run_object(
    record: RunRecord, end: RunFinished | RunFailed | None = None
) -> dict[str, Any]:
    """Return the object of a run: schema ``runs/run``.

    Args:
        record: Its line in the ledger.
        end: Its last event, where that is at hand.

    """
    key = record.session.key
    ended = record.finished_at is not None
    return {
        "id": record.run_id,
        "object": "edwin.run",
        "state": record.state,
        "principal": record.session.principal,
        "agent": record.session.agent,
        "session_key": None if _NO_SESSION.fullmatch(key) else key,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "first_delta_ms": record.first_delta_ms,
        "finish_reason": record.finish_reason,
        "usage": usage_object(record.usage) if ended else None,
        "error": _error(record, end),
        "request_id": record.request_id,
        "events": record.events,
        "effects": record.effects,
        "tool_calls": record.tool_calls,
        "message": end.message or None if isinstance(end, RunFinished) else None,
    }


def session_object(record: SessionRecord) -> dict[str, Any]:
    """Return the object of a session: schema ``sessions/session``."""
    return _session(
        "edwin.session",
        record.session,
        created_at=record.created_at,
        used_at=record.used_at,
        messages=record.messages,
    )


def deleted_object(session: SessionId) -> dict[str, Any]:
    """Return what says that *session* was deleted: schema ``sessions/deleted``."""
    return _session("edwin.session.deleted", session, deleted=True)


def reset_object(session: SessionId) -> dict[str, Any]:
    """Return what says that *session* begins anew: schema ``sessions/was_reset``."""
    return _session("edwin.session.reset", session, reset=True)


def message_object(message: StoredMessage) -> dict[str, Any]:
    """Return the entry of *message* in its session's transcript."""
    return {
        "seq": message.seq,
        "run_id": message.run_id,
        "own": message.own,
        "current": message.current,
        "message": message.message,
    }


def page(data: Sequence[dict[str, Any]], next: str | int | None) -> dict[str, Any]:
    """Return the fields that every page of a list has.

    Args:
        data: What stands on it.
        next: Where the list goes on, or None at its end.

    """
    return {"data": data, "has_more": next is not None, "next": next}


def _session(kind: str, session: SessionId, **rest: Any) -> dict[str, Any]:
    return {
        "object": kind,
        "principal": session.principal,
        "agent": session.agent,
        "key": session.key,
        **rest,
    }


def _error(
    record: RunRecord, end: RunFinished | RunFailed | None
) -> dict[str, Any] | None:
    """Return why the run failed; the ledger alone knows the code and no more."""
    if isinstance(end, RunFailed):
        return dict(envelope(end.error)["error"])
    if record.error_code is None:
        return None
    return {"message": None, "type": None, "param": None, "code": record.error_code}
