"""Messages, in the shape of the OpenAI API, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict


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
