"""Every route: who may call it, what it takes, what it gives, what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edwin.openapi import parameters as p

JSON = "application/json"
EVENTS = "text/event-stream"

_REQUEST = "openai/chat_completion_request"
_LISTED = ("storage_unavailable",)
# What a call for a run can end with beside what every call can.
_ASKING = (
    *("session_agent_mismatch", "context_length_exceeded"),
    *("agent_not_found", "model_not_found", "idempotency_key_reused"),
    *("rate_limit_exceeded", "session_queue_full", "overloaded", "queue_timeout"),
    *("run_cancelled", "run_interrupted", "reader_too_slow", "run_timeout"),
    *("provider_error", "provider_rate_limited", "provider_unavailable"),
    *("provider_stream_error", "provider_timeout", "storage_unavailable"),
    *("max_turns_exceeded", "max_tool_calls_exceeded", "tools_unavailable"),
    *("agent_failed", "content_filter", "structured_output_invalid"),
)


# How a server of tools is doing, for administrators.
_SERVER = {
    "type": "object",
    "required": ["server", "state", "tools", "restarts", "error"],
    "additionalProperties": False,
    "properties": {
        "server": {"type": "string"},
        "state": {"enum": ["starting", "ready", "restarting", "stopped"]},
        "tools": {"type": ["integer", "null"]},
        "restarts": {"type": "integer"},
        "error": {"type": ["string", "null"]},
    },
}


@dataclass(frozen=True, slots=True)
class Stream:
    """A body of server-sent events.

    Attributes:
        data: Names of the schemas that the data of an event can have.
        end: What the last event has instead, or None.

    """

    data: tuple[str, ...]
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route gives when all is well.

    Attributes:
        says: What it is.
        content: Media type → name of the schema of a body, or a schema, or a stream.
        headers: Which headers go with it, beside ``x-request-id``.

    """

    says: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path.

    Attributes:
        name: What OpenAPI calls the operation.
        verb: Such as ``GET``; where that is one with a body alike, ``HEAD`` too.
        path: As the documents write it: ``/v1/runs/{id}``.
        says: What it does.
        action: What :func:`edwin.auth.allow` is asked for; None: it is public.
        answers: Status → what it gives with it.
        body: Name of the schema of its body, or None.
        takes: The parameters.
        errors: Codes of errors, beside those that every route has.
        endpoint: Whether the endpoint flag switches it.
        head: Whether ``HEAD`` is answered too.

    """

    name: str
    verb: str
    path: str
    says: str
    action: str | None
    answers: Mapping[int, Answer]
    body: str | None = None
    takes: tuple[p.Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    endpoint: bool = False
    head: bool = False


def _status(*states: str) -> Any:
    return {
        "type": "object",
        "required": ["status"],
        "additionalProperties": False,
        "properties": {
            "status": {"enum": list(states)},
            "tools": {"type": "array", "items": _SERVER},
        },
    }


def _json(says: str, schema: Any) -> dict[int, Answer]:
    return {200: Answer(says, {JSON: schema})}


ROUTES = (
    Route(
        *("createChatCompletion", "POST", "/v1/chat/completions"),
        *("Ask an agent, and get its answer whole or streamed.", "runs:create"),
        {
            200: Answer(
                "The answer; with stream: true as events, the last of them [DONE].",
                {
                    JSON: "openai/chat_completion",
                    EVENTS: Stream(
                        ("openai/chat_completion_chunk", "openai/error"), "[DONE]"
                    ),
                },
                p.OF_RUN,
            )
        },
        body=_REQUEST,
        takes=p.ASKING,
        errors=_ASKING,
        endpoint=True,
    ),
    Route(
        *("listModels", "GET", "/v1/models"),
        *("List every name that model may be.", "models:read"),
        _json("The names.", "openai/model_list"),
        endpoint=True,
        head=True,
    ),
    Route(
        *("retrieveModel", "GET", "/v1/models/{id}"),
        *("Look up a name that model may be.", "models:read"),
        _json("The name.", "openai/model"),
        takes=(p.MODEL,),
        errors=("model_not_found", "agent_not_found"),
        endpoint=True,
        head=True,
    ),
    Route(
        *("listRuns", "GET", "/v1/runs"),
        *("List runs, the newest first.", "runs:read"),
        _json("A page of runs.", "runs/run_list"),
        takes=(p.AGENT, p.SESSION, p.STATE, p.LIMIT, p.AFTER),
        errors=_LISTED,
        head=True,
    ),
    Route(
        *("createRun", "POST", "/v1/runs"),
        *("Begin a run that goes on though nobody reads it.", "runs:create"),
        {
            202: Answer(
                "It has begun, and is stored.",
                {JSON: "runs/run"},
                (*p.OF_RUN, "Location"),
            )
        },
        body=_REQUEST,
        takes=p.ASKING,
        errors=(*_ASKING, "run_not_found"),
        endpoint=True,
    ),
    Route(
        *("retrieveRun", "GET", "/v1/runs/{id}"),
        *("Show a run.", "runs:read"),
        _json("The run.", "runs/run"),
        takes=(p.RUN,),
        errors=("run_not_found", *_LISTED),
        head=True,
    ),
    Route(
        *("listRunEvents", "GET", "/v1/runs/{id}/events"),
        *("Read a run's events from a place on, and then live.", "runs:read"),
        {
            200: Answer(
                "The events.", {EVENTS: Stream(("runs/event",))}, ("x-edwin-run-id",)
            )
        },
        takes=(p.RUN, p.AFTER_EVENT, p.LAST_EVENT),
        errors=("run_not_found", *_LISTED),
    ),
    Route(
        *("cancelRun", "POST", "/v1/runs/{id}/cancel"),
        *("End a run, and show it when it has ended.", "runs:cancel"),
        _json("The run.", "runs/run"),
        takes=(p.RUN,),
        errors=("run_not_found", *_LISTED),
    ),
    Route(
        *("listSessions", "GET", "/v1/sessions"),
        *("List sessions, the ones used last first.", "sessions:read"),
        _json("A page of sessions.", "sessions/session_list"),
        takes=(p.AGENT, p.LIMIT, p.AFTER),
        errors=_LISTED,
        head=True,
    ),
    Route(
        *("retrieveSession", "GET", "/v1/sessions/item"),
        *("Show a session and a page of its messages.", "sessions:read"),
        _json("The session.", "sessions/transcript"),
        takes=(
            *(p.WHOSE, p.WHICH, p.PRINCIPAL),
            *(p.AFTER_MESSAGE, p.LIMIT, p.SUPERSEDED),
        ),
        errors=("session_not_found", *_LISTED),
        head=True,
    ),
    Route(
        *("deleteSession", "DELETE", "/v1/sessions/item"),
        *("Cancel a session's runs, and delete all of it.", "sessions:write"),
        _json("It is deleted.", "sessions/deleted"),
        takes=(p.WHOSE, p.WHICH, p.PRINCIPAL),
        errors=("session_not_found", *_LISTED),
    ),
    Route(
        *("resetSession", "POST", "/v1/sessions/reset"),
        *("Let a session begin anew, behind the runs it has.", "sessions:write"),
        _json("It begins anew.", "sessions/was_reset"),
        body="sessions/reset",
        errors=("session_not_found", "session_queue_full", "overloaded", *_LISTED),
    ),
    Route(
        *("listTokens", "GET", "/v1/tokens"),
        *("List who has a token of its own.", "admin"),
        _json("Who has, without the tokens.", "tokens/token_list"),
        head=True,
    ),
    Route(
        *("createToken", "POST", "/v1/tokens"),
        *("Make a token; it is in this answer alone.", "admin"),
        {201: Answer("The token.", {JSON: "tokens/token"})},
        body="tokens/create",
        errors=_LISTED,
    ),
    Route(
        *("revokeToken", "DELETE", "/v1/tokens/{id}"),
        *("Let a token's holder in no more.", "admin"),
        _json("It is revoked.", "tokens/revoked"),
        takes=(p.TOKEN,),
        errors=("token_not_found", *_LISTED),
    ),
    Route(
        *("rotateToken", "POST", "/v1/tokens/{id}/rotate"),
        *("Put a new token in place of an old one.", "admin"),
        _json("The new one; it is in this answer alone.", "tokens/token"),
        takes=(p.TOKEN,),
        errors=("token_not_found", *_LISTED),
    ),
    Route(
        *("health", "GET", "/healthz", "Say that the process serves.", None),
        _json("It does.", _status("ok")),
        head=True,
    ),
    Route(
        *("ready", "GET", "/readyz", "Say whether the gateway takes runs.", None),
        {
            200: Answer("It does.", {JSON: _status("ready")}),
            503: Answer(
                "It does not.",
                {JSON: _status("starting", "draining", "stopped", _LISTED[0])},
            ),
        },
        head=True,
    ),
    Route(
        *("metrics", "GET", "/metrics"),
        *("Show what the gateway counts, for Prometheus.", "metrics:read"),
        {200: Answer("The metrics.", {"text/plain": {"type": "string"}})},
        head=True,
    ),
    Route(
        *("openapi", "GET", "/openapi.json", "Show this document.", None),
        _json("The document.", {"type": "object", "required": ["openapi", "paths"]}),
        head=True,
    ),
    Route(
        *("retrieveSchema", "GET", "/schemas/{id}", "Show a schema.", None),
        {
            200: Answer(
                "The schema, Draft 2020-12.",
                {"application/schema+json": {"type": "object", "required": ["$id"]}},
            )
        },
        takes=(p.SCHEMA,),
        errors=("unknown_url",),
        head=True,
    ),
    Route(
        *("connect", "GET", "/ws"),
        "Open the WebSocket (version 13); its frames are in schemas/ws.",
        None,
        {101: Answer("The WebSocket is open.")},
        errors=("upgrade_required", "invalid_api_key", "too_many_failures"),
    ),
)
