"""What every HTTP handler shares: auth before the body, JSON errors, ids, limits."""

from __future__ import annotations

import logging
import time
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from edwin.addresses import client_address
from edwin.auth import allow, check_place
from edwin.errors import (
    BodyTooLarge,
    EdwinError,
    EndpointDisabled,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    UnknownUrl,
    envelope,
)
from edwin.log import milliseconds
from edwin.runs.run import Run
from edwin.types import Principal
from edwin.validate import parse_json

if TYPE_CHECKING:
    from edwin.gateway import Gateway

# A refused request's body is read and thrown away up to here, so that the client gets
# to read the refusal instead of a reset connection.
DRAIN_BYTES = 1 << 20
_SERVER_BODY_BYTES = 1 << 40

_access = logging.getLogger("edwin.access")
_log = logging.getLogger("edwin")


class BaseHandler(RequestHandler):
    """What HTTP and WebSocket handlers share: ids, and errors as one envelope.

    Attributes:
        principal: Who sent the request, or None before authentication.
        run: The run the request made, or None.
        code: Code of the error that was answered, or None.
        address: Where the request comes from, past the trusted proxies.

    """

    # The request id is made when the first header is set, before initialize().
    request_id: str = ""
    principal: Principal | None = None
    run: Run | None = None
    code: str | None = None

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        self.gateway = gateway
        self.config = gateway.config
        self.received_at = time.time()
        self.address = client_address(
            self.request.remote_ip or "",
            self.request.headers.get("X-Forwarded-For"),
            self.config.gateway.trusted_proxies,
        )

    def set_default_headers(self) -> None:
        """Set what every answer has, errors included; called by Tornado."""
        self.request_id = self.request_id or f"req_{uuid.uuid4().hex}"
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("x-request-id", self.request_id)
        if self.run:
            self.set_run_headers(self.run)

    def set_run_headers(self, run: Run) -> None:
        """Say which run, agent and session the answer comes from."""
        self.set_header("x-edwin-run-id", run.id)
        self.set_header("x-edwin-agent-id", run.request.agent.id)
        self.set_header("x-edwin-session-key", run.request.session.key)

    def send_json(self, value: Any) -> None:
        """Make *value* the body."""
        self.write(orjson.dumps(value))

    @property
    def client_left(self) -> bool:
        """Whether the connection is gone."""
        stream = getattr(self.request.connection, "stream", None)
        return stream is None or stream.closed()

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
            self._render(raised)
        elif isinstance(raised, HTTPError):
            self._render(_own_error(raised))
        else:
            self._render(InternalError("internal error; the log has the details"))

    def _render(self, error: EdwinError) -> None:
        self.code = error.code
        self.set_status(error.status)
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(self._methods()))
        for name, value in error.headers.items():
            self.set_header(name, value)
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
        if stream is not None:
            stream.close()

    def on_finish(self) -> None:
        """Write the line of a request that made no run; called by Tornado."""
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


