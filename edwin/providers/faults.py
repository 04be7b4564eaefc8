"""What a provider's fault becomes: one of Edwin's errors, with a safe message.

The provider's own words may hold anything, a key or somebody's text included; they
go to the log (:func:`said`), never to the client.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from edwin.errors import (
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)

# OpenAI, Azure and Groq have the code; then llama.cpp, vLLM, SGLang, Ollama, LM Studio,
# OpenRouter, Mistral, Gemini, Anthropic, xAI, Cohere, TGI, each with words of its own.
_TOO_LONG = re.compile(
    r"context_(?:length|window|size)_exceeded|exceed_context_size"
    r"|max(?:imum)? (?:context|prompt) length"
    r"|exceeds? (?:the |this |your )?(?:model's )?(?:available |maximum )?context"
    r"|(?:longer|greater) than the (?:model's |maximum )?(?:context|model) length"
    r"|context length of only|(?:prompt|input) is too long"
    r"|(?:prompt|input) token count.{0,40}exceeds"
    r"|tokens in the prompt cannot exceed|inputs\W{0,2} (?:tokens \+|must have less)",
    re.IGNORECASE,
)
_NEVER_TOO_LONG = (401, 403, 404, 429)

# Codes and types of error objects that come without a status of their own.
_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "server_error": 500,
    "overloaded": 503,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "unavailable_error": 503,
}
_HINTS = {
    401: "; models.providers.{name}.apiKey is missing or wrong",
    403: "; its key may not use this model",
    404: "; baseUrl or the name of the model is wrong",
}
_QUOTA = "insufficient_quota"


def parse(body: bytes) -> Any:
    """Return the error that *body* holds: the decoded object, or the text as it is."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, dict) and document.get("error"):
        return document["error"]
    return document


def said(error: Any, *, secrets: tuple[str, ...], limit: int = 500) -> str:
    """Return the words of *error* for the log: one line, short, secrets masked."""
    text = _text(error)
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        text = error["message"]
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(text[: 4 * limit].split())[:limit]


def fault(
    name: str,
    status: int,
    error: Any,
    *,
    headers: Mapping[str, str] | None = None,
    started: bool = False,
) -> EdwinError:
    """Return what Edwin reports for the *error* of provider *name*.

    Args:
        name: The provider's name in the configuration.
        status: HTTP status it came with; 200 where it stood in place of an answer.
        error: The error as :func:`parse` gives it.
        headers: Headers of the answer, for ``Retry-After``.
        started: Whether deltas came before it.

    """
    codes = _codes(error)
    if status < 300:
        status = _own_status(error, codes)
    if status not in _NEVER_TOO_LONG and _TOO_LONG.search(_text(error)):
        return ContextLengthExceeded(
            f"the conversation exceeds the context window of provider {name!r}'s "
            "model (context_length_exceeded); shorten the messages",
            param="messages",
        )
    wait_s = retry_after_s(headers or {}, now=time.time())
    if status == 429 and _QUOTA in codes:
        # No patience helps: neither Edwin nor the client is to call again.
        return ProviderRateLimited(
            f"the account at provider {name!r} is used up", should_retry=False
        )
    if status == 429:
        return ProviderRateLimited(
            f"provider {name!r} asks to be called less often", retry_after_s=wait_s
        )
    if started:
        return ProviderStreamError(f"provider {name!r} broke its answer off")
    if status >= 500:
        return ProviderUnavailable(
            f"provider {name!r} cannot answer now (HTTP {status})",
            retry_after_s=wait_s,
        )
    if 300 <= status < 400:
        return ProviderError(
            f"provider {name!r} answers with a redirect (HTTP {status}), which is not "
            f"followed; models.providers.{name}.baseUrl is to be where it leads",
            should_retry=False,
        )
    how = f" (HTTP {status})" if status else ""
    hint = _HINTS.get(status, "; the gateway's log has its reason").format(name=name)
    return ProviderError(
        f"provider {name!r} refused the call{how}{hint}", should_retry=False
    )


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that *headers* ask to wait, or None.

    Args:
        headers: ``retry-after-ms`` is read before ``Retry-After`` (seconds, or a date).
        now: Unix seconds, for a date.

    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        return seconds / 1000
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _codes(error: Any) -> list[str]:
    if not isinstance(error, dict):
        return []
    return [str(error.get(key)).lower() for key in ("code", "type", "status")]


def _own_status(error: Any, codes: list[str]) -> int:
    for code in codes:
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
    return next((_STATUS[code] for code in codes if code in _STATUS), 0)


def _text(error: Any) -> str:
    # Nested words count too: OpenRouter wraps those of the provider behind it.
    return error if isinstance(error, str) else orjson.dumps(error).decode()
