"""Who asks what of whom: principals, agents, and requests on their way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edwin.types.messages import Message
from edwin.types.tools import ToolAccess, ToolSource

SCOPES = (
    *("runs:create", "runs:read", "runs:cancel", "runs:approve"),
    *("sessions:read", "sessions:write", "models:read", "metrics:read", "admin"),
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a principal may use; None: as much as there is."""

    requests_per_minute: int | None = None
    concurrent_runs: int | None = None
    tokens_per_day: int | None = None

    def __bool__(self) -> bool:
        return self != _UNLIMITED


_UNLIMITED = Allowance()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who passed authentication, and what that opens.

    Attributes:
        id: ``owner``, a configured or stored id, or ``proxy:<user>``.
        scopes: What it may do, of :data:`SCOPES`.
        agents: Ids of the agents it may use; None: all.
        models: Patterns of the models (``<provider>/<model>``) that may answer it;
            None: all.
        tools: Patterns of the agents' own tools that may be used for it; None: all.
        limits: How much it may use.
        expires_at: Unix seconds from which on it is nobody; None: never.

    """

    id: str
    scopes: frozenset[str] = frozenset()
    agents: frozenset[str] | None = None
    models: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    limits: Allowance = _UNLIMITED
    expires_at: float | None = None


OWNER = Principal("owner", frozenset(SCOPES))


@dataclass(frozen=True, slots=True)
class Caps:
    """What a request to an agent cannot exceed; None: no limit."""

    max_output_tokens: int | None = None


_ALL_TOOLS = ToolAccess()


@dataclass(frozen=True, slots=True)
class Agent:
    """A named configuration that answers requests.

    Attributes:
        id: Lower case, ``[a-z0-9][a-z0-9_-]{0,63}``.
        model: ``<provider>/<model>``; the provider's own name may hold slashes.
            ``python/<package.module:name>`` for an agent that is Python code.
        instructions: First system message of every provider call; may be empty.
        params: Request fields (OpenAI's names) used where a request gives none.
        caps: Limits a request cannot exceed.
        fallbacks: Models tried in order when *model* fails before its first delta.
        aliases: Further names it answers to in the request's ``model``.
        passthrough: Unknown request fields that go up to the provider.
        session_from_user: Whether ``user`` gives a session; None: as the gateway.
        context_tokens: Tokens a context may hold; None: as the provider.
        max_history_messages: Messages a context takes from the transcript.
        tools: What it can act with by itself.
        tool_access: Which of these it may.
        max_turns: Provider calls in one run, at most.
        max_tool_calls: Calls of its own tools in one run, at most.
        structured_retries: How often a model is asked again whose answer does not fit
            the schema that was asked for.
        python: ``package.module:name`` of the code that is the agent, or None.

    """

    id: str
    model: str
    instructions: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    caps: Caps = Caps()
    fallbacks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    passthrough: frozenset[str] = frozenset()
    session_from_user: bool | None = None
    context_tokens: int | None = None
    max_history_messages: int = 200
    tools: tuple[ToolSource, ...] = ()
    tool_access: ToolAccess = _ALL_TOOLS
    max_turns: int = 16
    max_tool_calls: int = 64
    structured_retries: int = 0
    python: str | None = None

    @property
    def acts(self) -> bool:
        """Whether it can do more than answer: with tools, or as code of its own."""
        return bool(self.tools) or self.python is not None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asked for, whatever surface it came through.

    Attributes:
        messages: The conversation as sent, at least one message.
        model: The request's ``model``, or None where the surface has none.
        agent: Agent named apart from *model* (header or option), or None.
        session_key: Session key given by the client, or None.
        session_key_param: Name of what gave it, for errors.
        user: The request's raw ``user`` string, or None.
        params: Fields that go up to the provider, by OpenAI's names.
        extra: Fields Edwin does not know, for agents that pass them through.
        image_links: Paths of the images that the provider would have to fetch.
        retry_count: How often the client's SDK sent this call before.
        request_id: Id of the request that brought it, for the log.
        log_fields: What the surface adds to the run's log line.
        trace: W3C's trace context that it came with, as headers.
        idempotency_key: The client's name for this call, or None.
        fingerprint: Digest of what was asked for; empty without such a key.
        detached: Whether the run goes on though nobody reads it.
        timeout_s: Seconds after which the run is ended; None: the gateway's limit.

    """

    messages: Sequence[Message]
    model: str | None = None
    agent: str | None = None
    session_key: str | None = None
    session_key_param: str = "x-edwin-session-key"
    user: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    image_links: Sequence[str] = ()
    retry_count: int = 0
    request_id: str = ""
    log_fields: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    detached: bool = False
    timeout_s: float | None = None


class IdempotencyKey(NamedTuple):
    """A client's name for a call, and the digest of what that call asks for.

    Attributes:
        key: 1 to 255 visible characters, unique for a principal.
        fingerprint: Equal for two requests that ask for the same.

    """

    key: str
    fingerprint: bytes


class SessionId(NamedTuple):
    """A session's identity: nothing of another principal can be reached by it."""

    principal: str
    agent: str
    key: str


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run that may be queued: everything decided, nothing begun.

    Attributes:
        run_id: ``run_`` and 32 hex digits.
        session: The session's identity; a fresh key when not *stateful*.
        stateful: False: no history is read, nothing is kept but the ledger line.
        messages: The request's messages as sent.
        params: Fields for the provider: the agent's defaults under the request's.
        retry_count: How often the client's SDK sent this call before.
        idempotency: The client's name for the call, or None.
        detached: The run goes on though nobody reads it.
        timeout_s: Seconds after which it is ended; None: the engine's limit.
        attempt: Which time the run is carried out, from 1.
        executor: The ``AgentExecutor`` of the configuration that the request began
            with; None: the engine's own.

    """

    run_id: str
    agent: Agent
    principal: Principal
    session: SessionId
    stateful: bool
    messages: Sequence[Message]
    params: Mapping[str, Any]
    retry_count: int = 0
    request_id: str = ""
    log_fields: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    idempotency: IdempotencyKey | None = None
    detached: bool = False
    timeout_s: float | None = None
    attempt: int = 1
    executor: Any = field(default=None, compare=False, repr=False)

    @property
    def kept(self) -> bool:
        """Whether the run's outcome is kept for those who ask for it later."""
        return self.detached or self.idempotency is not None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One provider call: the body's fields by OpenAI's names, always streamed.

    Attributes:
        trace: W3C's trace context that goes up with it, as headers.

    """

    model: str
    messages: Sequence[Message]
    params: Mapping[str, Any]
    trace: Mapping[str, str] = field(default_factory=dict)
