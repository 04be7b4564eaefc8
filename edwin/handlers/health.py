"""``GET /healthz`` and ``GET /readyz``: without authentication and without detail.

Save for one: an administrator who asks ``/readyz`` is told of the servers of tools.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from edwin.errors import TooManyFailures, Unauthenticated
from edwin.handlers.api import ApiHandler


class HealthHandler(ApiHandler):
    """Answer ``GET /healthz``: the process serves."""

    route = "/healthz"
    public = True

    def get(self) -> None:
        """Say so."""
        self.send_json({"status": "ok"})

    head = get


class ReadyHandler(ApiHandler):
    """Answer ``GET /readyz``: the gateway takes runs."""

    route = "/readyz"
    public = True

    def get(self) -> None:
        """Say whether it does."""
        state = self.gateway.state
        if state == "ready" and not self.gateway.store.writable:
            state = "storage_unavailable"
        if state != "ready":
            self.set_status(503)
        answer: dict[str, Any] = {"status": state}
        if self._asks_an_administrator():
            answer["tools"] = [
                {
                    "server": server.label,
                    "state": server.state,
                    "tools": server.tools,
                    "restarts": server.restarts,
                    "error": server.error,
                }
                for server in self.gateway.tools.servers()
            ]
        self.send_json(answer)

    head = get

    def _asks_an_administrator(self) -> bool:
        """Return whether the request comes from one.

        A wrong secret is answered like none, because what asks here is a probe that may
        send whatever it has; it counts against its address as everywhere.
        """
        if self.gateway.state not in ("ready", "draining"):
            return False
        # In the other modes it takes no secret to be somebody.
        needs_secret = self.config.gateway.auth.mode in ("token", "password")
        if needs_secret and not self.request.headers.get("Authorization"):
            return False
        with suppress(Unauthenticated, TooManyFailures):
            principal, _ = self.gateway.authenticator.by_headers(
                self.request.headers,
                self.address,
                self.request_id,
                peer=self.request.remote_ip or "",
            )
            return "admin" in principal.scopes
        return False
