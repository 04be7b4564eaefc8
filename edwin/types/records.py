"""What the store gives and takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edwin.types.messages import Message, Usage
from edwin.types.requests import SessionId


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a stored transcript.

    Attributes:
        seq: Place in the session, from 1, with gaps where messages were superseded.
        run_id: The run that appended it.
        message: The message itself.
        own: True for what the run itself made, its answers and the results of its
            own tools; False for what the client sent.
        digest: Digest of the message's content (``sessions.canonical.digest``).

    """

    seq: int
    run_id: str
    message: Message
    own: bool
    digest: bytes


class RunRecord(NamedTuple):
    """A run's line in the ledger: who, what became of it, what it cost; no content.

    Attributes:
        state: ``queued``, ``running``, ``finished``, ``cancelled`` or ``failed``.
        error_code: Code of the error that ended it, or None.
        created_at: Unix seconds; *started_at* and *finished_at* likewise, or None.
        first_delta_ms: From creation to the first delta, or None.
        events: Number of its last event; 0 if it is not known.
        effects: Whether it has begun something that must not be done twice: nobody
            carries it out again.
        tool_calls: How many calls of its agent's own tools have come back.

    """

    run_id: str
    request_id: str
    session: SessionId
    state: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    first_delta_ms: int | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    usage: Usage = Usage()
    events: int = 0
    effects: bool = False
    tool_calls: int = 0


class KeptRun(NamedTuple):
    """A run as the store has it.

    Attributes:
        record: Its line in the ledger.
        fingerprint: Of the request that made it, under its idempotency key; or empty.
        outcome: How it ended (``runs.outcome``), where that is kept; else None.

    """

    record: RunRecord
    fingerprint: bytes = b""
    outcome: str | None = None


class SessionRecord(NamedTuple):
    """What the store says of a session beside its messages.

    Attributes:
        session: Whose it is.
        created_at: Unix seconds; *used_at* likewise: when a run last began or ended.
        messages: How many its transcript has.

    """

    session: SessionId
    created_at: float
    used_at: float
    messages: int


class StoredMessage(NamedTuple):
    """A message of a session as it is shown.

    Attributes:
        seq: Its place, from 1.
        run_id: The run that appended it.
        message: The message.
        own: Whether the run made it; else the client sent it.
        current: Whether it is part of the transcript: neither superseded, nor of a
            failed run, nor from before a reset.

    """

    seq: int
    run_id: str
    message: Message
    own: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session's stored messages as the store gives them, oldest first.

    Messages of failed runs and superseded ones are left out.

    Attributes:
        entries: The messages.
        last_seq: Highest number ever used in the session, 0 if none.
        last_state: State of the run that appended the last entry, or None.
        last_delivered: Whether that run's answer reached its client.
        used_at: Unix seconds of the session's last use, 0 if it has none.

    """

    entries: tuple[Entry, ...] = ()
    last_seq: int = 0
    last_state: str | None = None
    last_delivered: bool = False
    used_at: float = 0.0
