"""Idempotency keys: the same call twice is one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from edwin.errors import IdempotencyKeyReused, RunInterrupted
from edwin.runs import outcome
from edwin.runs.run import Run
from edwin.store import Store
from edwin.types import KeptRun, RunFailed, RunFinished, RunRequest, Usage


class _Claim:
    """A key that somebody uses in this process.

    Attributes:
        fingerprint: Of the request that claimed it.
        run: The run that came of it; None: none did, the key is free again.

    """

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.run: asyncio.Future[Run | None] = (
            asyncio.get_running_loop().create_future()
        )


class IdempotencyKeys:
    """Which keys are in use, and by which runs.

    A key is a principal's own.  It is in use from the request that brings it until the
    store lets the run's outcome go, unless that request was refused.

    Args:
        store: Knows the keys of runs that have ended.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claims: dict[tuple[str, str], _Claim] = {}

    async def run_of(
        self, request: RunRequest, begin: Callable[[RunRequest], Run]
    ) -> Run:
        """Return the run of *request*: the one its key has, or what *begin* returns.

        Raises:
            IdempotencyKeyReused: If the key was used with another request.
            StorageUnavailable: If the store cannot be asked.
            EdwinError: What *begin* raises; the key is free then.

        """
        assert request.idempotency is not None
        place = request.principal.id, request.idempotency.key
        while claim := self._claims.get(place):
            _check(request, claim.fingerprint)
            if run := await asyncio.shield(claim.run):
                if request.detached:
                    run.detach()
                return run
        claim = self._claims[place] = _Claim(request.idempotency.fingerprint)
        run = None
        try:
            kept = await self._store.kept(*place)
            if kept is not None:
                _check(request, kept.fingerprint)
                return _past(request, kept)
            run = begin(request)
            return run
        finally:
            claim.run.set_result(run)
            if run is None:
                del self._claims[place]

    def forget(self, request: RunRequest) -> None:
        """Let the key of *request* go: from here on the store knows, or it is free."""
        if request.idempotency is not None:
            self._claims.pop((request.principal.id, request.idempotency.key), None)


def _check(request: RunRequest, fingerprint: bytes) -> None:
    assert request.idempotency is not None
    if request.idempotency.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used with another request; make a new key for "
            "each new request",
            param="Idempotency-Key",
        )


def _past(request: RunRequest, kept: KeptRun) -> Run:
    """Return the run that the store has, as one that has ended."""
    record = kept.record
    end: RunFinished | RunFailed
    if kept.outcome is None:
        end = RunFailed(
            RunInterrupted(
                "the run with this Idempotency-Key was lost when the gateway went "
                "down; it is not carried out again"
            )
        )
    else:
        end = outcome.read(kept.outcome, record.usage or Usage())
    same = replace(
        request,
        run_id=record.run_id,
        request_id=record.request_id,
        session=record.session,
    )
    return Run.past(same, record, outcome.events(end))
