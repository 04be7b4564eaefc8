"""Agents that the tests load: each says hello to who spoke last."""

from __future__ import annotations

import asyncio
import functools

from edwin.types import (
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)


def said(messages):
    return messages[-1]["content"]


async def stream(messages, context):
    yield "Hello "
    await asyncio.sleep(0)
    yield said(messages)


async def coroutine(messages, context):
    await asyncio.sleep(0)
    return f"Hello {said(messages)}"


def function(messages, context):
    return f"Hello {said(messages)}"


def generator(messages, context):
    yield "Hello "
    yield said(messages)


def pieces(messages, context):
    return ["Hello ", said(messages)]


async def lazy(messages, context):
    return (text for text in ("Hello ", said(messages)))


async def later(messages, context):
    return stream(messages, context)


def unmarked(messages, context):
    return coroutine(messages, context)


def alone(messages):
    return function(messages, None)


def with_default(messages, greeting="Hello"):
    return f"{greeting} {said(messages)}"


def by_name(messages, *, context):
    assert context.agent
    return function(messages, context)


def anything(*arguments):
    return function(*arguments)


def greet(greeting, messages, context):
    return f"{greeting} {said(messages)}"


partial = functools.partial(greet, "Hello")


class Greeter:
    """An object that can be called."""

    async def __call__(self, messages, context):
        yield "Hello "
        yield said(messages)

    def method(self, messages, context):
        return function(messages, context)


greeter = Greeter()

KINDS = (
    *("stream", "coroutine", "function", "generator", "pieces", "lazy", "later"),
    *("unmarked", "alone", "with_default", "by_name", "anything", "partial"),
    *("greeter", "greeter.method"),
)


async def everything(messages, context):
    yield ReasoningDelta("hm")
    yield ToolStarted("c1", "look", "{}")
    yield ToolFinished("c1", "look", None, "seen")
    yield TextDelta("done")
    yield TurnFinished("length", Usage(3, 2))


async def caller(messages, context):
    (tool,) = context.params["tools"]
    yield ToolCallDelta(0, "call_1", tool["function"]["name"], "{}")


number = 5


def three(messages, context, more):
    """Take what nobody gives."""


def nothing():
    """Take nothing at all."""
