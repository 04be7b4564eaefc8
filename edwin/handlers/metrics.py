"""``GET /metrics``: what the gateway counts, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edwin.handlers.api import ApiHandler
from edwin.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from edwin.gateway import Gateway


class MetricsHandler(ApiHandler):
    """Answer ``GET /metrics``; without authentication where it is public."""

    route = "/metrics"
    action = "metrics:read"

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        super().initialize(gateway)
        self.public = self.config.gateway.metrics.public

    def get(self) -> None:
        """Give them all."""
        self.set_header("Content-Type", CONTENT_TYPE)
        self.write(self.gateway.metrics.scrape())

    head = get
