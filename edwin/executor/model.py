"""One call of an agent's model: fallbacks, retries, and what the provider allows."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeAlias

from edwin.errors import InternalError, ProviderError, ProviderStreamError
from edwin.executor.structured import Form
from edwin.metrics import Metrics
from edwin.providers.base import Provider
from edwin.providers.gate import Gate
from edwin.tracing import UNTRACED, CallTrace, RunTrace
from edwin.types import Agent, Delta, Message, ModelRequest, TurnFinished

MAX_DELAY_S = 8.0
MAX_RETRY_AFTER_S = 30.0

Answer: TypeAlias = AsyncGenerator[Delta | TurnFinished, None]

_NO_GATES: Mapping[str, Gate] = MappingProxyType({})
_log = logging.getLogger("edwin.executor")


class Turn(NamedTuple):
    """What the model is to answer.

    Attributes:
        messages: The conversation, the agent's instructions first.
        params: Fields of the provider's request.
        form: What the answer has to look like; None: anything.
        deadline: Loop time past which no call is repeated.
        trace: Where the calls' spans belong.

    """

    messages: Sequence[Message]
    params: Mapping[str, Any]
    form: Form | None = None
    deadline: float = math.inf
    trace: RunTrace = UNTRACED


class Begun(NamedTuple):
    """An answer that has begun.

    Attributes:
        first: Its first delta, or its end where there is nothing else.
        deltas: The rest of it; whoever has it closes it.
        call: The call's trace; to be entered and left around the reading.
        entry: The call's place at the provider; likewise.

    """

    first: Delta | TurnFinished
    deltas: Answer
    call: CallTrace
    entry: Entry


class ModelCaller:
    """Calls the models of one configuration.

    Args:
        providers: Started providers, by the name that stands before the ``/`` of a
            model.  Owned by the gateway.
        gates: What each of them allows; one that is not there allows everything.
        metrics: Counts what becomes of the calls.

    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        gates: Mapping[str, Gate] = _NO_GATES,
        metrics: Metrics | None = None,
    ) -> None:
        self._providers = providers
        self._gates = gates
        self._metrics = metrics or Metrics()

    def provider(self, model: str) -> tuple[Provider, str]:
        """Return the provider of *model*, and what that calls the model."""
        name, _, rest = model.partition("/")
        try:
            return self._providers[name], rest
        except KeyError:
            raise InternalError(f"no provider is called {name!r}") from None

    async def begin(self, agent: Agent, turn: Turn) -> Begun:
        """Return the first answer to *turn* that one of *agent*'s models begins.

        Raises:
            ProviderError: If none does.
            ContextLengthExceeded: If the messages are more than the model can read.

        """
        models = (agent.model, *agent.fallbacks)
        for place, model in enumerate(models, start=1):
            try:
                return await self._with_retries(model, turn)
            except ProviderError as error:
                if place == len(models):
                    raise
                _log.warning(
                    "%s failed (%s); trying %s", model, error.code, models[place]
                )
        raise AssertionError("an agent has a model")

    async def _with_retries(self, model: str, turn: Turn) -> Begun:
        """Return *model*'s answer once it begins; repeat the call until then."""
        provider, name = self.provider(model)
        request = ModelRequest(name, turn.messages, turn.params)
        if turn.form is not None and not getattr(provider, "json_schema", True):
            request = _told(request, turn.form)
        gate = self._gates.get(provider.name)
        attempt = 0
        while True:
            if gate is not None:
                # Not repeated: who is not called for a while is not asked again.
                await gate.enter()
            entry = Entry(self._metrics, provider.name, gate)
            try:
                return await _begun(provider, request, turn.trace, entry)
            except ProviderError as error:
                delay_s = _delay(error, attempt, provider.retry_seconds)
                if attempt >= provider.retries or delay_s is None:
                    raise
                if asyncio.get_running_loop().time() + delay_s >= turn.deadline:
                    raise
                _log.info("%s: %s; again in %.1f s", provider.name, error.code, delay_s)
            attempt += 1
            self._metrics.provider_retries.add(provider.name)
            await asyncio.sleep(delay_s)


class Entry:
    """A call's place at its provider, left once; counts the error it ended with."""

    __slots__ = ("_errors", "_gate", "_provider")

    def __init__(self, metrics: Metrics, provider: str, gate: Gate | None) -> None:
        self._errors = metrics.provider_errors
        self._provider = provider
        self._gate = gate

    def leave(self, error: BaseException | None) -> None:
        """Give the place up."""
        if isinstance(error, ProviderError):
            self._errors.add(self._provider, error.code or "other")
        if self._gate is not None:
            self._gate.leave(error)

    def __enter__(self) -> None:
        """Read the answer."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(error)


async def _begun(
    provider: Provider, request: ModelRequest, trace: RunTrace, entry: Entry
) -> Begun:
    """Return the answer to one call of *provider*, once it begins."""
    call = trace.call(provider.name, request.model)
    if call.headers:
        request = replace(request, trace=call.headers)
    try:
        deltas = provider.stream(request)
        async for first in deltas:
            return Begun(first, deltas, call, entry)
        raise ProviderStreamError("the provider ended without an answer")
    except BaseException as error:
        call.end(error)
        entry.leave(error)
        raise


def _told(request: ModelRequest, form: Form) -> ModelRequest:
    """Return *request* for a provider that has no ``response_format``."""
    params = {k: v for k, v in request.params.items() if k != "response_format"}
    note: Message = {"role": "system", "content": form.instructions}
    head = request.messages[:1]
    if head and head[0]["role"] == "system":
        return replace(
            request, params=params, messages=[*head, note, *request.messages[1:]]
        )
    return replace(request, params=params, messages=[note, *request.messages])


def _delay(error: ProviderError, attempt: int, first_s: float) -> float | None:
    """Return the seconds to wait before another call; None: do not repeat it."""
    if not error.retryable or error.should_retry is False:
        return None
    if error.retry_after_s is not None:
        wait = error.retry_after_s
        return wait if wait <= MAX_RETRY_AFTER_S else None
    delay_s = min(MAX_DELAY_S, first_s * 2**attempt)
    return float(delay_s * random.uniform(0.75, 1.25))
