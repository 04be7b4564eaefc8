"""Anthropic's own API, and servers that speak it: ``api: anthropic-messages``.

Options:

``proxy``
    URL of an HTTP proxy; those of the environment are not used.
``maxTokens``
    How long an answer may be where neither request nor agent says; 4096 without it.
``cache: true``
    The prompt's end is marked for the prompt cache.
``thinking``
    ``adaptive`` or ``budget``: the way of thinking that the models know; without it, by
    the model's name.
``sampling: false``
    The models refuse ``temperature``, ``top_p`` and ``top_k``.
``jsonSchema: false``
    The models have no structured outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edwin.providers.anthropic_answer import Memory, MessageDecoder
from edwin.providers.anthropic_request import DEFAULT_MAX_TOKENS, Settings, document
from edwin.providers.http import Decoder, HttpProvider
from edwin.providers.options import FLAG, Option, check_options, text_option
from edwin.types import ModelRequest

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"

_OPTIONS = {
    "maxTokens": Option(
        lambda value: type(value) is int and 0 < value < 2**31,
        "must be a number of tokens",
    ),
    "cache": FLAG,
    "thinking": text_option("adaptive|budget", "must be adaptive or budget"),
    "sampling": FLAG,
    "jsonSchema": FLAG,
}


class AnthropicMessages(HttpProvider):
    """A provider of messages, see :class:`edwin.providers.base.Provider`.

    It remembers the thinking that stood before the latest calls of tools, which has to
    go back with their results; only while it runs.

    Attributes:
        json_schema: Whether ``response_format`` goes up.

    """

    def __init__(self, config: ProviderConfig) -> None:
        check_options(config, _OPTIONS)
        options = config.options
        url = f"{api_url(config)}/messages"
        super().__init__(config, url=url, headers=api_headers(config))
        self.json_schema: bool = options.get("jsonSchema", True)
        self._settings = Settings(
            max_tokens=options.get("maxTokens", DEFAULT_MAX_TOKENS),
            cache=options.get("cache", False),
            thinking=options.get("thinking"),
            sampling=options.get("sampling", True),
            stream=config.stream,
        )
        self._memory = Memory()

    def _document(self, request: ModelRequest) -> Mapping[str, Any]:
        return document(request, self._settings, self._memory.get)

    def _decoder(self) -> Decoder:
        return MessageDecoder(self._memory)


def api_url(config: ProviderConfig) -> str:
    """Return the address of the API, ``/v1`` included."""
    base = (config.base_url or BASE_URL).rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def api_headers(config: ProviderConfig) -> dict[str, str]:
    """Return the headers that the API wants, the key of *config* for one."""
    key = {"x-api-key": config.api_key} if config.api_key else {}
    return {"anthropic-version": VERSION, **key}
