"""``/ws``: the WebSocket on the gateway's port; frames in ``schemas/ws``.

A connection authenticates with an ``Authorization`` header or with its first frame,
``connect``.  Frames are read by one task in the order they come.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from tornado.web import RequestHandler, stream_request_body
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from edwin import __version__
from edwin.auth import check_place
from edwin.errors import (
    EdwinError,
    Forbidden,
    InternalError,
    InvalidRequest,
    UpgradeRequired,
)
from edwin.handlers.guarded import GuardedHandler
from edwin.validate import parse_json
from edwin.wire import frames

if TYPE_CHECKING:
    from edwin.gateway import Gateway

PROTOCOL = 1
CONNECT_SECONDS = 10
MAX_QUEUED_FRAMES = 64
MAX_FRAME_BYTES = 64 * 1024
GOING_AWAY = 1001
POLICY_VIOLATION = 1008

_log = logging.getLogger("edwin.socket")


@stream_request_body
class SocketHandler(GuardedHandler, WebSocketHandler):
    """One client's connection."""

    route = "/ws"

    def initialize(self, gateway: Gateway) -> None:
        """Take the gateway and today's configuration; called by Tornado."""
        super().initialize(gateway)
        self._frames: asyncio.Queue[str | bytes] = asyncio.Queue(MAX_QUEUED_FRAMES)
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def admit(self) -> None:
        """Authenticate by header, where there is one.

        Raises:
            InvalidRequest: If the handshake has a body.
            Forbidden: If it comes from a page under a rebound name.
            Unauthenticated: If the header's secret is wrong.

        """
        if self.declared_bytes or "Transfer-Encoding" in self.request.headers:
            raise InvalidRequest("a WebSocket's handshake has no body")
        self.gateway.check_serving()
        auth = self.config.gateway.auth
        check_place(auth.mode, self.request.headers)
        authorization = self.request.headers.get("Authorization")
        if authorization or auth.mode in ("none", "trusted-proxy"):
            self.principal, self.secret = self.gateway.authenticator.by_headers(
                self.request.headers,
                self.address,
                self.request_id,
                peer=self.request.remote_ip or "",
            )

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Shake hands; called by Tornado.

        Raises:
            UpgradeRequired: If the request is no handshake of WebSocket 13.

        """
        headers = self.request.headers
        asked = headers.get("Upgrade", "").lower() == "websocket"
        version = headers.get("Sec-WebSocket-Version")
        if not asked or version != "13" or "Sec-WebSocket-Key" not in headers:
            self.set_header("Sec-WebSocket-Version", "13")
            raise UpgradeRequired("this URL is a WebSocket (version 13)")
        await super().get(*args, **kwargs)

    def check_origin(self, origin: str) -> bool:
        """Return True: foreign pages were refused by then; called by Tornado."""
        return True

    @property
    def max_message_size(self) -> int:
        """The longest frame taken, in bytes; Tornado closes with 1009 above it."""
        return MAX_FRAME_BYTES

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin to read frames; called by Tornado."""
        self.set_nodelay(True)
        self.gateway.sockets.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            CONNECT_SECONDS, self.shut, "no connect frame came"
        )
        self._reader = loop.create_task(self._read(), name="socket reader")

    def on_message(self, message: str | bytes) -> None:
        """Put the frame in line: one that is waited for here blocks the next."""
        try:
            self._frames.put_nowait(message)
        except asyncio.QueueFull:
            self.shut("too many frames wait")

    def on_close(self) -> None:
        """Let everything go; called by Tornado."""
        self.gateway.sockets.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.cancel()

    def on_connection_close(self) -> None:
        """Let go of a handshake whose client has gone; called by Tornado."""
        super().on_connection_close()
        # Tornado's WebSocketHandler forgets who waits for the body.
        RequestHandler.on_connection_close(self)

    def shut(self, reason: str) -> None:
        """Close because the client broke the protocol."""
        self.close(POLICY_VIOLATION, reason)

    def go_away(self) -> None:
        """Close because the gateway is shutting down."""
        self.close(GOING_AWAY, "the gateway is shutting down")

    def cut(self) -> None:
        """Close without waiting for the client's part."""
        if self.ws_connection is not None and self.ws_connection.stream is not None:
            self.ws_connection.stream.close()

    async def _read(self) -> None:
        """Answer frames one by one until the connection closes."""
        while True:
            message = await self._frames.get()
            id: str | None = None
            try:
                document = self._document(message)
                if isinstance(document, dict) and isinstance(document.get("id"), str):
                    id = document["id"]
                frame = self._frame(document)
                answer = frames.response(frame["id"], self._answer(frame))
                await self.write_message(answer)
            except WebSocketClosedError:
                return
            except EdwinError as error:
                await self._fail(id, error)
            except Exception:
                _log.exception("frame failed")
                await self._fail(id, InternalError("internal error"))

    async def _fail(self, id: str | None, error: EdwinError) -> None:
        """Tell what is wrong, and close."""
        try:
            await self.write_message(frames.failure(id, error))
        except WebSocketClosedError:
            return
        # A reason has room for 123 bytes.
        self.shut(error.message.encode()[:120].decode(errors="ignore"))

    def _document(self, message: str | bytes) -> Any:
        data = message.encode() if isinstance(message, str) else message
        return parse_json(data, what="the frame")

    def _frame(self, document: Any) -> dict[str, Any]:
        """Return *document* as a frame of the protocol.

        Raises:
            InvalidRequest: If it is none.

        """
        self.gateway.schemas.check("ws/request", document)
        assert isinstance(document, dict)
        return document

    def _answer(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return what *frame* asks for.

        Raises:
            Unauthenticated: If nobody has authenticated, or with a wrong secret.

        """
        if frame["method"] == "connect":
            return self._connect(frame.get("params") or {})
        if self._timer is not None:
            raise Forbidden("the first frame must be connect")
        return {"status": self.gateway.state}

    def _connect(self, params: dict[str, Any]) -> dict[str, Any]:
        auth = params.get("auth") or {}
        secret = auth.get("token") or auth.get("password")
        if self.principal is None:
            self.principal, self.secret = self.gateway.authenticator.by_secret(
                (secret or "").encode(), self.address, self.request_id
            )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return {
            "protocol": PROTOCOL,
            "server": {"name": "edwin", "version": __version__},
            "principal": self.principal.id,
            "methods": ["connect", "health"],
            "limits": {"maxFrameBytes": MAX_FRAME_BYTES},
        }
