"""SessionRegistry: from the request's ``user`` to a key, and to a live transcript.

Called by ``dispatch`` (the key) and by the run that heads its session's lane (the
transcript); so no two calls for one session's transcript ever overlap.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edwin.config import SessionsConfig
from edwin.errors import StorageUnavailable
from edwin.sessions.canonical import digest
from edwin.sessions.keys import session_key, stateless_key
from edwin.sessions.reconcile import Plan
from edwin.store import Store
from edwin.types import (
    Entry,
    IdempotencyKey,
    Message,
    RunRecord,
    SessionId,
    Transcript,
)

CACHED_BYTES = 64 * 1024 * 1024


class SessionRegistry:
    """Sessions by (principal, agent, key), their transcripts cached.

    Args:
        store: Where transcripts are kept.
        secret: What keys are made with.
        former: What they were made with before; the newest first.
        limits: What becomes of sessions with time; None: nothing.
        cached_bytes: Size of the transcripts to keep in memory, about; the least
            recently used go first.

    """

    def __init__(
        self,
        store: Store,
        secret: bytes,
        limits: SessionsConfig | None = None,
        *,
        former: Sequence[bytes] = (),
        cached_bytes: int = CACHED_BYTES,
    ) -> None:
        self._store = store
        self._limits = limits
        self._former = former
        self._secret = secret
        self._room = cached_bytes
        self._used = 0
        self._live: OrderedDict[SessionId, tuple[Transcript, int]] = OrderedDict()

    def key_for(self, user: str, *, agent: str, principal: str) -> str:
        """Return the stable key of *user*; see :func:`edwin.sessions.keys.session_key`.

        Raises:
            ValueError: If *user* is blank.

        """
        return session_key(user, agent=agent, principal=principal, secret=self._secret)

    async def adopt(self, session: SessionId, user: str) -> None:
        """Take over what *user* said under a former secret, if there is any.

        Args:
            session: The user's, by today's secret.
            user: The ``user`` field of the request.

        Raises:
            StorageUnavailable: If the store cannot be written.

        """
        if not self._former or session in self._live:
            return
        if await self._store.session(session) is not None:
            return
        for secret in self._former:
            key = session_key(
                user, agent=session.agent, principal=session.principal, secret=secret
            )
            if await self._store.rekey(session._replace(key=key), session):
                return

    def fresh_key(self, agent: str) -> str:
        """Return a key that no other run has."""
        return stateless_key(agent, str(uuid.uuid4()))

    async def transcript(self, session: SessionId) -> Transcript:
        """Return what the session holds, from memory or from the store.

        Raises:
            StorageUnavailable: If it cannot be read.

        """
        if session in self._live:
            self._live.move_to_end(session)
            return self._live[session][0]
        transcript = await self._store.transcript(session)
        self._keep(session, transcript)
        return transcript

    async def open(self, session: SessionId) -> Transcript:
        """Return what a new run of the session finds in it.

        A session that was not used for as long as the configuration says is deleted,
        or begins anew, here and now.

        Raises:
            StorageUnavailable: If it cannot be read or written.

        """
        transcript = await self.transcript(session)
        if self._limits is None or not transcript.used_at:
            return transcript
        now = time.time()
        unused_s = now - transcript.used_at
        if 0 < self._limits.max_age_days * 86_400 < unused_s:
            self.forget(session)
            await self._store.delete(session)
        elif 0 < self._limits.idle_reset_minutes * 60 < unused_s:
            self.forget(session)
            await self._store.reset(session, now)
        return await self.transcript(session)

    def limit(self, limits: SessionsConfig) -> None:
        """Go by other *limits* from now on."""
        self._limits = limits

    def clear(self) -> None:
        """Read every session from the store when it is asked for again."""
        self._live.clear()
        self._used = 0

    def forget(self, session: SessionId) -> None:
        """Read the session from the store when it is asked for again."""
        self._forget(session)

    async def begin(
        self,
        record: RunRecord,
        plan: Plan,
        *,
        since: Transcript,
        key: IdempotencyKey | None = None,
    ) -> None:
        """Store what the run reads anew, and return when it is durable.

        The transcript of a run that did not *finish* is read from the store again.

        Args:
            record: The run, in the state it is to have.
            plan: What to append and what to supersede.
            since: The transcript that *plan* was made from.
            key: Stored with it; the run has it from then on.

        Raises:
            StorageUnavailable: If it cannot be written; nothing of it is.

        """
        self._forget(record.session)
        entries = _entries(
            record.run_id, plan.append, plan.append_digests, since.last_seq, own=False
        )
        await self._store.begin(record, entries, plan.supersede, key=key)
        if record.state == "failed":
            return
        if plan.supersede and not entries:
            # Whose run the last entry is now, the store knows.
            return
        gone = set(plan.supersede)
        kept = tuple(entry for entry in since.entries if entry.seq not in gone)
        begun = replace(
            since,
            entries=kept + entries,
            last_seq=since.last_seq + len(entries),
            used_at=time.time(),
        )
        if entries:
            begun = replace(begun, last_state=record.state, last_delivered=False)
        self._keep(record.session, begun)

    async def finish(
        self,
        record: RunRecord,
        answer: Sequence[Message],
        *,
        outcome: str | None = None,
        release: bool = False,
    ) -> None:
        """Store the run's end with its *answer*, and return when both are durable.

        Args:
            record: The run, in the state it is to have.
            answer: The messages it made.
            outcome: How it ended, for who asks with its key.
            release: Whether its key is to be free again.

        Raises:
            StorageUnavailable: If they cannot be written; nothing of them is.

        """
        since = await self.transcript(record.session)
        self._forget(record.session)
        entries = _entries(
            record.run_id, answer, [digest(m) for m in answer], since.last_seq, own=True
        )
        try:
            await self._store.finish(record, entries, outcome=outcome, release=release)
        except StorageUnavailable:
            # It has failed, and its question is no part of the conversation, though
            # the store will say so only when it can be written again.
            kept = tuple(e for e in since.entries if e.run_id != record.run_id)
            without = replace(
                since, entries=kept, last_state="finished", last_delivered=True
            )
            self._keep(record.session, without)
            raise
        if record.state == "failed":
            return
        mine = (*since.entries, *entries)[-1:]
        ours = bool(mine) and mine[0].run_id == record.run_id
        self._keep(
            record.session,
            Transcript(
                entries=since.entries + entries,
                last_seq=since.last_seq + len(entries),
                last_state=record.state if ours else since.last_state,
                last_delivered=False if ours else since.last_delivered,
                used_at=time.time(),
            ),
        )

    def delivered(self, session: SessionId, run_id: str) -> None:
        """Note that the run's answer reached its client."""
        self._store.note_delivered(run_id)
        if session in self._live:
            transcript, size = self._live[session]
            if transcript.entries and transcript.entries[-1].run_id == run_id:
                self._live[session] = replace(transcript, last_delivered=True), size

    def _keep(self, session: SessionId, transcript: Transcript) -> None:
        self._forget(session)
        size = sum(map(_weight, transcript.entries), 500)
        self._live[session] = transcript, size
        self._used += size
        while self._used > self._room and len(self._live) > 1:
            self._forget(next(iter(self._live)))

    def _forget(self, session: SessionId) -> None:
        if session in self._live:
            self._used -= self._live.pop(session)[1]


def _entries(
    run_id: str,
    messages: Sequence[Message],
    digests: Sequence[bytes],
    last_seq: int,
    *,
    own: bool,
) -> tuple[Entry, ...]:
    return tuple(
        Entry(last_seq + place, run_id, message, own, mark)
        for place, (message, mark) in enumerate(
            zip(messages, digests, strict=True), start=1
        )
    )


def _weight(entry: Entry) -> int:
    """Return about how many bytes *entry* takes in memory."""
    content = entry.message.get("content")
    if isinstance(content, str):
        return 500 + len(content)
    return 500 + sum(map(_part_weight, content or ()))


def _part_weight(part: dict[str, Any]) -> int:
    match part:
        case {"text": str(text)} | {"image_url": {"url": str(text)}}:
            return 200 + len(text)
        case {"file": {"file_data": str(text)}}:
            return 200 + len(text)
    return 1000
