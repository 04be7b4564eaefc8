"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from edwin import dispatch
from edwin.handlers.answer import RunHandler
from edwin.routing import HEADER as AGENT_HEADER
from edwin.sessions.keys import HEADER as KEY_HEADER
from edwin.tracing import incoming
from edwin.wire.openai import parse_chat


class ChatCompletionsHandler(RunHandler):
    """Answer ``POST /v1/chat/completions``."""

    route = "/v1/chat/completions"
    schema = "openai/chat_completion_request"
    action = "runs:create"
    endpoint = "chat_completions"

    async def post(self) -> None:
        """Run the agent and give its answer, whole or streamed."""
        assert self.principal is not None
        document = self.document
        request = parse_chat(document, **self._asked())
        self.run = await dispatch.submit(self.gateway, request, self.principal)
        model = request.model or f"edwin:{self.run.request.agent.id}"
        if document.get("stream"):
            options = document.get("stream_options") or {}
            wanted = bool(options.get("include_usage"))
            await self.stream(self.run, model=model, include_usage=wanted)
        else:
            await self.whole(self.run, model=model)

    def _asked(self) -> dict[str, Any]:
        """Return what the request asks for beside its body."""
        retries = self.request.headers.get("x-stainless-retry-count", "0")
        param, key = self._session_key()
        return {
            "agent": self.header(AGENT_HEADER),
            "session_key": key,
            "session_key_param": param,
            "retry_count": int(retries)
            if retries.isdecimal() and len(retries) < 9
            else 0,
            "request_id": self.request_id,
            "log_fields": self.log_fields(),
            "trace": incoming(self.request.headers),
        }

    def _session_key(self) -> tuple[str, str | None]:
        """Return the header that gives a session key, and the key, or None."""
        key = self.header(KEY_HEADER)
        if key is None:
            chat = self.config.gateway.http.endpoints.chat_completions
            for name in chat.session_headers:
                if key := self.header(name):
                    return name, key
        return KEY_HEADER, key
