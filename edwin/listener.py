"""The server of a gateway that is not mounted into a host's application."""

from __future__ import annotations

from collections.abc import Awaitable
from ssl import SSLContext
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from edwin.app import make_app
from edwin.errors import StateError
from edwin.tls import configured

if TYPE_CHECKING:
    from edwin.gateway import Gateway

HEADER_BYTES = 64 * 1024
# Connections that may wait to be taken up; the system has a limit of its own.
BACKLOG = 4096


class Listener:
    """Serves a gateway on the address of its configuration.

    Args:
        gateway: Answers the requests.

    Attributes:
        address: The address and the port, which is a free one where 0 was asked for.
        scheme: ``https`` or ``http``.

    Raises:
        StateError: If the address cannot be bound.
        ConfigError: If the certificate, or its key, cannot be used.

    """

    def __init__(self, gateway: Gateway) -> None:
        config = gateway.config.gateway
        tls = configured(config.tls)
        try:
            sockets = bind_sockets(config.port, config.bind, backlog=BACKLOG)
        except OSError as error:
            raise StateError(
                f"{config.bind}:{config.port} cannot be bound: "
                f"{error.strerror or error}; stop what uses it, or choose another with "
                "--port"
            ) from error
        self._server = HTTPServer(
            make_app(gateway),
            ssl_options=tls,
            max_header_size=HEADER_BYTES,
            idle_connection_timeout=config.http.idle_seconds,
            body_timeout=config.http.body_seconds,
        )
        self._server.add_sockets(sockets)
        self.address: tuple[str, int] = config.bind, sockets[0].getsockname()[1]
        self.scheme = "https" if tls else "http"

    def use(self, tls: SSLContext | None) -> None:
        """Encrypt the connections to come with *tls*, if they are encrypted at all."""
        if self._server.ssl_options and tls:
            # A context that is loaded anew may be left with half of either.
            self._server.ssl_options = tls

    def drain(self) -> None:
        """Take no new connections, and end each with its request."""
        self._server.conn_params.no_keep_alive = True
        self._server.stop()

    def close(self) -> Awaitable[None]:
        """Close every connection that is no WebSocket."""
        return self._server.close_all_connections()
