"""What goes wrong in a run of Pydantic AI, as errors of Edwin with safe messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic_ai import exceptions as theirs

from edwin.errors import (
    AgentLimitExceeded,
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
    shorten,
)
from edwin.types import Agent

_log = logging.getLogger("edwin.agents")


@asynccontextmanager
async def faults(agent: Agent) -> AsyncIterator[None]:
    """Raise an error of Edwin's for what *agent*'s models and limits do meanwhile.

    The words of a provider go to the log alone.  What the agent itself does wrong is
    raised as it is.
    """
    try:
        yield
    except (theirs.AgentRunError, theirs.FallbackExceptionGroup) as error:
        last: BaseException = error
        while isinstance(last, BaseExceptionGroup):
            last = last.exceptions[-1]
        fault = _fault(agent, last)
        if fault is None:
            raise
        said = shorten(" ".join(str(last).split()), 500)
        _log.warning("agent %s: %s: %s", agent.id, type(last).__name__, said)
        raise fault from error


def _fault(agent: Agent, error: BaseException) -> EdwinError | None:
    if isinstance(error, theirs.UsageLimitExceeded):
        if "tool_calls_limit" in str(error):
            return AgentLimitExceeded(
                f'the agent "{agent.id}" may call its tools {agent.max_tool_calls} '
                "times in a run",
                code="max_tool_calls_exceeded",
            )
        if "request_limit" in str(error):
            return AgentLimitExceeded(
                f'the agent "{agent.id}" may call its model {agent.max_turns} times in '
                "a run"
            )
        return AgentLimitExceeded(
            f'the agent "{agent.id}" has come to a limit of its own'
        )
    whose = f'the model of the agent "{agent.id}"'
    if isinstance(error, theirs.UnexpectedModelBehavior):
        return ProviderError(
            f"{whose} gave no answer that can be used; the log has the reason",
            should_retry=False,
        )
    if not isinstance(error, theirs.ModelAPIError):
        return None
    return _of_provider(f"the provider of {whose}", error)


def _of_provider(whose: str, error: theirs.ModelAPIError) -> EdwinError:
    status = getattr(error, "status_code", 0)
    if isinstance(error, theirs.ModelContextWindowExceededError):
        return ContextLengthExceeded(
            f"the conversation is too long for {whose} (context_length_exceeded); "
            "shorten the messages",
            param="messages",
        )
    if isinstance(error, theirs.ModelQuotaExceededError):
        return ProviderRateLimited(
            f"the account at {whose} is used up", should_retry=False
        )
    if isinstance(error, theirs.ModelRateLimitError) or status == 429:
        return ProviderRateLimited(
            f"{whose} asks to be called less often", retry_after_s=error.retry_after
        )
    if isinstance(error, theirs.ModelTimeoutError | theirs.ModelRequestTimeout):
        return ProviderTimeout(f"{whose} did not answer in time")
    broken = isinstance(error, theirs.ModelConnectionError) and error.phase == "read"
    if error.in_stream or broken:
        return ProviderStreamError(f"{whose} broke its answer off")
    how = f" (HTTP {status})" if status else ""
    if isinstance(error, theirs.ModelRequestRejectedError) or 400 <= status < 500:
        return ProviderError(
            f"{whose} refused the call{how}; the log has its reason",
            should_retry=False,
        )
    return ProviderUnavailable(
        f"{whose} cannot answer now{how}", retry_after_s=error.retry_after
    )
