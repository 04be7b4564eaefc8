"""The front door of the store: what is kept of sessions and runs.

Made by the gateway and handed to the session registry and the run engine.  All
methods are called on the loop's thread and none blocks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edwin.metrics import Metrics
from edwin.store import changes, queries, removal
from edwin.store import rekey as rekeying
from edwin.store.people import People
from edwin.types import (
    Entry,
    IdempotencyKey,
    KeptRun,
    Message,
    RunRecord,
    SessionId,
    SessionRecord,
    StoredMessage,
    Transcript,
)


class _Note(NamedTuple):
    """How a run ended whose key or outcome is kept, noted and not written yet."""

    record: RunRecord
    outcome: str | None
    release: bool

    def over(self, found: KeptRun) -> KeptRun:
        """Return *found* as it is when this is written."""
        fingerprint = b"" if self.release else found.fingerprint
        effects = self.record.effects or found.record.effects
        record = self.record._replace(effects=effects)
        return KeptRun(record, fingerprint, self.outcome or found.outcome)


class Store(People):
    """Sessions, their messages and the ledger of runs, in one database.

    Args:
        url: As for :class:`~edwin.store.database.Database`.
        metrics: Counts the transactions.

    """

    def __init__(self, url: str, metrics: Metrics | None = None) -> None:
        super().__init__(url, metrics)
        self._undelivered: set[str] = set()
        self._notes: dict[str, _Note] = {}

    async def transcript(self, session: SessionId) -> Transcript:
        """Return what is kept of *session*: an empty transcript if nothing is.

        To be called while no run of the session is under way.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        noted = set(self._undelivered)
        found = await self._read(lambda c: queries.transcript(c, session))
        if found.entries and found.entries[-1].run_id in noted:
            return replace(found, last_delivered=True)
        return found

    async def session(self, session: SessionId) -> SessionRecord | None:
        """Return what is known of *session*, None if it is not there.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        return await self._read(lambda c: queries.session(c, session))

    async def sessions(
        self,
        *,
        principal: str | None,
        agent: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """Return *limit* sessions, the ones used last first.

        Args:
            principal: Whose sessions; None: everybody's.
            agent: Id of their agent; None: whichever.
            before: :meth:`place` of the session that the page begins behind.
            limit: How many at most.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        return await self._read(
            lambda c: queries.session_page(c, principal, agent, before, limit)
        )

    @staticmethod
    def place(record: SessionRecord) -> tuple[float, str]:
        """Return the place of *record* in the order of :meth:`sessions`.

        It is the last use and a text that no other session has: key, agent and
        principal, a blank between them.
        """
        return queries.session_place(record)

    async def messages(
        self,
        session: SessionId,
        *,
        after: int = 0,
        limit: int = 100,
        superseded: bool = False,
    ) -> list[StoredMessage]:
        """Return *limit* messages of *session* behind the place *after*, in order.

        Args:
            session: Whose messages; of an unknown one there are none.
            after: Place of the message that the page begins behind.
            limit: How many at most.
            superseded: Whether to give those too that are not in the transcript.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        return await self._read(
            lambda c: queries.message_page(c, session, after, limit, superseded)
        )

    async def runs(
        self,
        *,
        principal: str | None = None,
        agent: str | None = None,
        session_key: str | None = None,
        state: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return *limit* lines of the ledger, newest first.

        A line that was only noted appears within a second.  Of a deleted session's
        runs the session key and the request id are empty.

        Args:
            principal: Whose runs; None: everybody's.
            agent: Id of their agent; *session_key* and *state* likewise, or None.
            before: ``created_at`` and ``run_id`` of the run the page begins behind.
            limit: How many at most.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        wanted = {
            "principal": principal,
            "agent": agent,
            "session_key": session_key,
            "state": state,
        }
        return await self._read(lambda c: queries.ledger(c, wanted, before, limit))

    async def run(self, run_id: str) -> KeptRun | None:
        """Return the run with this id, None if there is none.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        note = self._notes.get(run_id)
        found = await self._read(lambda c: queries.run(c, run_id))
        if note is None:
            return found
        return note.over(found or KeptRun(note.record))

    async def kept(self, principal: str, key: str) -> KeptRun | None:
        """Return the run that has the principal's idempotency *key*, or None.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        notes = self._notes.copy()
        found = await self._read(lambda c: queries.kept(c, principal, key))
        note = notes.get(found.record.run_id) if found else None
        if found is None or note is None:
            return found
        return None if note.release else note.over(found)

    async def begin(
        self,
        record: RunRecord,
        append: Sequence[Entry],
        supersede: Sequence[int] = (),
        *,
        key: IdempotencyKey | None = None,
    ) -> None:
        """Write that a run of a session starts; durable on return.

        One transaction: the run's line, the session's last use, *append*, the marks
        on the messages *supersede*, and the end of the run's pending messages.
        Cancelling the caller does not take it back.

        Args:
            record: The run's line.
            append: Messages with the places the caller chose for them.
            supersede: Places of messages that leave the transcript for good.
            key: The run has it from then on, unless another run has it.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If a place is taken.  Nothing is written in either case.

        """
        await self._running().submit(changes.begin(record, append, supersede, key))

    async def finish(
        self,
        record: RunRecord,
        append: Sequence[Entry] = (),
        *,
        outcome: str | None = None,
        release: bool = False,
    ) -> None:
        """Write that a run ended, with its answer in *append*; durable on return.

        One transaction.  A run that never began gets its line here; its pending
        messages wait for the next start, which puts them outside the transcript.
        Cancelling the caller does not take it back.

        Args:
            record: The run's line.
            append: Messages with the places the caller chose for them.
            outcome: How it ended, for who asks for it later; None: that is not kept.
            release: Whether the run's key is free again.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If a place is taken.  Nothing is written in either case.

        """
        await self._running().submit(changes.finish(record, append, outcome, release))

    async def pend(
        self,
        record: RunRecord,
        messages: Sequence[Message],
        *,
        key: IdempotencyKey | None = None,
    ) -> None:
        """Keep the *messages* of a run that waits in its lane; durable on return.

        *key* is as for :meth:`begin`.  Cancelling the caller does not take it back.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If the run has pending messages already.

        """
        await self._running().submit(changes.pend(record, messages, key))

    async def open(
        self, record: RunRecord, *, key: IdempotencyKey | None = None
    ) -> None:
        """Write the line of a run that has not ended; durable on return.

        Of a run without a session it is the first line.  Of any run that has one,
        it is how its ``effects`` are marked: no later write takes that back, and
        beside the line nothing changes.

        *key* is as for :meth:`begin`.  Cancelling the caller does not take it back.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.

        """
        await self._running().submit(changes.open(record, key))

    def note(
        self, record: RunRecord, *, outcome: str | None = None, release: bool = False
    ) -> None:
        """Write the ledger line of a run that ended, within a second.

        *outcome* and *release* are as for :meth:`finish`; who asks for the run, or for
        its key, learns of them at once.
        """
        writer, settled = self._running(), None
        if release or outcome is not None:
            note = self._notes[record.run_id] = _Note(record, outcome, release)
            settled = partial(self._settled, note)
        change = changes.note(record, outcome, release)
        writer.later(change, settled=settled)

    def note_delivered(self, run_id: str) -> None:
        """Write that the run's answer reached its client, within a second."""
        writer = self._running()
        self._undelivered.add(run_id)
        settled = partial(self._undelivered.discard, run_id)
        writer.later(changes.deliver(run_id), settled=settled)

    async def reset(self, session: SessionId, at: float) -> bool:
        """Let *session* begin anew, used *at* (unix seconds); durable on return.

        Its messages stay, outside the transcript.  False if there is no such session.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.

        """
        return await self._running().call(
            lambda connection: removal.reset_session(connection, session, at)
        )

    async def delete(self, session: SessionId) -> bool:
        """Remove all of *session*, in one transaction; durable on return.

        Messages, pending ones too, keys and outcomes of its runs, images that nobody
        else sent.  Its runs' lines stay in the ledger, without session key and request
        id.  False if nothing was there.  To be called while it has no run.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way; all is as it was.

        """
        removed = await self._running().call(
            lambda connection: removal.delete_session(connection, session)
        )
        return removed > 0

    async def rekey(self, old: SessionId, new: SessionId) -> bool:
        """Give the session *old* the identity *new*; durable on return.

        False if there is no such session, or one that is called so already.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way; all is as it was.

        """
        return await self._running().call(
            lambda connection: rekeying.rekey(connection, old, new)
        )

    async def expire(
        self,
        *,
        now: float,
        max_age_s: float,
        max_messages: int,
        kept_s: float,
        batch: int = 100,
    ) -> int:
        """Remove some of what is past its time; return how much, 0 if nothing is.

        One short transaction on the writer's thread, none if there is nothing to do.

        Args:
            now: Unix seconds.
            max_age_s: Seconds without use and without an open run after which a
                session is deleted; 0: never.
            max_messages: How many messages a session may have, those outside its
                transcript included; the oldest go, whole runs of them, but never the
                newest run's.  0: any number.
            kept_s: Seconds from a run's end after which its key and outcome go.
            batch: About how many rows to remove; of a session that is deleted, all go.

        Raises:
            StorageUnavailable: If the database cannot be read or written.

        """
        limits = removal.Limits(
            ended_before=now - kept_s,
            used_before=now - max_age_s if max_age_s else None,
            max_messages=max_messages,
            batch=batch,
        )
        found = await self._read(lambda c: removal.find(c, limits))
        if not any(found):
            return 0
        return await self._running().call(lambda c: removal.clear(c, found, limits))

    def _settled(self, note: _Note) -> None:
        if self._notes.get(note.record.run_id) is note:
            del self._notes[note.record.run_id]
