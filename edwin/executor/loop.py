"""AgentExecutor: an agent's work for one run, turn after turn.

A turn is one call of the model.  When it asks for tools of the agent's own, they are
called and the model gets their results; when it asks for one of the client's, or for
none, the run is over.  Called by the run; knows nothing of storage, HTTP or who reads.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

from edwin.agents.base import AgentContext, PythonAgent
from edwin.errors import ContextLengthExceeded, InternalError, ProviderStreamError
from edwin.executor.calls import Calls
from edwin.executor.model import ModelCaller, Turn
from edwin.executor.scope import Scope
from edwin.executor.talk import Talk
from edwin.executor.turn import TurnBuilder
from edwin.metrics import Metrics
from edwin.providers.base import DEFAULT_CONTEXT_TOKENS, Provider
from edwin.providers.gate import Gate
from edwin.tokens import text_tokens, total_tokens
from edwin.tools.base import Tool, Toolset
from edwin.tracing import UNTRACED, RunTrace
from edwin.types import (
    Agent,
    Event,
    Message,
    ToolFinished,
    ToolStarted,
    TurnFinished,
)

_NONE: Mapping[str, Any] = MappingProxyType({})


class AgentExecutor:
    """Carries out what an agent has to do for one run.

    It goes by one configuration; who may still need it holds it.

    Args:
        providers: Started providers, by the name that stands before the ``/`` of a
            model.  Owned by the gateway, as everything else here.
        metrics: Counts what becomes of the calls.
        gates: What each provider allows.
        tools: The tools of each agent that has some, by its id.
        agents: The agents that are Python code, by id.

    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        metrics: Metrics | None = None,
        *,
        gates: Mapping[str, Gate] = _NONE,
        tools: Mapping[str, Toolset] = _NONE,
        agents: Mapping[str, PythonAgent] = _NONE,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._model = ModelCaller(providers, gates, self._metrics)
        self._tools = tools
        self._agents = agents
        self._holders = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def hold(self) -> None:
        """Keep the providers from being stopped, until :meth:`release`."""
        self._holders += 1
        self._unused.clear()

    def release(self) -> None:
        """Give up one :meth:`hold`."""
        self._holders -= 1
        if not self._holders:
            self._unused.set()

    async def unused(self) -> None:
        """Return when nobody holds it."""
        await self._unused.wait()

    def context_tokens(self, agent: Agent) -> int:
        """Return how many tokens a context of *agent* may hold."""
        if agent.context_tokens is not None:
            return agent.context_tokens
        if agent.python:
            return DEFAULT_CONTEXT_TOKENS
        return self._model.provider(agent.model)[0].context_tokens

    def run(
        self,
        agent: Agent,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        *,
        deadline: float = math.inf,
        trace: RunTrace = UNTRACED,
        scope: Scope | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of *agent*'s answer to *messages*.

        Each turn ends with a :class:`TurnFinished` that holds its whole message; what
        the agent's own tools are called with and give back stands between them.  The
        calls that the client sees are those of its own tools alone.  Closing the
        generator, or cancelling who iterates it, closes the provider's connection and
        ends the tools at work.

        Args:
            agent: Whose instructions, model, tools and fallbacks are used.
            messages: The conversation, fit to be sent.
            params: Fields of the provider's request.
            deadline: Loop time past which no call is repeated.  Who iterates ends the
                run itself.
            trace: Where the calls' spans belong.
            scope: The run; None: one that is not kept.

        Raises:
            InvalidRequest: If the request's tools, or its ``response_format``, cannot
                be used.
            ContextLengthExceeded: If the messages are more than the model can read.
            AgentLimitExceeded: If the agent needs more turns, or calls, than it may.
            ToolsUnavailable: If a server of its tools is not there yet.
            ProviderError: If no model gave an answer, or one broke off.
            AgentFailed: If it is Python code that failed.

        """
        carry = self._answered if agent.python else self._turns
        return carry(agent, messages, params, deadline, trace, scope or Scope())

    async def _turns(
        self,
        agent: Agent,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        deadline: float,
        trace: RunTrace,
        scope: Scope,
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of an *agent* that has a model."""
        tools = await self._own_tools(agent)
        talk = Talk(agent, self._context(agent, messages), params, tools)
        while not talk.over:
            turn = talk.begin()
            first, deltas, call, entry = await self._model.begin(
                agent, Turn(talk.context, talk.params, talk.form, deadline, trace)
            )
            async with aclosing(deltas):
                with call, entry:
                    if not isinstance(first, TurnFinished):
                        if (shown := turn.add(first)) is not None:
                            yield shown
                        async for delta in deltas:
                            if isinstance(delta, TurnFinished):
                                first = delta
                                break
                            if (shown := turn.add(delta)) is not None:
                                yield shown
                        else:
                            raise ProviderStreamError(
                                "the provider ended without an answer"
                            )
                    call.finished(first)
            for event in talk.finished(turn, first):
                yield event
            if talk.calls:
                calls = Calls(talk.calls, talk.own, agent, scope, trace, self._metrics)
                async with aclosing(calls.carried_out()) as happening:
                    async for event in happening:
                        yield event
                talk.answered(calls.messages())

    async def _own_tools(self, agent: Agent) -> Sequence[Tool]:
        toolset = self._tools.get(agent.id)
        return () if toolset is None else await toolset.tools()

    def _context(self, agent: Agent, messages: Sequence[Message]) -> Sequence[Message]:
        known = agent.context_tokens
        provider = self._model.provider(agent.model)[0]
        if known is None and provider.context_is_known:
            known = provider.context_tokens
        if known is not None:
            tokens = total_tokens(messages) + text_tokens(agent.instructions)
            if tokens > known:
                raise ContextLengthExceeded(
                    f"the conversation, about {tokens} tokens, exceeds the context "
                    f"window of {known} (context_length_exceeded)",
                    param="messages",
                )
        if not agent.instructions:
            return messages
        return [{"role": "system", "content": agent.instructions}, *messages]

    async def _answered(
        self,
        agent: Agent,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        deadline: float,
        trace: RunTrace,
        scope: Scope,
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of an *agent* that is Python code."""
        code = self._agents.get(agent.id)
        if code is None:
            raise InternalError(f"the agent {agent.id!r} was not loaded")
        # Nobody knows what it does: it is not carried out again.
        await scope.effects()
        context = AgentContext(
            run_id=scope.run_id,
            agent=agent.id,
            session_key=scope.session_key,
            principal_id=scope.principal_id,
            token=scope.token,
            instructions=agent.instructions,
            params=params,
            deadline=deadline,
        )
        turn = TurnBuilder()
        answer = code.answer(messages, context)
        async with aclosing(answer):
            async for event in answer:
                if isinstance(event, TurnFinished):
                    yield turn.finished(event, messages)
                elif isinstance(event, ToolStarted | ToolFinished):
                    yield event
                elif (shown := turn.add(event)) is not None:
                    yield shown
