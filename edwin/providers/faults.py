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
    ContentFiltered,
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)
from edwin.providers.chunks import OLLAMA_NATIVE

# OpenAI, Azure and Groq have the code; then llama.cpp, vLLM, SGLang, Ollama, LM Studio,
# OpenRouter, Mistral, Gemini, Anthropic, xAI, Cohere, TGI, each with words of its own.
_TOO_LONG = re.compile(
    r"context_(?:length|window|size)_exceeded|exceed_context_size"
    r"|max(?:imum)? (?:context|prompt) length"
    r"|exceeds? (?:the |this |your )?(?:model's )?(?:available |maximum )?context"
    r"|context size has been exceeded"
    r"|(?:longer|greater) than the (?:model's |maximum )?(?:context|model) length"
    r"|context length (?:of|is) only|not fit in (?:the )?context"
    r"|(?:prompt|input) is too long|too long to fit into the model"
    r"|(?:prompt|input) token count.{0,40}exceeds"
    r"|tokens in the prompt cannot exceed|inputs\W{0,2} (?:tokens \+|must have less)",
    re.IGNORECASE,
)
_NEVER_TOO_LONG = (401, 403, 404, 429)

# The request itself was found unfit: OpenAI, Azure, DeepSeek (which has no code).
_FILTERED = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "invalid_prompt",
    "content exists risk",
}

# Codes and types of error objects that come without a status of their own.
_STATUS = {
    "bad_request": 400,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "resource_exhausted": 429,
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
    "service_unavailable_error": 503,
    "unavailable": 503,
    "unavailable_error": 503,
}
_BASE_URL = "models.providers.{name}.baseUrl is to end in /v1"
_KEY = "; models.providers.{name}.apiKey is missing or wrong"
_HINTS = {
    401: _KEY,
    402: "; its account has no credit left",
    403: "; its key may not use this model",
    404: "; baseUrl or the name of the model is wrong",
}
_NO_TOOLS = (
    r"(?:tool|function).{0,99}(?:--jinja|--enable-auto-tool-choice)"
    r"|(?:does not|endpoints found that) support (?:tools|tool use|functions?\b)"
)
# What its words say more exactly than its status; the first that fits.
_WORDS = [
    (re.compile(words, re.IGNORECASE), hint)
    for words, hint in (
        (OLLAMA_NATIVE, f"; it is Ollama's own API: {_BASE_URL}"),
        (r"unexpected endpoint|404 page not found", f"; {_BASE_URL}"),
        (_NO_TOOLS, "; it cannot use tools with this model, as it is set up"),
        (
            r"reasoning_content.{0,80}passed back|missing.{0,20}reasoning_content"
            r"|reasoning_content is missing|thought_signature",
            "; it wants the model's thinking back, which is not kept: switch it off",
        ),
        (r"try pulling it", "; it has no such model: pull it first"),
        (r"no models? loaded", "; it has loaded no model"),
        (r"deploymentnotfound", "; it has no deployment of the model's name"),
        (r"api key not valid|invalid api key|authorization header", _KEY),
        (
            r"model_not_found|not a valid model|invalid model|no endpoints found for"
            r"|models?\W.{1,200}(?:not found|does not exist)",
            "; it has no such model",
        ),
    )
]
_REFUSED = re.compile(_NO_TOOLS, re.IGNORECASE)
_QUOTA = "insufficient_quota"
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse(body: bytes) -> Any:
    """Return the error that *body* holds: the decoded object, or the text as it is."""
    body = body.removeprefix(b"\xef\xbb\xbf")
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
        if raw := _part(error, "metadata").get("raw"):
            # OpenRouter's own words say only that another's were an error.
            text = f"{text}: {_text(raw)}"
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
        headers: Headers of the answer, for ``Retry-After`` and ``x-ratelimit-*``.
        started: Whether deltas came before it.

    """
    codes = _codes(error)
    text = _text(error)
    if status < 300:
        status = _own_status(codes)
    if found := _fault_of_the_request(name, status, error, text):
        return found
    wait_s = _asked_wait_s(headers or {}, error)
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
    if (status >= 500 or status == 408) and not _REFUSED.search(text):
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
    hint = _hint(status, text).format(name=name)
    return ProviderError(
        f"provider {name!r} refused the call{how}{hint}", should_retry=False
    )


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that *headers* ask to wait, or None.

    Args:
        headers: ``retry-after-ms`` is read before ``Retry-After`` (seconds, or a date),
            then ``x-ratelimit-reset-*`` of what is used up; their case counts nothing.
        now: Unix seconds, for a date.

    """
    headers = {name.lower(): value for name, value in headers.items()}
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        return seconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    if value is None:
        return _reset_s(headers, now)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _fault_of_the_request(
    name: str, status: int, error: Any, text: str
) -> EdwinError | None:
    if status not in _NEVER_TOO_LONG and _TOO_LONG.search(text):
        return ContextLengthExceeded(
            f"the conversation exceeds the context window of provider {name!r}'s "
            "model (context_length_exceeded); shorten the messages",
            param="messages",
        )
    if status in (0, 400, 403) and _is_filtered(error):
        return ContentFiltered(
            f"the content filter of provider {name!r} refuses the conversation "
            "(content_filter); change the messages",
            param="messages",
        )
    return None


