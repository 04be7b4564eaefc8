"""Every error Edwin reports, and the one envelope they are reported in.

Raised anywhere below the handlers; rendered once, by ``handlers.base`` for HTTP
and SSE and by ``handlers.socket`` for WebSocket.  The tree::

    EdwinError
    ├── ConfigError             exit 2  the configuration cannot be used
    ├── StateError              exit 1  the state folder cannot be used
    ├── InvalidRequest          400     the request is at fault
    │   ├── Unauthenticated     401     no secret, or a wrong one
    │   ├── Forbidden           403     known, but not allowed
    │   ├── EndpointDisabled    404     switched off in the configuration
    │   ├── UnknownUrl          404     no such path
    │   ├── AgentNotFound       404     the header names an agent nobody has
    │   ├── ModelNotFound       404     no agent answers to the model
    │   ├── RunNotFound         404     no such run, or another's
    │   ├── SessionNotFound     404     no such session, or another's
    │   ├── TokenNotFound       404     no such token, or the configuration's
    │   ├── MethodNotAllowed    405     the path has no such method
    │   ├── IdempotencyKeyReused 422    the key belongs to another request
    │   ├── AgentLimitExceeded  422     more turns than the agent may
    │   │   └── ToolLimitExceeded 422   more tool calls than the agent may
    │   ├── ContentFiltered     400     the provider's filter refuses the conversation
    │   ├── BodyTooLarge        413     more bytes than gateway.http.maxBodyBytes
    │   ├── UpgradeRequired     426     the path is a WebSocket's
    │   ├── SessionAgentMismatch 400    the session key belongs to another agent
    │   └── ContextLengthExceeded 400   more than the model can read
    ├── TooManyFailures         429     too many wrong secrets from an address
    ├── RateLimited             429     the principal has used what it may
    ├── SessionQueueFull        429     too many runs wait in this session
    ├── RunCancelled            499     somebody stopped the run
    ├── InternalError           500     a defect in Edwin
    ├── RunInterrupted          500     the run was lost with the gateway
    ├── PastError               as it was   what a run ended with before
    ├── Overloaded              503     too many runs wait in this gateway
    ├── QueueTimeout            503     the deadline passed before the run began
    ├── GatewayStopping         503     the gateway is shutting down
    ├── StorageUnavailable      503     the store cannot be written
    ├── RunTimeout              504     the deadline passed while the run ran
    └── ProviderError           502     the model's provider refused the call
        ├── ProviderRateLimited 429     the provider asks for patience
        ├── ProviderUnavailable 502     no answer, or a 5xx
        ├── ProviderStreamError 502     the answer broke off
        ├── StructuredOutputInvalid 502 the answer does not fit the schema asked for
        └── ProviderTimeout     504     the answer did not come in time
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

INVALID = "invalid_request_error"
SERVER = "server_error"


class EdwinError(Exception):
    """Base of every error Edwin raises on purpose.

    Args:
        message: What is wrong, with which value, and what would be right.  Goes to
            the client as it stands: no secret, no path, no stack, no long value.
        param: Path of the field at fault (``messages[0].role``), or None.
        code: Replaces the class's code where one class has several.
        retry_after_s: Seconds after which the same call may succeed, or None.
        should_retry: False forbids the client's SDK to repeat the call, True asks
            for it, None leaves it to the status.

    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = SERVER
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        if code is not None:
            self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that go with this error."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers


class ConfigError(EdwinError):
    """The configuration cannot be used; the message names file, line, key and fix."""


class StateError(EdwinError):
    """The state folder cannot be used: held by another, unreadable, or too new."""


class InvalidRequest(EdwinError):
    """The request is at fault; *param* points at the field."""

    status, type = 400, INVALID


class Unauthenticated(InvalidRequest):
    """The request carries no secret, or a wrong one."""

    status, code = 401, "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return super().headers | {"WWW-Authenticate": "Bearer"}


class Forbidden(InvalidRequest):
    """The principal, or the place the request comes from, may not do this."""

    status, code = 403, "forbidden"


class EndpointDisabled(InvalidRequest):
    """The endpoint is switched off in the configuration."""

    status, code = 404, "endpoint_disabled"


class UnknownUrl(InvalidRequest):
    """No handler answers to the path."""

    status, code = 404, "unknown_url"


class AgentNotFound(InvalidRequest):
    """The request names an agent by header or option, and there is none."""

    status, code = 404, "agent_not_found"


class ModelNotFound(InvalidRequest):
    """No agent answers to the requested model."""

    status, code = 404, "model_not_found"


class RunNotFound(InvalidRequest):
    """There is no such run, or it is not the principal's."""

    status, code = 404, "run_not_found"


class SessionNotFound(InvalidRequest):
    """There is no such session, or it is not the principal's."""

    status, code = 404, "session_not_found"


class TokenNotFound(InvalidRequest):
    """There is no such token in the store."""

    status, code = 404, "token_not_found"


