"""What a gateway keeps, where this process holds it."""

from __future__ import annotations

from typing import Any

from edwin import history, ledger, people
from edwin.audit import Source
from edwin.gateway import Gateway
from edwin.types import OWNER

Document = dict[str, Any]

BY_COMMAND = Source(OWNER.id)


class InProcess:
    """Does in this process what a gateway does when it is asked over HTTP.

    Args:
        gateway: One that has been started.

    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list_runs(
        self,
        *,
        agent: str | None = None,
        session: str | None = None,
        state: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Document:
        """Return a page of runs, newest first."""
        wanted = ledger.Wanted(agent, session, state)
        return await ledger.page(self._gateway, OWNER, wanted, limit=limit, after=after)

    async def show_run(self, run_id: str) -> Document:
        """Return a run."""
        return await ledger.run(self._gateway, OWNER, run_id)

    async def cancel_run(self, run_id: str) -> Document:
        """Return a run, ended."""
        return await ledger.cancel(self._gateway, OWNER, run_id, BY_COMMAND)

    async def list_sessions(
        self, *, agent: str | None = None, limit: int = 20, after: str | None = None
    ) -> Document:
        """Return a page of sessions, last used first."""
        return await history.page(
            self._gateway, OWNER, agent=agent, limit=limit, after=after
        )

    async def show_session(
        self,
        agent: str,
        key: str,
        *,
        after: int = 0,
        limit: int = 20,
        superseded: bool = False,
    ) -> Document:
        """Return a session and a page of its messages."""
        return await history.transcript(
            self._gateway,
            history.session_id(OWNER, agent, key),
            after=after,
            limit=limit,
            superseded=superseded,
        )

    async def delete_session(self, agent: str, key: str) -> Document:
        """Delete a session."""
        session = history.session_id(OWNER, agent, key)
        return await history.delete(self._gateway, session, BY_COMMAND)

    async def reset_session(self, agent: str, key: str) -> Document:
        """Let a session begin anew."""
        session = history.session_id(OWNER, agent, key)
        return await history.reset(self._gateway, session, BY_COMMAND)

    async def list_tokens(self) -> Document:
        """Return who has a token."""
        return people.page(self._gateway)

    async def create_token(self, document: Document) -> Document:
        """Make a token."""
        self._gateway.schemas.check("tokens/create", document)
        return await people.create(self._gateway, document, BY_COMMAND)

    async def rotate_token(self, id: str) -> Document:
        """Put a new token in an old one's place."""
        return await people.rotate(self._gateway, id, BY_COMMAND)

    async def revoke_token(self, id: str) -> Document:
        """Revoke a token."""
        return await people.revoke(self._gateway, id, BY_COMMAND)
