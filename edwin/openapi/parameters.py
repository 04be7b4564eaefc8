"""What requests carry beside their bodies, and answers beside theirs."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

from edwin.routing import HEADER as AGENT_HEADER
from edwin.sessions.keys import HEADER as KEY_HEADER


class Parameter(NamedTuple):
    """A part of a request's URL or head.

    Attributes:
        name: As it is written there.
        place: ``path``, ``query`` or ``header``.
        says: What it means.
        schema: What it can be.
        required: Whether it must be there.
        example: One that means something, or None.

    """

    name: str
    place: str
    says: str
    schema: Any = MappingProxyType({"type": "string"})
    required: bool = False
    example: Any = None

    def document(self) -> dict[str, Any]:
        """Return it as OpenAPI's Parameter Object."""
        found: dict[str, Any] = {
            "name": self.name,
            "in": self.place,
            "description": self.says,
            "required": self.required,
            "schema": dict(self.schema),
        }
        if self.place == "query" and not self.required:
            # An empty one counts as absent.
            found["allowEmptyValue"] = True
        return found if self.example is None else found | {"example": self.example}


_TEXT = MappingProxyType({"type": "string", "minLength": 1})
_PAGE = MappingProxyType({"type": "integer", "minimum": 1, "maximum": 100})
_PLACE = MappingProxyType({"type": "integer", "minimum": 0, "maximum": 2**53})
_COUNT = MappingProxyType({"type": "string", "pattern": "^[0-9]{1,9}$"})
_KEY = MappingProxyType({"type": "string", "pattern": "^[!-~]{1,512}$"})

RUN = Parameter(
    "id", "path", "Id of the run, as x-edwin-run-id gave it.", _TEXT, True, "run_0"
)
TOKEN = Parameter("id", "path", "What the token is called.", _TEXT, True, "ci")
MODEL = Parameter(
    *("id", "path", "A name that model may be.", _TEXT, True, "edwin:main")
)
SCHEMA = Parameter(
    *("id", "path", "Which of the schemas.", _TEXT, True, "runs/run.json")
)

AGENT = Parameter("agent", "query", "Those of this agent alone.")
SESSION = Parameter("session", "query", "Those with this session key alone.")
STATE = Parameter(
    *("state", "query", "Those in this state alone."),
    {"enum": ["queued", "running", "finished", "cancelled", "failed"]},
)
LIMIT = Parameter(
    *("limit", "query", "How many at most; 20 when it is left out."), _PAGE
)
AFTER = Parameter("after", "query", "What the page before gave as next.")
AFTER_EVENT = Parameter(
    *("after", "query", "Number of the last event that the client has."), _PLACE
)
AFTER_MESSAGE = Parameter(
    *("after", "query", "Number of the last message of the page before."), _PLACE
)
SUPERSEDED = Parameter(
    *("superseded", "query", "Whether to show messages that are no longer current."),
    {"enum": ["true", "false"]},
)
WHOSE = Parameter("agent", "query", "The session's agent.", _TEXT, True, "main")
WHICH = Parameter("key", "query", "The session's key.", _TEXT, True, "kitchen")
PRINCIPAL = Parameter(
    *("principal", "query", "Whose session it is; one's own when it is left out.")
)

LAST_EVENT = Parameter(
    *("Last-Event-ID", "header", "As after; not looked at where after is given."),
    example="0",
)
ASKING = (
    Parameter(
        *(AGENT_HEADER, "header", "The agent that answers; before model."),
        {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?$"},
        example="main",
    ),
    Parameter(KEY_HEADER, "header", "The session, whole.", _KEY, example="kitchen"),
    Parameter(
        *("Idempotency-Key", "header", "The client's own name for the call."),
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    Parameter(
        *("x-edwin-timeout-ms", "header", "Milliseconds after which the run is ended."),
        {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    ),
    Parameter(
        *("x-stainless-retry-count", "header", "How often the call was sent before."),
        _COUNT,
    ),
    Parameter("traceparent", "header", "W3C's trace context."),
    Parameter("tracestate", "header", "W3C's trace context."),
)

# Headers of answers.
HEADERS = MappingProxyType(
    {
        "x-request-id": "Id of the request, in the log too.",
        "x-edwin-run-id": "Id of the run.",
        "x-edwin-agent-id": "The agent that answers.",
        "x-edwin-session-key": "The session key in effect.",
        "x-edwin-replayed": "true: an earlier request began the run.",
        "Location": "Path of the run.",
        "Retry-After": "Whole seconds after which the same call may succeed.",
        "x-should-retry": "false: repeating the call does not help.",
        "WWW-Authenticate": "Bearer.",
        "x-ratelimit-limit-requests": "Requests that the principal may send a minute.",
        "x-ratelimit-remaining-requests": "How many of them are left.",
        "x-ratelimit-reset-requests": "Seconds until all are there again, as 12.5s.",
        "x-ratelimit-limit-tokens": "Tokens that the principal may use in a day.",
        "x-ratelimit-remaining-tokens": "How many of them are left.",
        "x-ratelimit-reset-tokens": "Seconds until all are there again, as 3600s.",
    }
)
OF_RUN = (
    *("x-edwin-run-id", "x-edwin-agent-id", "x-edwin-session-key"),
    "x-edwin-replayed",
    *(name for name in HEADERS if name.startswith("x-ratelimit-")),
)
