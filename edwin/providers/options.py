"""A provider's own settings, ``models.providers.*.options``, and what they are for.

Called by the providers that are spoken to over HTTP, when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edwin.errors import ConfigError

if TYPE_CHECKING:
    from edwin.config import ProviderConfig


class Option(NamedTuple):
    """One of a provider's own settings.

    Attributes:
        fits: Says whether a value can be used.
        must: What a value must be, in words: ``must be true or false``.

    """

    fits: Callable[[Any], bool]
    must: str


def _is_text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, str) and re.fullmatch(pattern, value) is not None
    )


PROXY: Final = Option(_is_text(r"https?://[^/\s]\S*"), "must be an http address")
FLAG: Final = Option(lambda value: isinstance(value, bool), "must be true or false")


def text_option(pattern: str, must: str) -> Option:
    """Return an option whose value is a text that matches *pattern* as a whole."""
    return Option(_is_text(pattern), must)


def key_header(config: ProviderConfig) -> dict[str, str]:
    """Return the header in which a server like OpenAI's wants the key of *config*."""
    key, name = config.api_key, config.options.get("keyHeader")
    if not key:
        return {}
    return {name: key} if name else {"Authorization": f"Bearer {key}"}


def check_options(config: ProviderConfig, own: Mapping[str, Option]) -> None:
    """Check the options of *config*: ``proxy``, and the provider's *own*.

    Raises:
        ConfigError: If one is unknown, or has a value that cannot be used.

    """
    known = {"proxy": PROXY, **own}
    for name, value in config.options.items():
        key = f"models.providers.{config.name}.options.{name}"
        option = known.get(name)
        if option is None:
            raise ConfigError(f"{key} is unknown; {_there_are(sorted(known))}")
        if not option.fits(value):
            raise ConfigError(f"{key} {option.must}")


def _there_are(names: list[str]) -> str:
    *most, last = names
    return f"there are {', '.join(most)} and {last}" if most else f"there is {last}"