def _is_filtered(error: Any) -> bool:
    # OpenRouter has no code for it either, but says what was found.
    if "flagged_input" in _part(error, "metadata"):
        return True
    inner = _part(error, "innererror")
    words = [*_codes(error), *_codes(inner), str(_field(error, "message")).lower()]
    return not _FILTERED.isdisjoint(words)


def _hint(status: int, text: str) -> str:
    for words, hint in _WORDS:
        if words.search(text):
            return hint
    return _HINTS.get(status, "; the gateway's log has its reason")


def _asked_wait_s(headers: Mapping[str, str], error: Any) -> float | None:
    now = time.time()
    wait_s = retry_after_s(headers, now=now)
    if wait_s is None:
        # OpenRouter hands on the headers of who is behind it, Gemini has a field.
        passed = _part(error, "metadata").get("headers")
        if isinstance(passed, dict):
            texts = {str(name): str(value) for name, value in passed.items()}
            wait_s = retry_after_s(texts, now=now)
    details = _field(error, "details")
    if wait_s is None and isinstance(details, list):
        delays = [part.get("retryDelay") for part in details if isinstance(part, dict)]
        wait_s = next((_duration_s(delay, now) for delay in delays if delay), None)
    return wait_s


def _reset_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return when what is used up is there again, by the ``x-ratelimit-*`` headers."""
    waits = [
        _duration_s(headers.get(f"x-ratelimit-reset{kind}"), now)
        for kind in ("-requests", "-tokens", "")
        if _number(headers.get(f"x-ratelimit-remaining{kind}")) == 0
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration_s(value: Any, now: float) -> float | None:
    """Return the seconds of ``6m0s``, ``7.66s``, ``120ms``, ``3`` or a unix time."""
    number = _number(value if isinstance(value, str) else None)
    if number is not None:
        if number > 1e11:
            number /= 1000
        return max(0.0, number - now) if number > 1e9 else number
    text = value if isinstance(value, str) else ""
    if not re.fullmatch(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|[smhd]))+", text):
        return None
    parts = re.findall(r"([\d.]+)(ms|[smhd])", text)
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in parts)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _part(error: Any, key: str) -> Mapping[str, Any]:
    part = _field(error, key)
    return part if isinstance(part, dict) else {}


def _field(error: Any, key: str) -> Any:
    return error.get(key) if isinstance(error, dict) else None


def _codes(error: Any) -> list[str]:
    return [str(_field(error, key)).lower() for key in ("code", "type", "status")]


def _own_status(codes: list[str]) -> int:
    for code in codes:
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
    return next((_STATUS[code] for code in codes if code in _STATUS), 0)


def _text(error: Any) -> str:
    # Nested words count too: OpenRouter wraps those of the provider behind it.
    return error if isinstance(error, str) else orjson.dumps(error).decode()
