"""What a model and an agent's tools have said to each other in one run; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edwin.errors import (
    AgentLimitExceeded,
    EdwinError,
    StructuredOutputInvalid,
    ToolLimitExceeded,
)
from edwin.executor.offer import offer
from edwin.executor.structured import wanted
from edwin.executor.turn import TurnBuilder
from edwin.tools.base import Tool
from edwin.types import Agent, Event, Message, ToolCall, TurnFinished, Usage

_BREAK = "\n\n"


class Talk:
    """One run's turns: what is sent up next, and whether there is a next.

    Args:
        agent: Whose turns they are.
        context: The conversation, the agent's instructions first.
        params: Fields of the provider's request.
        own: The agent's tools.

    Attributes:
        context: What the next turn sends.
        params: Fields of the next turn's request.
        form: What the answer has to look like; None: anything.
        own: The agent's tools that it may use, by name.
        calls: Those that the last turn asks for.
        over: Whether the last turn was the run's end.

    Raises:
        InvalidRequest: If the tools or the form asked for cannot be used.

    """

    def __init__(
        self,
        agent: Agent,
        context: Sequence[Message],
        params: Mapping[str, Any],
        own: Sequence[Tool],
    ) -> None:
        self._agent = agent
        self._offer = offer(agent, params, own)
        self.form = wanted(params)
        self.own = self._offer.own
        self.context = context
        self.params: Mapping[str, Any] = self._offer.params
        self.calls: Sequence[ToolCall] = ()
        self.over = False
        self._holds = self.form is not None and bool(
            self._offer.clients is not None or agent.structured_retries
        )
        self._turns = self._made = self._again = 0
        self._spoken = False
        self._results = False
        self._used = Usage()
        self._last: TurnFinished | None = None
        self._error: EdwinError | None = None

    def begin(self) -> TurnBuilder:
        """Return what takes the next turn's deltas in.

        Raises:
            AgentLimitExceeded: If the agent may have no other turn.
            ToolLimitExceeded: If the last one asked for more calls than it may make.
            StructuredOutputInvalid: If the last one did not have the form asked for.

        """
        if self._error is not None:
            raise self._error
        self._turns += 1
        limit = self._agent.max_turns
        if self._turns > limit:
            raise AgentLimitExceeded(
                f"the agent needs more than {limit} turns for its answer "
                "(agents.*.maxTurns)"
            )
        if self._turns > 1:
            self.params = self._offer.again(
                self._used.completion_tokens, results=self._results
            )
        return TurnBuilder(
            self._offer.clients,
            single=self._offer.single,
            holds=self._holds,
            lead=_BREAK if self._spoken else "",
        )

    def finished(self, turn: TurnBuilder, end: TurnFinished) -> list[Event]:
        """Take in the *end* of *turn*; return what is to be told of it."""
        done = turn.finished(end, self.context, text=self.form is None)
        assert done.message is not None
        self._used += done.usage or Usage()
        self.calls = turn.own_calls
        self._made += len(self.calls)
        if self._made > self._agent.max_tool_calls:
            self._error = ToolLimitExceeded(
                f"the agent needs more than {self._agent.max_tool_calls} tool calls "
                "for its answer (agents.*.maxToolCalls)"
            )
            self.calls = ()
            return [replace(done, counts=False)]
        if self.calls:
            self._spoken = self._spoken or bool(done.message.get("content"))
            self.context = [*self.context, done.message]
            self._last = done
            return [done]
        if self.form is not None and self.form.counts(done):
            fault = self.form.fault(turn.text)
            if fault is not None:
                self._misfit(turn.text, fault)
                return [replace(done, counts=False)]
        self.over = True
        held = turn.held()
        return [done] if held is None else [held, done]

    def answered(self, results: Sequence[Message]) -> None:
        """Take in the results of the last turn's calls."""
        assert self._last is not None and self._last.message is not None
        self.context = [*self.context, *results]
        self._results = True
        asked = self._last.message.get("tool_calls") or ()
        # The client's own calls are left: it goes on when it has answered them.
        self.over = len(asked) > len(self.calls)
        if not self.over and self._offer.length is not None:
            self.over = self._used.completion_tokens >= self._offer.length

    def _misfit(self, text: str, fault: str) -> None:
        """Have the model asked again; where that may not be, :meth:`begin` says so."""
        assert self.form is not None
        length = self._offer.length
        if self._again >= self._agent.structured_retries or (
            length is not None and self._used.completion_tokens >= length
        ):
            self._error = StructuredOutputInvalid(
                f"the model's answer is not what response_format asks for: {fault}",
                param="response_format",
            )
            return
        self._again += 1
        self.context = [*self.context, *self.form.again(text, fault)]
