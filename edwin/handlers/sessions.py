"""``/v1/sessions``: which there are, one of them, its deletion, a new beginning."""

from __future__ import annotations

from edwin import history
from edwin.handlers import query
from edwin.handlers.api import ApiHandler
from edwin.handlers.give import give
from edwin.types import SessionId


class SessionsHandler(ApiHandler):
    """Answer ``GET /v1/sessions``."""

    route = "/v1/sessions"
    action = "sessions:read"

    async def get(self) -> None:
        """List sessions, the ones used last first."""
        assert self.principal is not None
        page = await history.page(
            self.gateway,
            self.principal,
            agent=query.text(self, "agent"),
            limit=query.limit(self),
            after=query.text(self, "after"),
        )
        await give(self, page)

    head = get


class SessionHandler(ApiHandler):
    """Answer ``GET`` and ``DELETE /v1/sessions/item``."""

    route = "/v1/sessions/item"
    action = "sessions:read"

    def admit(self) -> None:
        """Return if the request may come in; deleting takes more than a look."""
        if self.request.method == "DELETE":
            self.action = "sessions:write"
        super().admit()

    async def get(self) -> None:
        """Show a session and a page of its messages."""
        page = await history.transcript(
            self.gateway,
            self._session(),
            after=query.number(self, "after") or 0,
            limit=query.limit(self),
            superseded=query.choice(self, "superseded", ("true", "false")) == "true",
        )
        await give(self, page)

    head = get

    async def delete(self) -> None:
        """Delete a session."""
        session = self._session()
        await give(self, await history.delete(self.gateway, session, self.source))

    def _session(self) -> SessionId:
        """Return which session the URL names; it need not be there."""
        assert self.principal is not None
        agent, key = query.required(self, "agent"), query.required(self, "key")
        return history.session_id(
            self.principal, agent, key, query.text(self, "principal")
        )


class SessionResetHandler(ApiHandler):
    """Answer ``POST /v1/sessions/reset``."""

    route = "/v1/sessions/reset"
    action = "sessions:write"
    schema = "sessions/reset"

    async def post(self) -> None:
        """Let a session begin anew."""
        assert self.principal is not None
        document = self.document
        session = history.session_id(
            self.principal,
            document["agent"],
            document["key"],
            document.get("principal"),
        )
        await give(self, await history.reset(self.gateway, session, self.source))
