"""``GET /healthz`` and ``GET /readyz``: without authentication and without detail."""

from __future__ import annotations

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
        self.send_json({"status": state})

    head = get
