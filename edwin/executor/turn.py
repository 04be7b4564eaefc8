"""Put the deltas of one provider call together into its message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edwin.errors import ProviderStreamError
from edwin.tokens import text_tokens, total_tokens
from edwin.types import (
    Delta,
    Message,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

MAX_CHARACTERS = 32 * 1024 * 1024
"""More than any model writes: past it, a provider that never ends is cut off."""


class TurnBuilder:
    """Collects the deltas of one turn."""

    def __init__(self) -> None:
        self._room = MAX_CHARACTERS
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, ToolCall] = {}
        self._logprobs: dict[str, list[Any]] = {}

    def add(self, delta: Delta) -> None:
        """Take in the next delta.

        Raises:
            ProviderStreamError: If the answer has become too long to be one.

        """
        text = delta.arguments if isinstance(delta, ToolCallDelta) else delta.text
        self._room -= len(text)
        if self._room < 0:
            raise ProviderStreamError(
                f"the provider's answer has more than {MAX_CHARACTERS} characters"
            )
        if isinstance(delta, TextDelta):
            self._texts.append(text)
            if delta.logprobs:
                for key, value in delta.logprobs.items():
                    self._logprobs.setdefault(key, []).extend(value or ())
        elif isinstance(delta, ToolCallDelta):
            self._add_call(delta)
        elif isinstance(delta, RefusalDelta):
            self._refusals.append(delta.text)

    def finished(self, turn: TurnFinished, context: Sequence[Message]) -> TurnFinished:
        """Return *turn* with the whole message, a usage, and a reason that fits.

        Args:
            turn: How the provider ended it.
            context: What was sent, for the usage of a provider that does not say.

        """
        message: Message = {"role": "assistant", "content": "".join(self._texts)}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
            message["content"] = message["content"] or None
        reason = turn.finish_reason
        if self._calls:
            message["tool_calls"] = [self._calls[i] for i in sorted(self._calls)]
            message["content"] = message["content"] or None
            # Some servers end a turn of calls with "stop".
            reason = "tool_calls" if reason == "stop" else reason
        usage = turn.usage or self._estimated_usage(context)
        return TurnFinished(reason, usage, message, self._logprobs or None)

    def _estimated_usage(self, context: Sequence[Message]) -> Usage:
        spent = text_tokens("".join(self._texts) + "".join(self._refusals)) + sum(
            text_tokens(call["function"]["name"] + call["function"]["arguments"])
            for call in self._calls.values()
        )
        return Usage(total_tokens(context), spent, estimated=True)

    def _add_call(self, delta: ToolCallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._calls[delta.index] = {
                "id": delta.id or f"call_{delta.index}",
                "type": "function",
                "function": {"name": delta.name or "", "arguments": delta.arguments},
            }
        else:
            call["function"]["arguments"] += delta.arguments
