"""The values that pass from room to room: plain, immutable, without behaviour.

A :class:`Message` is the decoded JSON object itself, never copied into an object of
ours: a request brings up to hundreds of them and most are only passed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypedDict

from edwin.errors import EdwinError


class FunctionCall(TypedDict):
    """Name and arguments (JSON text, as the model wrote it) of a tool call."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One call of a function that an assistant message asks for."""

    id: str
    type: str
    function: FunctionCall


class Message(TypedDict, total=False):
    """One transcript entry, in the shape of the OpenAI API."""

    role: str
    content: str | list[dict[str, Any]] | None
    name: str
    refusal: str | None
    tool_calls: list[ToolCall]
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who passed authentication."""

    id: str


OWNER = Principal("owner")


@dataclass(frozen=True, slots=True)
class Caps:
    """What a request to an agent cannot exceed; None: no limit."""

    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """A named configuration that answers requests.

    Attributes:
        id: Lower case, ``[a-z0-9][a-z0-9_-]{0,63}``.
        model: ``<provider>/<model>``; the provider's own name may hold slashes.
        instructions: First system message of every provider call; may be empty.
        params: Request fields (OpenAI's names) used where a request gives none.
        caps: Limits a request cannot exceed.
        fallbacks: Models tried in order when *model* fails before its first delta.
        aliases: Further names it answers to in the request's ``model``.
        passthrough: Unknown request fields that go up to the provider.
        session_from_user: Whether ``user`` gives a session; None: as the gateway.
        context_tokens: Tokens a context may hold; None: as the provider.
        max_history_messages: Messages a context takes from the transcript.

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


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more turns; *estimated* where a provider gave none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a stored transcript.

    Attributes:
        seq: Place in the session, from 1, with gaps where messages were superseded.
        run_id: The run that appended it.
        message: The message itself.
        own: True for what the run itself made, its answers and the results of its
            own tools; False for what the client sent.
        digest: Digest of the message's content (``sessions.canonical.digest``).

    """

    seq: int
    run_id: str
    message: Message
    own: bool
    digest: bytes


class RunRecord(NamedTuple):
    """A run's line in the ledger: who, what became of it, what it cost; no content.

    Attributes:
        state: ``queued``, ``running``, ``finished``, ``cancelled`` or ``failed``.
        error_code: Code of the error that ended it, or None.
        created_at: Unix seconds; *started_at* and *finished_at* likewise, or None.
        first_delta_ms: From creation to the first delta, or None.
        events: Number of its last event; 0 if it is not known.

    """

    run_id: str
    request_id: str
    session: SessionId
    state: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    first_delta_ms: int | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    usage: Usage = Usage()
    events: int = 0


class KeptRun(NamedTuple):
    """A run as the store has it.

    Attributes:
        record: Its line in the ledger.
        fingerprint: Of the request that made it, under its idempotency key; or empty.
        outcome: How it ended (``runs.outcome``), where that is kept; else None.

    """

    record: RunRecord
    fingerprint: bytes = b""
    outcome: str | None = None


class SessionRecord(NamedTuple):
    """What the store says of a session beside its messages.

    Attributes:
        session: Whose it is.
        created_at: Unix seconds; *used_at* likewise: when a run last began or ended.
        messages: How many its transcript has.

    """

    session: SessionId
    created_at: float
    used_at: float
    messages: int


class StoredMessage(NamedTuple):
    """A message of a session as it is shown.

    Attributes:
        seq: Its place, from 1.
        run_id: The run that appended it.
        message: The message.
        own: Whether the run made it; else the client sent it.
        current: Whether it is part of the transcript: neither superseded, nor of a
            failed run, nor from before a reset.

    """

    seq: int
    run_id: str
    message: Message
    own: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session's stored messages as the store gives them, oldest first.

    Messages of failed runs and superseded ones are left out.

    Attributes:
        entries: The messages.
        last_seq: Highest number ever used in the session, 0 if none.
        last_state: State of the run that appended the last entry, or None.
        last_delivered: Whether that run's answer reached its client.
        used_at: Unix seconds of the session's last use, 0 if it has none.

    """

    entries: tuple[Entry, ...] = ()
    last_seq: int = 0
    last_state: str | None = None
    last_delivered: bool = False
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text; *logprobs* as the provider sent them."""

    text: str
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the text with which the model declines."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning; never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; *id* and *name* come with its first piece."""

    index: int
    id: str | None
    name: str | None
    arguments: str


Delta: TypeAlias = TextDelta | RefusalDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """One provider call came to its end; *usage* is None where it gave none.

    What a provider's stream ends with.  The executor passes it on as an event with
    the whole assistant *message* and a usage, estimated if need be.
    """

    finish_reason: str
    usage: Usage | None = None
    message: Message | None = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunQueued:
    """The run waits; *position* runs of its session are before it."""

    position: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run reached the head of its lane."""


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool of the agent's own was called."""

    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool of the agent's own came back; *error* when it failed."""

    call_id: str
    name: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run's answer is complete and, where it is kept, durable."""

    message: Message
    finish_reason: str
    usage: Usage
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The run ended without a complete answer."""

    error: EdwinError


Event: TypeAlias = (
    RunQueued
    | RunStarted
    | Delta
    | ToolStarted
    | ToolFinished
    | TurnFinished
    | RunFinished
    | RunFailed
)
