"""Any server that speaks OpenAI's chat completions: ``api: openai-completions``.

Options, all of them for servers that differ from OpenAI's own:

``proxy``
    URL of an HTTP proxy; those of the environment are not used.
``includeUsage: false``
    The server refuses ``stream_options``.
``keyHeader``
    Header that the key goes up in, as it is (Azure: ``api-key``).
``apiVersion``
    Goes up as the query ``api-version`` (Azure, where the address has none of its own).
``maxTokensField``
    The one name by which the server knows the answer's length.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from edwin.errors import ConfigError
from edwin.providers.chunks import AnswerDecoder
from edwin.providers.http import Decoder, HttpProvider
from edwin.providers.options import FLAG, check_options, key_header, text_option
from edwin.types import ModelRequest

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

# OpenAI's names for the length of an answer; of two that are given the first counts.
_LENGTHS = ("max_completion_tokens", "max_tokens")

_OPTIONS = {
    "includeUsage": FLAG,
    "keyHeader": text_option(
        r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "must be the name of a header, such as api-key"
    ),
    "apiVersion": text_option(
        r"[A-Za-z0-9._-]+",
        "must be the name of a version, such as 2024-10-21; quote it",
    ),
    "maxTokensField": text_option(
        "|".join(_LENGTHS), f"must be {' or '.join(_LENGTHS)}"
    ),
}


class OpenAICompletions(HttpProvider):
    """A provider of chat completions, see :class:`edwin.providers.base.Provider`.

    What is sent is what the request holds: messages and parameters go up unchanged, but
    for the name of the length where an option gives that.
    """

    def __init__(self, config: ProviderConfig) -> None:
        if config.base_url is None:
            raise ConfigError(
                f"models.providers.{config.name}.baseUrl is missing; set the "
                "provider's address"
            )
        check_options(config, _OPTIONS)
        options = config.options
        url = f"{config.base_url}/chat/completions"
        if version := options.get("apiVersion"):
            url += f"?{urlencode({'api-version': version})}"
        super().__init__(config, url=url, headers=key_header(config))
        self._include_usage: bool = options.get("includeUsage", True)
        self._length: str | None = options.get("maxTokensField")

    def _document(self, request: ModelRequest) -> Mapping[str, Any]:
        document = {
            "model": request.model,
            "messages": request.messages,
            **request.params,
        }
        if self._length is not None:
            given = [document.pop(name) for name in _LENGTHS if name in document]
            if given:
                document[self._length] = given[0]
        if self._config.stream:
            document["stream"] = True
            if self._include_usage:
                document["stream_options"] = {"include_usage": True}
        return document

    def _decoder(self) -> Decoder:
        return AnswerDecoder(_call_id)


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