@stream_request_body
class ApiHandler(BaseHandler):
    """Base of the HTTP handlers: auth before the body, limits, the document.

    Attributes:
        public: Whether the route needs no authentication.
        action: What :func:`edwin.auth.allow` is asked for; None on public routes.
        schema: Name of the schema of the request's body, or None.
        endpoint: Name of the endpoint flag that switches the route, or None.

    """

    public: ClassVar[bool] = False
    action: ClassVar[str | None] = None
    schema: ClassVar[str | None] = None
    endpoint: ClassVar[str | None] = None

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        super().initialize(gateway)
        self._body: list[bytes] = []
        self._received = 0
        self._answered = False

    def prepare(self) -> None:
        """Authenticate and check what the head says, before the body is read."""
        connection = self.request.connection
        # Tornado's own limit answers with an empty 400: ours is checked here.
        connection.set_max_body_size(_SERVER_BODY_BYTES)  # type: ignore[union-attr]
        try:
            self._admit()
        except EdwinError as error:
            if not self._body_is_coming():
                raise
            self._refuse_and_drain(error)

    def _admit(self) -> None:
        check_place(
            self.config.gateway.auth.mode, self.request.headers, self.request.protocol
        )
        if not self.public:
            self.gateway.check_serving()
            self.principal = self.gateway.authenticator.by_headers(
                self.request.headers.get("Authorization"), self.address
            )
        if self.endpoint and not self._endpoint_enabled(self.endpoint):
            raise EndpointDisabled(
                "this endpoint is off; set gateway.http.endpoints."
                "chatCompletions.enabled: true in the gateway's configuration"
            )
        if self.action and self.principal:
            allow(self.principal, self.action)
        self._check_size(self._declared_size())

    def _endpoint_enabled(self, name: str) -> bool:
        endpoints = self.config.gateway.http.endpoints
        return bool(getattr(endpoints, name).enabled)

    def _declared_size(self) -> int:
        """Return the size that the head gives the body; 0 if it gives none."""
        length = self.request.headers.get("Content-Length", "0")
        # What is no number is Tornado's to refuse, when it reads the body.
        return int(length[:20]) if length.isascii() and length.isdigit() else 0

    def _check_size(self, size: int) -> None:
        limit = self.config.gateway.http.max_body_bytes
        if size > limit:
            raise BodyTooLarge(
                f"the request body has more than {limit} bytes "
                "(gateway.http.maxBodyBytes)"
            )

    def data_received(self, chunk: bytes) -> None:
        """Collect the body, or throw it away when the answer is out; by Tornado."""
        self._received += len(chunk)
        if self._answered:
            if self._received > DRAIN_BYTES and not self._finished:
                self.finish()
            return
        self._body.append(chunk)
        try:
            self._check_size(self._received)
        except BodyTooLarge as error:
            self._body.clear()
            self._refuse_and_drain(error)

    def _body_is_coming(self) -> bool:
        headers = self.request.headers
        # A client that waits for "100 Continue" has not sent its body.
        return "Expect" not in headers and (
            headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        )

    def _refuse_and_drain(self, error: EdwinError) -> None:
        """Send *error* now, and let the rest of the body run into the sand."""
        self._render(error)
        if self._declared_size() > DRAIN_BYTES:
            self.set_header("Connection", "close")
        body = b"".join(self._write_buffer)
        self.set_header("Content-Length", str(len(body)))
        self.flush()
        self._received = 0
        self._answered = True
        setattr(self, (self.request.method or "GET").lower(), self._after_refusal)

    def _after_refusal(self, *args: Any) -> None:
        """Stand in for the verb of a request that was refused before its body."""

    @property
    def document(self) -> Any:
        """The request's body, parsed and valid.

        Raises:
            InvalidRequest: If it is not JSON, or does not fit the schema.

        """
        document = parse_json(b"".join(self._body))
        self._body.clear()
        if self.schema:
            self.gateway.schemas.check(self.schema, document)
        return document

    def header(self, name: str) -> str | None:
        """Return the request's header *name*, or None without one.

        Raises:
            InvalidRequest: If it was sent twice.

        """
        values = self.request.headers.get_list(name)
        if len(values) > 1:
            raise InvalidRequest(
                f"{name} was sent {len(values)} times; send it once",
                param=name,
                code="invalid_value",
            )
        return values[0] if values else None


def _own_error(error: HTTPError) -> EdwinError:
    """Return Tornado's *error* as one of ours."""
    if error.status_code == 404:
        return UnknownUrl("no such URL; see docs/api.md for those there are")
    if error.status_code == 405:
        return MethodNotAllowed("this URL does not answer to that method")
    return InvalidRequest("the request cannot be read")


class UnknownUrlHandler(ApiHandler):
    """Answer every URL that nobody else answers to."""

    public = True

    def _admit(self) -> None:
        raise UnknownUrl(f"no such URL: {self.request.method} {self.request.path[:80]}")
