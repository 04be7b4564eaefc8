"""What a request for a run asks for beside its body."""

from __future__ import annotations

import re
from typing import Any

from edwin import dispatch
from edwin.errors import InvalidRequest
from edwin.handlers.answer import RunHandler
from edwin.routing import HEADER as AGENT_HEADER
from edwin.runs.run import Run
from edwin.sessions.keys import HEADER as KEY_HEADER
from edwin.tracing import incoming
from edwin.types import ChatRequest
from edwin.wire.fingerprint import fingerprint
from edwin.wire.openai import parse_chat

IDEMPOTENCY_HEADER = "Idempotency-Key"
TIMEOUT_HEADER = "x-edwin-timeout-ms"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
_MAX_DIGITS = 9


class AskingHandler(RunHandler):
    """Base of the handlers whose requests begin runs."""

    _holds = False

    def prepare(self) -> None:
        """Keep what the request began with for it; called by Tornado."""
        if self.executor is not None:
            self._holds = True
            self.executor.hold()
        super().prepare()

    def on_connection_close(self) -> None:
        """Let go of it; called by Tornado."""
        super().on_connection_close()
        # What has become of the request by now, a run, holds it for itself.
        self._let_go()

    def on_finish(self) -> None:
        """Let go of it; called by Tornado."""
        super().on_finish()
        self._let_go()

    def _let_go(self) -> None:
        if self._holds and self.executor is not None:
            self._holds = False
            self.executor.release()

    def chat_request(self, document: Any, *, detached: bool = False) -> ChatRequest:
        """Return what the request asks for, body and headers.

        Args:
            document: Its body, valid.
            detached: Whether the run is to go on without readers.

        Raises:
            InvalidRequest: If a header, or what no schema can say of the body, is
                wrong.

        """
        retries = self.request.headers.get("x-stainless-retry-count", "0")
        param, session_key = self._session_key()
        name = self._idempotency_key()
        return parse_chat(
            document,
            agent=self.header(AGENT_HEADER),
            session_key=session_key,
            session_key_param=param,
            retry_count=int(retries) if _is_count(retries) else 0,
            request_id=self.request_id,
            log_fields=self.log_fields(),
            trace=incoming(self.request.headers),
            idempotency_key=name,
            fingerprint=b"" if name is None else fingerprint(document),
            detached=detached,
            timeout_s=self._timeout_s(),
        )

    async def submit(self, request: ChatRequest) -> Run:
        """Return the run of *request*; see :func:`edwin.dispatch.submit`."""
        assert self.principal is not None
        return await dispatch.submit(
            self.gateway,
            request,
            self.principal,
            config=self.config,
            executor=self.executor,
        )

    def _session_key(self) -> tuple[str, str | None]:
        """Return the header that gives a session key, and the key, or None."""
        key = self.header(KEY_HEADER)
        if key is None:
            chat = self.config.gateway.http.endpoints.chat_completions
            for name in chat.session_headers:
                if key := self.header(name):
                    return name, key
        return KEY_HEADER, key

    def _idempotency_key(self) -> str | None:
        key = self.header(IDEMPOTENCY_HEADER)
        if key is not None and not _VISIBLE.fullmatch(key):
            raise InvalidRequest(
                f"{IDEMPOTENCY_HEADER} must be 1 to 255 visible ASCII characters",
                param=IDEMPOTENCY_HEADER,
                code="invalid_value",
            )
        return key

    def _timeout_s(self) -> float | None:
        value = self.header(TIMEOUT_HEADER)
        if value is None:
            return None
        if not _is_count(value) or not int(value):
            raise InvalidRequest(
                f"{TIMEOUT_HEADER} must be a whole number of milliseconds above 0",
                param=TIMEOUT_HEADER,
                code="invalid_value",
            )
        return int(value) / 1000


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
