"""How an agent's code is called, whatever kind of callable it is."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from edwin.agents.base import AgentContext
from edwin.agents.threads import in_thread, single
from edwin.types import Message

Items: TypeAlias = AsyncGenerator[object, None]
GiveUp: TypeAlias = Callable[[threading.Thread], None]
Call: TypeAlias = Callable[[Sequence[Message], AgentContext, GiveUp], Items]
"""Calls the code with its messages and context; what it yields is yielded."""

_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def calling(code: Callable[..., Any]) -> Call:
    """Return what calls *code*: a function, or an object that can be called.

    Coroutines and asynchronous generators run on the loop, everything else in a
    thread.

    Raises:
        TypeError: If it takes other arguments than messages and context; its message
            says so.

    """
    binding = _binding(code)
    function = code if _is_function(code) else type(code).__call__
    on_loop = inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(
        function
    )

    def call(
        messages: Sequence[Message], context: AgentContext, give_up: GiveUp
    ) -> Items:
        arguments, named = binding(messages, context)
        bound = functools.partial(code, *arguments, **named)
        name = f"{context.run_id} {context.agent}"
        if on_loop:
            return _expanded(bound(), name, give_up)
        return _called(bound, name, give_up)

    return call


def _is_function(code: object) -> bool:
    return inspect.isroutine(code) or isinstance(code, functools.partial)


def _binding(code: Callable[..., Any]) -> Callable[..., _Arguments]:
    """Return what makes the arguments of *code* of messages and context."""
    try:
        signature = inspect.signature(code)
    except ValueError:
        raise TypeError("does not say which arguments it takes") from None
    parameters = signature.parameters.values()
    ways: list[Callable[..., _Arguments]] = []
    if "context" in signature.parameters:
        ways.append(lambda messages, context: ((messages,), {"context": context}))
    elif not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        ways.append(lambda messages, context: ((messages,), {}))
    ways.append(lambda messages, context: ((messages, context), {}))
    for way in ways:
        arguments, named = way(None, None)
        try:
            signature.bind(*arguments, **named)
        except TypeError:
            continue
        return way
    raise TypeError("must take (messages, context), or (messages) alone")


async def _called(bound: Callable[[], Any], name: str, give_up: GiveUp) -> Items:
    """Call *bound* in a thread; what it makes for the loop is done on the loop."""
    async with aclosing(in_thread(bound, name, give_up)) as items:
        async for item in items:
            if inspect.isawaitable(item) or hasattr(item, "__aiter__"):
                async with aclosing(_expanded(item, name, give_up)) as inner:
                    async for event in inner:
                        yield event
            else:
                yield item


async def _expanded(result: Any, name: str, give_up: GiveUp) -> Items:
    """Yield what *result* is: to be awaited, to be iterated, or there already."""
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        try:
            async for item in result:
                yield item
        finally:
            if hasattr(result, "aclose"):
                await result.aclose()
    elif single(result):
        yield result
    else:
        async with aclosing(in_thread(lambda: result, name, give_up)) as items:
            async for item in items:
                yield item
