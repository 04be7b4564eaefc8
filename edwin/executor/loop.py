"""AgentExecutor: the agent's instructions, its model, retries and fallbacks.

Called by the run; knows nothing of storage, HTTP or who reads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeAlias

from edwin.errors import (
    ContextLengthExceeded,
    InternalError,
    ProviderError,
    ProviderStreamError,
)
from edwin.executor.turn import TurnBuilder
from edwin.metrics import Metrics
from edwin.providers.base import Provider
from edwin.tokens import text_tokens, total_tokens
from edwin.tracing import UNTRACED, CallTrace, RunTrace
from edwin.types import (
    Agent,
    Delta,
    Event,
    Message,
    ModelRequest,
    TurnFinished,
)

MAX_DELAY_S = 8.0
MAX_RETRY_AFTER_S = 30.0

Answer: TypeAlias = AsyncGenerator[Delta | TurnFinished, None]

_log = logging.getLogger("edwin.executor")


class AgentExecutor:
    """Carries out what an agent has to do for one run.

    It goes by one configuration; who may still need it holds it.

    Args:
        providers: Started providers, by the name that stands before the ``/`` of a
            model.  Owned by the gateway.
        metrics: Counts what becomes of the calls.

    """

    def __init__(
        self, providers: Mapping[str, Provider], metrics: Metrics | None = None
    ) -> None:
        self._providers = providers
        self._metrics = metrics or Metrics()
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
        return agent.context_tokens or self._provider(agent.model)[0].context_tokens

    async def run(
        self,
        agent: Agent,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        *,
        deadline: float = math.inf,
        trace: RunTrace = UNTRACED,
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of *agent*'s answer to *messages*.

        Ends with a :class:`TurnFinished` that holds the whole message.  Closing the
        generator, or cancelling who iterates it, closes the provider's connection.

        Args:
            agent: Whose instructions, model and fallbacks are used.
            messages: The conversation, fit to be sent.
            params: Fields of the provider's request.
            deadline: Loop time past which no call is repeated.  Who iterates ends the
                run itself.
            trace: Where the calls' spans belong.

        Raises:
            ContextLengthExceeded: If the messages are more than the model can read.
            ProviderError: If no model gave an answer, or one broke off.

        """
        context = self._context(agent, messages)
        turn = TurnBuilder()
        first, deltas, call, faults = await self._begin(
            agent, context, params, deadline, trace
        )
        async with aclosing(deltas):
            with call, faults:
                if not isinstance(first, TurnFinished):
                    turn.add(first)
                    yield first
                    async for delta in deltas:
                        if isinstance(delta, TurnFinished):
                            first = delta
                            break
                        turn.add(delta)
                        yield delta
                    else:
                        raise ProviderStreamError(
                            "the provider ended without an answer"
                        )
                call.finished(first)
            yield turn.finished(first, context)

    def _context(self, agent: Agent, messages: Sequence[Message]) -> Sequence[Message]:
        known = agent.context_tokens
        provider = self._provider(agent.model)[0]
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

    async def _begin(
        self,
        agent: Agent,
        context: Sequence[Message],
        params: Mapping[str, Any],
        deadline: float,
        trace: RunTrace,
    ) -> tuple[Delta | TurnFinished, Answer, CallTrace, _Faults]:
        """Return the first answer that one of the agent's models begins.

        Returns:
            Its first delta, the rest of it, which the caller closes, the call's
            trace, which the caller ends, and what counts the provider's faults.

        """
        models = (agent.model, *agent.fallbacks)
        for place, model in enumerate(models, start=1):
            provider, name = self._provider(model)
            request = ModelRequest(name, context, params)
            try:
                begun = await self._with_retries(provider, request, deadline, trace)
                return (*begun, _Faults(self._metrics, provider.name))
            except ProviderError as error:
                if place == len(models):
                    raise
                _log.warning(
                    "%s failed (%s); trying %s", model, error.code, models[place]
                )
        raise AssertionError("an agent has a model")

    async def _with_retries(
        self,
        provider: Provider,
        request: ModelRequest,
        deadline: float,
        trace: RunTrace,
    ) -> tuple[Delta | TurnFinished, Answer, CallTrace]:
        """Return the provider's answer once it begins; repeat the call until then."""
        attempt = 0
        while True:
            try:
                with _Faults(self._metrics, provider.name):
                    return await _begun(provider, request, trace)
            except ProviderError as error:
                delay_s = _delay(error, attempt, provider.retry_seconds)
                if attempt >= provider.retries or delay_s is None:
                    raise
                if asyncio.get_running_loop().time() + delay_s >= deadline:
                    raise
                _log.info("%s: %s; again in %.1f s", provider.name, error.code, delay_s)
            attempt += 1
            self._metrics.provider_retries.add(provider.name)
            await asyncio.sleep(delay_s)

    def _provider(self, model: str) -> tuple[Provider, str]:
        name, _, rest = model.partition("/")
        try:
            return self._providers[name], rest
        except KeyError:
            raise InternalError(f"no provider is called {name!r}") from None


class _Faults:
    """Counts the errors of one provider that are raised while it is open."""

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self._errors = metrics.provider_errors
        self._provider = provider

    def __enter__(self) -> None:
        """Wait for them."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ProviderError):
            self._errors.add(self._provider, error.code or "other")


async def _begun(
    provider: Provider, request: ModelRequest, trace: RunTrace
) -> tuple[Delta | TurnFinished, Answer, CallTrace]:
    """Return the answer to one call of *provider*, once it begins."""
    call = trace.call(provider.name, request.model)
    if call.headers:
        request = replace(request, trace=call.headers)
    try:
        deltas = provider.stream(request)
        async for first in deltas:
            return first, deltas, call
        raise ProviderStreamError("the provider ended without an answer")
    except BaseException as error:
        call.end(error)
        raise


def _delay(error: ProviderError, attempt: int, first_s: float) -> float | None:
    """Return the seconds to wait before another call; None: do not repeat it."""
    if not error.retryable or error.should_retry is False:
        return None
    if error.retry_after_s is not None:
        wait = error.retry_after_s
        return wait if wait <= MAX_RETRY_AFTER_S else None
    delay_s = min(MAX_DELAY_S, first_s * 2**attempt)
    return float(delay_s * random.uniform(0.75, 1.25))
