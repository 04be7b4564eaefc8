"""What a provider is, and how a configuration's ``api`` finds one.

A provider is a file of this folder, its name the value of
``models.providers.<name>.api`` (``openai-completions``), or a class of somebody
else's (``package.module:Class``).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from edwin.errors import ConfigError, shorten
from edwin.types import Delta, ModelRequest, TurnFinished

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

DEFAULT_CONTEXT_TOKENS: Final = 100_000
_KINDS: Final = "openai-completions, anthropic-messages, local, scripted"


class Provider(Protocol):
    """One configured source of models: made, started, used by many runs, stopped.

    Attributes:
        name: Its name in the configuration.
        context_tokens: Tokens a context may hold.
        context_is_known: Whether somebody said so, or it is only the usual guess.
        retries: How often a call may be repeated before its first delta.
        retry_seconds: Before the first repetition; doubled each time, up to 8.

    One whose API has no ``response_format`` has ``json_schema = False`` beside these;
    its model is told in words, then, what its answer has to look like.
    """

    name: str
    context_tokens: int
    context_is_known: bool
    retries: int
    retry_seconds: float

    def __init__(self, config: ProviderConfig) -> None:
        """Take *config* in, without side effects.

        Raises:
            ConfigError: If something in it cannot be used.

        """

    async def start(self) -> None:
        """Make ready for calls; none is made."""

    async def stop(self) -> None:
        """Close every connection; calls under way fail."""

    def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Call the model once; yield its deltas as they come, then the turn's end.

        A failed call is never repeated here.  Whoever iterates closes the generator
        (``aclose``, or by cancelling the task that waits in it), and that closes the
        connection of a call under way at once.

        Raises:
            ProviderError: Or one of its kinds: the call failed.
            ContextLengthExceeded: If the model cannot read that much.

        """
        ...


def provider_class(api: str) -> type[Provider]:
    """Return the class that *api* names.

    Raises:
        ConfigError: If there is none, or it cannot be imported.

    """
    found: Any = None
    if re.fullmatch(r"[A-Za-z_][\w.]*:\w+", api):
        module_name, _, class_name = api.partition(":")
        found = getattr(_import(module_name, api), class_name, None)
    elif re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", api):
        module = _import(f"{__package__}.{api.replace('-', '_')}", api)
        found = next(filter(_is_provider, _own_classes(module)), None)
    if not _is_provider(found):
        raise _unknown(api)
    return cast("type[Provider]", found)


def _import(module_name: str, api: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise _unknown(api) from error
        raise ConfigError(
            f"api {shorten(api)!r} needs the package {error.name!r}; install it"
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"api {shorten(api)!r} cannot be imported: {error}"
        ) from error


def _own_classes(module: ModuleType) -> list[Any]:
    return [
        value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
    ]


def _is_provider(found: Any) -> bool:
    return (
        isinstance(found, type)
        and not getattr(found, "_is_protocol", False)
        and not inspect.isabstract(found)
        and all(hasattr(found, verb) for verb in ("start", "stop", "stream"))
    )


def _unknown(api: str) -> ConfigError:
    return ConfigError(
        f"no provider is called {shorten(api)!r}; there are {_KINDS}, and "
        "package.module:Class for one of your own"
    )
