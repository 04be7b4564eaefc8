"""Refuse a request by its head, before its body, so that the client gets to know."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from edwin import origins
from edwin.errors import EdwinError
from edwin.handlers.base import BaseHandler

if TYPE_CHECKING:
    from edwin.gateway import Gateway

# A refused request's body is read and thrown away up to here, so that the client gets
# to read the refusal instead of a reset connection.
LINGER_BYTES = 64 << 20
LINGER_SECONDS = 5


class GuardedHandler(BaseHandler):
    """Base of the handlers that see a request's head before its body.

    They are decorated with Tornado's ``stream_request_body``, and throw away whatever
    of a body they do not want.
    """

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        super().initialize(gateway)
        self._received = 0
        self._lingering: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Let the request in, or refuse it; called by Tornado."""
        try:
            self.check_page()
            if self._is_preflight():
                self.options = self._answer_preflight
            else:
                self.admit()
        except EdwinError as error:
            # A client that waits for "100 Continue" has not sent its body.
            self.refuse(error, linger="Expect" not in self.request.headers)

    def _is_preflight(self) -> bool:
        """Return whether a browser asks what an allowed page may send."""
        headers = self.request.headers
        return (
            self.request.method == "OPTIONS"
            and self.page_is_allowed
            and "Access-Control-Request-Method" in headers
            and "Transfer-Encoding" not in headers
            and headers.get("Content-Length", "0") == "0"
        )

    def _answer_preflight(self, *args: Any) -> None:
        """Say what it may."""
        self.set_status(204)
        self.clear_header("Content-Type")
        for name, value in origins.PREFLIGHT.items():
            self.set_header(name, value)

    def admit(self) -> None:
        """Return if the request may come in, by its head.

        Raises:
            EdwinError: If not.

        """

    def take(self, chunk: bytes) -> None:
        """Take a piece of the body; by default, throw it away."""

    def data_received(self, chunk: bytes) -> None:
        """Hand a piece of the body on, unless the request was refused; by Tornado."""
        self._received += len(chunk)
        if self._lingering is None:
            self.take(chunk)
        elif self._received > LINGER_BYTES:
            self._stop_lingering()

    def refuse(self, error: EdwinError, *, linger: bool) -> None:
        """Answer with *error* before the body has been read, if there is any.

        Args:
            error: What is answered.
            linger: Whether to read the body to its end for a while, and then keep the
                connection; else it is closed.

        """
        self.render_error(error)
        if not linger or not self.framing_is_plain:
            self.set_header("Connection", "close")
            self.finish()
            return
        if self.declared_bytes > LINGER_BYTES:
            self.set_header("Connection", "close")
        self.set_header("Content-Length", str(sum(map(len, self._write_buffer))))
        self.flush()
        self._received = 0
        self._lingering = asyncio.get_running_loop().call_later(
            LINGER_SECONDS, self._stop_lingering
        )
        setattr(self, (self.request.method or "GET").lower(), self._after_refusal)

    def _stop_lingering(self) -> None:
        """Read no more of the body: with the answer's end the connection closes."""
        if not self._finished and not self.client_left:
            self.finish()

    def _after_refusal(self, *args: Any) -> None:
        """Stand in for the verb of a request that was refused before its body."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render what was raised; by Tornado."""
        super().write_error(status_code, **kwargs)
        if self._prepared_future is not None and not self._prepared_future.done():
            # Before the body is read, Tornado closes after the answer.
            self.set_header("Connection", "close")

    def on_finish(self) -> None:
        """Let go, and write the line of the request; called by Tornado."""
        if self._lingering is not None:
            self._lingering.cancel()
        super().on_finish()
