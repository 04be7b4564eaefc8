"""The values that pass from room to room: plain, immutable, without behaviour.

A :class:`Message` is the decoded JSON object itself, never copied into an object of
ours: a request brings up to hundreds of them and most are only passed on.
"""

from edwin.types.events import (
    Delta,
    Event,
    ReasoningDelta,
    RefusalDelta,
    RunFailed,
    RunFinished,
    RunQueued,
    RunStarted,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
)
from edwin.types.messages import (
    FunctionCall,
    Message,
    ToolCall,
    Usage,
)
from edwin.types.records import (
    Entry,
    KeptRun,
    RunRecord,
    SessionRecord,
    StoredMessage,
    Transcript,
)
from edwin.types.requests import (
    OWNER,
    SCOPES,
    Agent,
    Allowance,
    Caps,
    ChatRequest,
    IdempotencyKey,
    ModelRequest,
    Principal,
    RunRequest,
    SessionId,
)
from edwin.types.tools import McpServer, ToolAccess, ToolSource

__all__ = [
    "OWNER",
    "SCOPES",
    "Agent",
    "Allowance",
    "Caps",
    "ChatRequest",
    "Delta",
    "Entry",
    "Event",
    "FunctionCall",
    "IdempotencyKey",
    "KeptRun",
    "McpServer",
    "Message",
    "ModelRequest",
    "Principal",
    "ReasoningDelta",
    "RefusalDelta",
    "RunFailed",
    "RunFinished",
    "RunQueued",
    "RunRecord",
    "RunRequest",
    "RunStarted",
    "SessionId",
    "SessionRecord",
    "StoredMessage",
    "TextDelta",
    "ToolAccess",
    "ToolCall",
    "ToolCallDelta",
    "ToolFinished",
    "ToolSource",
    "ToolStarted",
    "Transcript",
    "TurnFinished",
    "Usage",
]
