"""A provider without a model, for demonstrations and tests: ``api: scripted``.

It answers word by word, by default with the last user message.  Options: ``text``,
what to say instead; ``delaySeconds``, between two words; ``fail``, the code of the
error to answer with (``provider_rate_limited``).  It gives no usage.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from edwin.errors import (
    ConfigError,
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.providers.base import DEFAULT_CONTEXT_TOKENS
from edwin.types import Delta, Message, ModelRequest, TextDelta, TurnFinished

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

_FAULTS: dict[str | None, type[EdwinError]] = {
    fault.code: fault
    for fault in (
        ContextLengthExceeded,
        ProviderError,
        ProviderRateLimited,
        ProviderStreamError,
        ProviderTimeout,
        ProviderUnavailable,
    )
}


class Scripted:
    """Answers from its options, see :class:`edwin.providers.base.Provider`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self.context_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS
        self.context_is_known = config.context_tokens is not None
        self.retries = config.retries
        self.retry_seconds = config.retry_seconds
        options = dict(config.options)
        self._text = options.pop("text", None)
        self._delay_s = options.pop("delaySeconds", 0)
        self._fail = options.pop("fail", None)
        self._check(options)

    def _check(self, unknown: dict[str, Any]) -> None:
        key = f"models.providers.{self.name}.options"
        for option in unknown:
            raise ConfigError(
                f"{key}.{option} is unknown; there are text, delaySeconds and fail"
            )
        if not isinstance(self._text, str | None):
            raise ConfigError(f"{key}.text must be a string; quote it")
        if not isinstance(self._delay_s, int | float) or self._delay_s < 0:
            raise ConfigError(f"{key}.delaySeconds must be a number from 0")
        if self._fail is not None and self._fail not in _FAULTS:
            codes = ", ".join(map(str, _FAULTS))
            raise ConfigError(f"{key}.fail must be one of {codes}")

    async def start(self) -> None:
        """Do nothing: there is no connection."""

    async def stop(self) -> None:
        """Do nothing: there is no connection."""

    async def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Answer *request*, see :meth:`edwin.providers.base.Provider.stream`."""
        if self._fail is not None:
            raise _FAULTS[self._fail](f"provider {self.name!r} is told to fail")
        text = _last_user_text(request.messages) if self._text is None else self._text
        for number, word in enumerate(re.findall(r"\s*\S+|\s+", text)):
            if number and self._delay_s:
                await asyncio.sleep(self._delay_s)
            yield TextDelta(word)
        yield TurnFinished("stop")


def _last_user_text(messages: Iterable[Message]) -> str:
    texts = [
        message.get("content") for message in messages if message["role"] == "user"
    ]
    content = texts[-1] if texts else None
    if isinstance(content, list):
        # Parts of other types may have a key of that name all the same.
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""
