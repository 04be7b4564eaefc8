"""What becomes of each field of the official request: the table behind the docs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Use = Literal["forwarded", "honoured", "refused", "ignored"]

# Forwarded fields go to the provider as they are, honoured ones mean something to
# Edwin itself, refused ones are an error unless they ask for nothing.
FIELDS: Mapping[str, Use] = MappingProxyType(
    {
        "model": "honoured",
        "messages": "honoured",
        "stream": "honoured",
        "stream_options": "honoured",
        "user": "honoured",
        "safety_identifier": "ignored",
        "prompt_cache_key": "ignored",
        "prompt_cache_retention": "forwarded",
        "prompt_cache_options": "forwarded",
        "temperature": "forwarded",
        "top_p": "forwarded",
        "presence_penalty": "forwarded",
        "frequency_penalty": "forwarded",
        "max_completion_tokens": "forwarded",
        "max_tokens": "forwarded",
        "n": "refused",
        "stop": "forwarded",
        "seed": "forwarded",
        "logprobs": "forwarded",
        "top_logprobs": "forwarded",
        "logit_bias": "forwarded",
        "response_format": "forwarded",
        "tools": "forwarded",
        "tool_choice": "forwarded",
        "parallel_tool_calls": "forwarded",
        "functions": "refused",
        "function_call": "refused",
        "modalities": "refused",
        "audio": "refused",
        "prediction": "forwarded",
        "reasoning_effort": "forwarded",
        "verbosity": "forwarded",
        "service_tier": "ignored",
        "metadata": "ignored",
        "store": "ignored",
        "moderation": "ignored",
        "web_search_options": "forwarded",
    }
)