class IdempotencyKeyReused(InvalidRequest):
    """The idempotency key was used with another request.

    Not 409, which SDKs repeat.
    """

    status, code = 422, "idempotency_key_reused"


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not with this method."""

    status, code = 405, "method_not_allowed"


class AgentLimitExceeded(InvalidRequest):
    """The run needs more turns than its agent may have."""

    status, code = 422, "max_turns_exceeded"


class ToolLimitExceeded(AgentLimitExceeded):
    """The run needs more tool calls than its agent may make."""

    code = "max_tool_calls_exceeded"


class ContentFiltered(InvalidRequest):
    """The provider's content filter refuses the conversation."""

    code = "content_filter"


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than ``gateway.http.maxBodyBytes``."""

    status, code = 413, "body_too_large"


class UpgradeRequired(InvalidRequest):
    """The path is a WebSocket's, and the request is no handshake."""

    status, code = 426, "upgrade_required"


class SessionAgentMismatch(InvalidRequest):
    """The session key belongs to another agent than the request names."""

    code = "session_agent_mismatch"


class ContextLengthExceeded(InvalidRequest):
    """The request's own messages are more than the model can read."""

    code = "context_length_exceeded"


class TooManyFailures(EdwinError):
    """Too many wrong secrets came from the request's address."""

    status, type, code = 429, "requests", "too_many_failures"


class RateLimited(EdwinError):
    """The principal has used up what it may use for now.

    Args:
        message: As for every error.
        kind: ``requests`` or ``tokens``: what OpenAI calls the error's type.
        rest: As for every error.

    """

    status, type, code = 429, "requests", "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str = "requests", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.__dict__["type"] = kind


class SessionQueueFull(EdwinError):
    """``gateway.runs.maxQueuedPerSession`` runs wait in the session already."""

    status, type, code = 429, "requests", "session_queue_full"


class RunCancelled(EdwinError):
    """The run was stopped before its end, on somebody's demand."""

    status, code = 499, "run_cancelled"


class InternalError(EdwinError):
    """A defect in Edwin; the log has the details under the request id."""

    status, code = 500, "internal_error"


class RunInterrupted(EdwinError):
    """The run was lost with its gateway; it is not carried out again."""

    status, code = 500, "run_interrupted"

    def __init__(self, message: str, **rest: Any) -> None:
        super().__init__(message, **({"should_retry": False} | rest))


class AgentFailed(EdwinError):
    """An agent that is Python code raised an error; the log has it."""

    status, code = 500, "agent_failed"

    def __init__(self, message: str, **rest: Any) -> None:
        super().__init__(message, **({"should_retry": False} | rest))


class Overloaded(EdwinError):
    """``gateway.runs.maxQueued`` runs wait in the gateway already."""

    status, code = 503, "overloaded"


class QueueTimeout(EdwinError):
    """The deadline passed while the run waited; no provider was called."""

    status, code = 503, "queue_timeout"


class GatewayStopping(EdwinError):
    """The gateway is shutting down."""

    status, code = 503, "gateway_stopping"


class StorageUnavailable(EdwinError):
    """The store cannot be written or read."""

    status, code = 503, "storage_unavailable"


class ToolsUnavailable(EdwinError):
    """A server of the agent's tools has not said yet which tools it has."""

    status, code = 503, "tools_unavailable"


class RunTimeout(EdwinError):
    """The deadline passed while the run was under way."""

    status, code = 504, "run_timeout"


class ProviderError(EdwinError):
    """The provider refused the call; repeating it would not help.

    Providers raise this tree; the executor repeats a call only when *retryable*.
    """

    status, code = 502, "provider_error"
    retryable: ClassVar[bool] = False


class ProviderRateLimited(ProviderError):
    """The provider asks for patience."""

    status, type, code = 429, "requests", "provider_rate_limited"
    retryable = True


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached, or answers with a 5xx."""

    code = "provider_unavailable"
    retryable = True


class ProviderStreamError(ProviderError):
    """The provider's answer broke off, or cannot be read."""

    code = "provider_stream_error"


class StructuredOutputInvalid(ProviderError):
    """The model's answer does not fit the schema that was asked for."""

    code = "structured_output_invalid"

    def __init__(self, message: str, **rest: Any) -> None:
        super().__init__(message, **({"should_retry": False} | rest))


class ProviderTimeout(ProviderError):
    """The provider's answer did not come in time."""

    status, code = 504, "provider_timeout"


class PastError(EdwinError):
    """An error that a run ended with before; repeating the call gives it again."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(
            error["message"],
            param=error["param"],
            code=error["code"],
            should_retry=False,
        )
        # Of this one alone: whose class it was is not kept.
        self.__dict__.update(status=status, type=error["type"])


def envelope(error: EdwinError) -> dict[str, Any]:
    """Return the OpenAI error object of *error*: all four keys, always."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def shorten(text: str, limit: int = 80) -> str:
    """Return *text* cut to *limit* characters, so that it can stand in a message."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
