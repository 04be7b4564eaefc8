"""Put the deltas of one provider call together into its message."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import orjson

from edwin.errors import ProviderStreamError
from edwin.tokens import text_tokens, total_tokens
from edwin.types import (
    Delta,
    FunctionCall,
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
    """Collects the deltas of one turn, and tells what of them the client sees.

    Args:
        clients: Names of the tools that the client carries out, where the agent has
            some of its own; None: whatever is called is for the client.
        single: Whether only the first call counts.
        holds: Whether the text is held back until the turn's end is known.
        lead: Stands before the turn's text, where there is any.

    Attributes:
        own_calls: The calls that are not for the client, once the turn is finished.

    """

    def __init__(
        self,
        clients: Set[str] | None = None,
        *,
        single: bool = False,
        holds: bool = False,
        lead: str = "",
    ) -> None:
        self.own_calls: list[ToolCall] = []
        self._clients = clients
        self._single = single
        self._holds = holds
        self._lead = lead
        self._room = MAX_CHARACTERS
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, ToolCall] = {}
        # Where the client sees a call among its own; None: nowhere.
        self._shown: dict[int, int | None] = {}
        self._logprobs: dict[str, list[Any]] = {}

    @property
    def text(self) -> str:
        """What the model has written so far."""
        return "".join(self._texts)

    def add(self, delta: Delta) -> Delta | None:
        """Take in the next delta; return what the client sees of it, or None.

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
            if self._lead and text:
                delta, self._lead = replace(delta, text=self._lead + text), ""
            self._texts.append(delta.text)
            if delta.logprobs:
                for key, value in delta.logprobs.items():
                    self._logprobs.setdefault(key, []).extend(value or ())
            return None if self._holds else delta
        if isinstance(delta, ToolCallDelta):
            return self._add_call(delta)
        if isinstance(delta, RefusalDelta):
            self._refusals.append(text)
        return delta

    def held(self) -> TextDelta | None:
        """Return the text that was held back, to be shown now."""
        if not self._holds or not self._texts:
            return None
        return TextDelta(self.text, self._logprobs or None)

    def finished(
        self, turn: TurnFinished, context: Sequence[Message], *, text: bool = True
    ) -> TurnFinished:
        """Return *turn* with the whole message, a usage, and a reason that fits.

        Args:
            turn: How the provider ended it.
            context: What was sent, for the usage of a provider that does not say.
            text: Whether text beside calls of the agent's own tools counts.

        """
        reason = turn.finish_reason
        usage = turn.usage or self._estimated_usage(context)
        if self._calls and reason == "stop":
            # Some servers end a turn of calls with "stop".
            reason = "tool_calls"
        calls = [self._calls[i] for i in sorted(self._calls)]
        own = [self._calls[i] for i, place in self._shown.items() if place is None]
        if own and reason != "tool_calls":
            # Cut off: what stands in such a call is not what the model was to say.
            calls = [call for call in calls if call not in own]
        elif own:
            self.own_calls = own
        message: Message = {"role": "assistant", "content": self.text}
        if self.own_calls and not text:
            message["content"] = None
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
            message["content"] = message["content"] or None
        if calls:
            message["tool_calls"] = [_fit(c) if c in own else c for c in calls]
            message["content"] = message["content"] or None
        return TurnFinished(reason, usage, message, self._logprobs or None)

    def _estimated_usage(self, context: Sequence[Message]) -> Usage:
        spent = text_tokens(self.text + "".join(self._refusals)) + sum(
            text_tokens(call["function"]["name"] + call["function"]["arguments"])
            for call in self._calls.values()
        )
        return Usage(total_tokens(context), spent, estimated=True)

    def _add_call(self, delta: ToolCallDelta) -> ToolCallDelta | None:
        index = delta.index
        if index in self._calls:
            self._calls[index]["function"]["arguments"] += delta.arguments
            id = None
        elif self._single and self._calls:
            return None
        else:
            id = self._begin_call(delta)
        place = self._shown[index]
        if place is None:
            return None
        if (place, id) == (index, delta.id):
            return delta
        return replace(delta, index=place, id=id)

    def _begin_call(self, delta: ToolCallDelta) -> str:
        """Take up a new call; return its id, which no other of the turn has."""
        index, name = delta.index, delta.name or ""
        id = delta.id or f"call_{index}"
        while any(call["id"] == id for call in self._calls.values()):
            id = f"{id}_{index}"
        self._calls[index] = {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": delta.arguments},
        }
        mine = self._clients is not None and name not in self._clients
        places = sum(place is not None for place in self._shown.values())
        self._shown[index] = None if mine else places
        return id


def _fit(call: ToolCall) -> ToolCall:
    """Return a *call* of the agent's own such that every provider reads it.

    Models write arguments that are no JSON, and call tools that nobody has; providers
    refuse such a call when it comes back in the conversation.
    """
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    try:
        fits = isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        fits = False
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "unknown"
    function: FunctionCall = {"name": name, "arguments": arguments if fits else "{}"}
    return {"id": call["id"], "type": "function", "function": function}
