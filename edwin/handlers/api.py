"""The HTTP handlers' base: auth before the body, limits, the parsed document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tornado.web import stream_request_body

from edwin.auth import allow, check_place
from edwin.errors import (
    BodyTooLarge,
    EndpointDisabled,
    InvalidRequest,
    UnknownUrl,
)
from edwin.handlers.guarded import GuardedHandler
from edwin.validate import parse_json

if TYPE_CHECKING:
    from edwin.gateway import Gateway

_SERVER_BODY_BYTES = 1 << 62


@stream_request_body
class ApiHandler(GuardedHandler):
    """Base of the HTTP handlers.

    Attributes:
        public: Whether the route needs no authentication.
        action: What :func:`edwin.auth.allow` is asked for; None on public routes.
        schema: Name of the schema of the request's body; None: it has none.
        endpoint: Name of the endpoint flag that switches the route, or None.

    """

    public: bool = False
    action: str | None = None
    schema: str | None = None
    endpoint: str | None = None

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        super().initialize(gateway)
        self._body: list[bytes] = []

    def prepare(self) -> None:
        """Let the request in, or refuse it; called by Tornado."""
        connection = self.request.connection
        # Tornado's own limit answers with an empty 400: ours is checked here.
        connection.set_max_body_size(_SERVER_BODY_BYTES)  # type: ignore[union-attr]
        super().prepare()

    def admit(self) -> None:
        """Return if the request may come in, by its head.

        Raises:
            EdwinError: If not.

        """
        check_place(self.config.gateway.auth.mode, self.request.headers)
        if not self.public:
            self.gateway.check_serving()
            self.principal, self.secret = self.gateway.authenticator.by_headers(
                self.request.headers,
                self.address,
                self.request_id,
                peer=self.request.remote_ip or "",
            )
        if self.endpoint and not self._endpoint_enabled(self.endpoint):
            raise EndpointDisabled(
                "this endpoint is off; set gateway.http.endpoints."
                "chatCompletions.enabled: true in the gateway's configuration"
            )
        if self.action and self.principal:
            allow(self.principal, self.action)
        if not self.framing_is_plain:
            raise InvalidRequest(
                "Content-Length and Transfer-Encoding do not say in one way where the "
                "body ends"
            )
        self._check_size(self.declared_bytes)

    def _endpoint_enabled(self, name: str) -> bool:
        endpoints = self.config.gateway.http.endpoints
        return bool(getattr(endpoints, name).enabled)

    def _check_size(self, size: int) -> None:
        limit = self.config.gateway.http.max_body_bytes
        if size > limit:
            raise BodyTooLarge(
                f"the request body has more than {limit} bytes "
                "(gateway.http.maxBodyBytes)"
            )

    def on_connection_close(self) -> None:
        """Let go of what has come of the body; called by Tornado."""
        super().on_connection_close()
        # Something of Tornado's own holds the handler until a full collection.
        self._body.clear()

    def take(self, chunk: bytes) -> None:
        """Collect the body, where the route wants one."""
        if self.schema is not None:
            self._body.append(chunk)
        try:
            self._check_size(self._received)
        except BodyTooLarge as error:
            self._body.clear()
            self.refuse(error, linger=True)

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


class UnknownUrlHandler(ApiHandler):
    """Answer every URL that nobody else answers to."""

    public = True

    def admit(self) -> None:
        """Refuse, whatever the request."""
        raise UnknownUrl(f"no such URL: {self.request.method} {self.request.path[:80]}")
