"""What every handler shares: ids, and errors as one envelope."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from edwin import origins
from edwin.addresses import client_address
from edwin.audit import Source
from edwin.errors import (
    EdwinError,
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    UnknownUrl,
    envelope,
)
from edwin.handlers.reset import reset
from edwin.ids import new_id
from edwin.log import milliseconds
from edwin.runs.run import Run
from edwin.types import Principal

if TYPE_CHECKING:
    from edwin.gateway import Gateway

# What the metrics call the status of a request whose client did not wait for one.
CLIENT_LEFT = 499

SAFE_HEADERS = (
    ("Content-Type", "application/json"),
    # Answers hold what somebody said: nobody keeps them, guesses what they are, or
    # shows them in a page that was not let in.
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

_access = logging.getLogger("edwin.access")
_log = logging.getLogger("edwin")


class BaseHandler(RequestHandler):
    """What HTTP and WebSocket handlers share: ids, and errors as one envelope.

    Attributes:
        principal: Who sent the request, or None before authentication.
        secret: Digest of what it authenticated with; empty: it took none.
        run: The run the request made, or None.
        code: Code of the error that was answered, or None.
        route: The route as the metrics name it; ``other``: none of Edwin's.
        address: Where the request comes from, past the trusted proxies.

    """

    # The request id is made when the first header is set, before initialize().
    request_id: str = ""
    principal: Principal | None = None
    secret: bytes = b""
    run: Run | None = None
    code: str | None = None
    route: ClassVar[str] = "other"
    _counted = False
    _pages: frozenset[str] = frozenset()

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        self.gateway = gateway
        self.config = gateway.config
        self.executor = getattr(gateway, "executor", None)
        self.received_at = time.time()
        self.address = client_address(
            self.request.remote_ip or "",
            self.request.headers.get("X-Forwarded-For"),
            self.config.gateway.trusted_proxies,
        )
        self._pages = self.config.gateway.http.cors.allowed_origins
        self._allow_page()

    @property
    def source(self) -> Source:
        """Who sent the request, as the audit log has it."""
        principal = self.principal.id if self.principal else None
        return Source(principal, self.address, self.request_id)

    def set_default_headers(self) -> None:
        """Set what every answer has, errors included; called by Tornado."""
        self.request_id = self.request_id or new_id("req")
        self.clear_header("Server")
        self.set_header("x-request-id", self.request_id)
        for name, value in SAFE_HEADERS:
            self.set_header(name, value)
        self._allow_page()
        if self.run:
            self.set_run_headers(self.run)
        elif self.principal and self.principal.limits:
            self.set_quota_headers(self.principal)

    def _allow_page(self) -> None:
        """Let the page that asked read the answer, where the operator lets it."""
        if not self._pages:
            return
        self.set_header("Vary", "Origin")
        if self.page_is_allowed:
            origin = self.request.headers["Origin"]
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", origins.ANSWER_HEADERS)

    @property
    def page_is_allowed(self) -> bool:
        """Whether the request comes from one of the pages of ``allowedOrigins``."""
        origin = self.request.headers.get("Origin")
        return origin is not None and origins.normal(origin) in self._pages

    def check_page(self) -> None:
        """Return if no foreign web page has sent the request.

        Before authentication: a page must not get its visitor shut out by guessing.

        Raises:
            Forbidden: If one has, whatever secret it brings.

        """
        if "Origin" not in self.request.headers:
            return
        schemes = {self.request.protocol}
        if self.config.gateway.auth.mode != "none":
            # Before plain http there may be a proxy with a certificate.
            schemes.add("https")
        if origins.is_foreign(
            self.request.headers["Origin"],
            schemes=schemes,
            host=self.request.headers.get("Host"),
            allowed=self._pages,
        ):
            raise Forbidden(
                "Origin must be the gateway's own, or one of "
                "gateway.http.cors.allowedOrigins"
            )

    def set_run_headers(self, run: Run) -> None:
        """Say which run, agent and session the answer comes from."""
        self.set_header("x-edwin-run-id", run.id)
        self.set_header("x-edwin-agent-id", run.request.agent.id)
        self.set_header("x-edwin-session-key", run.request.session.key)
        if self.replays(run):
            self.set_header("x-edwin-replayed", "true")
        if run.request.principal.limits:
            self.set_quota_headers(run.request.principal)
        if self.config.gateway.http.server_timing and (times := _timing(run)):
            self.set_header("Server-Timing", times)

    def set_quota_headers(self, principal: Principal) -> None:
        """Say how much *principal* may still use, in OpenAI's words."""
        quotas, now = self.gateway.quotas, time.time()
        for name, standing in (
            ("requests", quotas.requests(principal, now)),
            ("tokens", quotas.tokens(principal, now)),
        ):
            if standing is not None:
                self.set_header(f"x-ratelimit-limit-{name}", str(standing.limit))
                left = str(standing.remaining)
                self.set_header(f"x-ratelimit-remaining-{name}", left)
                reset = f"{standing.reset_s:.3f}s"
                self.set_header(f"x-ratelimit-reset-{name}", reset)

    def replays(self, run: Run) -> bool:
        """Return whether *run* is an earlier request's, by its idempotency key."""
        return run.request.request_id != self.request_id

    def send_json(self, value: Any) -> None:
        """Make *value* the body."""
        self.write(orjson.dumps(value))

    @property
    def client_left(self) -> bool:
        """Whether the connection is gone."""
        stream = getattr(self.request.connection, "stream", None)
        return stream is None or stream.closed()

    @property
    def framing_is_plain(self) -> bool:
        """Whether the head says in one way only where the request's body ends."""
        length = self.request.headers.get("Content-Length")
        encoding = self.request.headers.get("Transfer-Encoding")
        if encoding is not None:
            return length is None and encoding.lower() == "chunked"
        return length is None or (length.isascii() and length.isdigit())

    @property
    def declared_bytes(self) -> int:
        """The size that the head gives the body; 0 if it gives none."""
        length = self.request.headers.get("Content-Length", "0")
        # More digits than any size has are as good as the first of them.
        return int(length[:20]) if self.framing_is_plain else 0

    def check_xsrf_cookie(self) -> None:
        """Do nothing: no cookie ever authenticates here."""

    def compute_etag(self) -> str | None:
        """Return None: answers are not cached."""
        return None

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log a defect; errors that are rendered have a line of their own."""
        if (
            typ
            and value
            and not issubclass(typ, EdwinError | HTTPError | StreamClosedError)
        ):
            _log.error(
                "request failed",
                exc_info=(typ, value, tb),
                extra={"fields": {"request_id": self.request_id}},
            )

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error; called by Tornado with what was raised."""
        _, raised, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(raised, EdwinError):
            # A run keeps its error, and the traceback has what keeps the run.
            raised.__traceback__ = None
        if self.client_left:
            self._auto_finish = False
        elif self._headers_written:
            self.cut()
        else:
            super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render what was raised as the one envelope."""
        _, raised, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(raised, EdwinError):
            self.render_error(raised)
        elif isinstance(raised, HTTPError):
            self.render_error(_own_error(raised))
        else:
            self.render_error(InternalError("internal error; the log has the details"))

    def render_error(self, error: EdwinError) -> None:
        """Make *error* the answer."""
        self.code = error.code
        self.set_status(error.status)
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(self._methods()))
        for name, value in error.headers.items():
            self.set_header(name, value)
        run = self.run
        if run and (run.effects or (self.replays(run) and not run.released)):
            # What was done would be done twice; and it is what the key stands for.
            self.set_header("x-should-retry", "false")
        self.send_json(envelope(error))

    def _methods(self) -> list[str]:
        """Return the methods that the route answers to."""
        missing = RequestHandler._unimplemented_method
        return [
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower()) is not missing
        ]

    def cut(self) -> None:
        """Close the connection without the final chunk: the answer is not whole."""
        self._auto_finish = False
        stream = getattr(self.request.connection, "stream", None)
        if stream is None:
            return
        if self.request.version == "HTTP/1.0":
            # Without chunks a close is a clean end; only a reset is none.
            reset(stream)
        else:
            stream.close()

    def on_connection_close(self) -> None:
        """Count the request that its client gave up; called by Tornado."""
        super().on_connection_close()
        self._count(self.get_status() if self._headers_written else CLIENT_LEFT)
        # Tornado breaks this cycle in finish(), which is not called any more: the
        # handler, its run and all its events would stay until a full collection.
        self.ui = {}  # type: ignore[assignment]

    def _count(self, status: int) -> None:
        if not self._counted:
            self._counted = True
            method = self.request.method
            self.gateway.metrics.requests.add(
                self.route,
                method if method in self.SUPPORTED_METHODS else "other",
                status,
            )

    def on_finish(self) -> None:
        """Write the line of a request that made no run; called by Tornado."""
        self._count(self.get_status())
        if self.run is None:
            fields = {
                **self.log_fields(),
                "status": self.get_status(),
                "code": self.code,
                "total_ms": milliseconds(self.received_at),
            }
            _access.info("request", extra={"fields": fields})

    def log_fields(self) -> dict[str, Any]:
        """Return what the log says of the request: nothing that a person wrote."""
        return {
            "request_id": self.request_id,
            "method": self.request.method,
            "path": self.request.path,
            "remote": self.address,
            "principal": self.principal.id if self.principal else None,
        }


def _timing(run: Run) -> str:
    """Return where the time of *run* went as far as it has come, in milliseconds."""
    times = {"queue": None, "first": run.first_delta_ms, "total": None}
    if run.started_at is not None:
        times["queue"] = milliseconds(run.created_at, run.started_at)
    if run.finished_at is not None:
        times["total"] = milliseconds(run.created_at, run.finished_at)
    return ", ".join(f"{k};dur={ms}" for k, ms in times.items() if ms is not None)


def _own_error(error: HTTPError) -> EdwinError:
    """Return Tornado's *error* as one of ours."""
    if error.status_code == 404:
        return UnknownUrl("no such URL; see docs/api.md for those there are")
    if error.status_code == 405:
        return MethodNotAllowed("this URL does not answer to that method")
    return InvalidRequest("the request cannot be read")
