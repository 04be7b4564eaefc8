"""The tools a server offers, as an agent has them: which, by which names; pure."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from edwin.errors import shorten
from edwin.tools.arguments import checker
from edwin.tools.base import Tool, ToolContext
from edwin.types import ToolSource

MAX_NAME: Final = 64
_HASH: Final = 8

log = logging.getLogger("edwin.tools")

Call = Callable[[str, Mapping[str, Any]], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as the server describes it: its own name for it, and a JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def tools(
    offers: Iterable[Offer], source: ToolSource, call: Call, *, label: str
) -> tuple[Tool, ...]:
    """Return those of *offers* that *source* lets an agent have, ready to be called.

    A tool whose schema cannot be used, or whose name another has already, is left out
    with a warning.

    Args:
        offers: What the server has.
        source: Which of it the agent has, and how it is called.
        call: Calls the server's tool of the name it is given.
        label: What the server is called in the log.

    """
    made: dict[str, Tool] = {}
    for offer in offers:
        if not any(fnmatchcase(offer.name, pattern) for pattern in source.allow):
            continue
        name = fit(source.prefix + offer.name)
        if name in made:
            _left_out(label, offer, f"another tool is called {name} already")
            continue
        try:
            fault = checker(offer.parameters)
        except ValueError as error:
            _left_out(label, offer, f"its schema cannot be used: {error}")
            continue
        made[name] = Tool(
            name=name,
            description=offer.description,
            parameters=offer.parameters,
            fault=fault,
            call=_caller(call, offer.name),
            idempotent=source.idempotent,
            timeout_s=source.timeout_s,
        )
    return tuple(made.values())


def fit(name: str) -> str:
    """Return *name* made to fit ``[A-Za-z0-9_-]{1,64}``.

    Other characters become ``_``; of what is too long the end becomes a digest of all
    of it, so that two long names that begin alike stay two.
    """
    fitting = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
    if len(fitting) <= MAX_NAME:
        return fitting
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASH]
    return f"{fitting[: MAX_NAME - _HASH - 1]}_{digest}"


def _caller(
    call: Call, name: str
) -> Callable[[Mapping[str, Any], ToolContext], Awaitable[str]]:
    async def made(arguments: Mapping[str, Any], context: ToolContext) -> str:
        return await call(name, arguments)

    return made


def _left_out(label: str, offer: Offer, reason: str) -> None:
    fields = {"server": label, "tool": shorten(offer.name), "reason": shorten(reason)}
    log.warning("tool left out", extra={"fields": fields})
