"""Tools and agents as somebody would write them, for the tests of agents that act."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from edwin.tools import ToolContext, ToolFailed


@dataclass
class Log:
    """What has happened, for tests to look at; one test at a time uses it."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    contexts: list[ToolContext] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    signal_at_cancel: list[bool] = field(default_factory=list)
    at_once: int = 0
    most: int = 0


LOG = Log()


def reset() -> Log:
    """Forget everything, and return the log."""
    LOG.__init__()  # type: ignore[misc]
    return LOG


async def weather(city: str) -> str:
    """Tell the weather of a city."""
    LOG.calls.append(("weather", city))
    LOG.at_once += 1
    LOG.most = max(LOG.most, LOG.at_once)
    await asyncio.sleep(0.02)
    LOG.at_once -= 1
    return f"{city}: sunny"


def add(a: int, b: int, context: ToolContext) -> int:
    """Add two numbers."""
    LOG.calls.append(("add", f"{a}+{b}"))
    LOG.contexts.append(context)
    return a + b


def slow_first(name: str) -> str:
    """Answer, a little later for the name 'slow'."""
    if name == "slow":
        threading.Event().wait(0.1)
    return f"I am {name}"


def refuse(what: str) -> str:
    """Never do it."""
    raise ToolFailed(f"{what} cannot be had")


def broken() -> str:
    """Fail unexpectedly."""
    raise KeyError("no such thing")


async def hang(context: ToolContext) -> str:
    """Wait for ever, and note what was seen at the end."""
    LOG.entered.set()
    try:
        await asyncio.Event().wait()
    finally:
        LOG.signal_at_cancel.append(context.cancelled.is_set())
    return "never"


def block(context: ToolContext) -> str:
    """Wait in a thread until the signal is set."""
    LOG.calls.append(("block", "began"))
    context.cancelled.wait(30)
    LOG.signal_at_cancel.append(context.cancelled.is_set())
    return "late"


async def recount(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Say again what the user has said in all of the conversation."""
    yield ", ".join(m["content"] for m in messages if m["role"] == "user")


async def fails(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Fail, with words that are nobody's business."""
    raise RuntimeError("nobody knows")
    yield ""


async def hangs(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Never answer."""
    await asyncio.Event().wait()
    yield ""


async def blocks() -> str:
    """Keep the loop from its work."""
    time.sleep(0.4)
    return "done"


class Panic(BaseException):
    """What native code raises when it gives up."""


async def panics() -> str:
    """Raise what is no Exception."""
    raise Panic("out of it")


async def lists() -> str:
    """Stumble over a file whose name is no text."""
    raise FileNotFoundError("caf\udce9.txt")


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


async def mute() -> str:
    """Fail without words."""
    raise Mute


async def shouts() -> str:
    """Fail with far too many words."""
    raise ToolFailed("x" * 3_000_000)
