"""Agents that are Python code: found, called, and held to what an agent may do.

The one place that knows that the code is somebody else's: it may raise, hang, or give
anything at all.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import traceback
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from edwin.agents.base import AgentContext, AgentEvent, PythonAgent
from edwin.agents.calling import Call, calling
from edwin.agents.work import Work
from edwin.agents.yielded import copied, event_of
from edwin.errors import AgentFailed, ConfigError, EdwinError
from edwin.types import Agent, Message, ToolCallDelta, TurnFinished

GRACE_S = 5.0
"""How long code may take to end once it is cancelled."""

MAX_LEFT = 64
"""How many calls of an agent may go on after they were given up."""

_log = logging.getLogger("edwin.agents")


def load(
    agents: Mapping[str, Agent], *, grace_s: float = GRACE_S
) -> Mapping[str, PythonAgent]:
    """Return the agents of *agents* that are Python code, ready to answer.

    Imports their modules, which are found where Python finds modules.

    Args:
        agents: Every agent, by id.
        grace_s: How long code may take to end once it is cancelled.

    Raises:
        ConfigError: If a module cannot be imported, or has nothing by that name that
            can answer.

    """
    return {
        id: CodeAgent(id, _call(agent, agent.python), grace_s)
        for id, agent in agents.items()
        if agent.python is not None
    }


class CodeAgent:
    """An agent that is Python code.

    Args:
        id: Its id.
        call: Calls the code.
        grace_s: How long the code may take to end once it is cancelled.

    """

    def __init__(self, id: str, call: Call, grace_s: float = GRACE_S) -> None:
        self._id = id
        self._call = call
        self._grace_s = grace_s
        self._left: set[asyncio.Task[None] | threading.Thread] = set()

    async def answer(
        self, messages: Sequence[Message], context: AgentContext
    ) -> AsyncGenerator[AgentEvent, None]:
        """Yield the answer; see :class:`PythonAgent`.

        The code gets messages and parameters of its own, to do with as it likes.
        """
        self._refuse_if_stuck()
        context = replace(context, params=copied(context.params))
        name = f"{context.run_id} {context.agent}"
        work = Work(self._events(copied(messages), context), name)
        end = TurnFinished("stop")
        try:
            async for event in work:
                if isinstance(event, TurnFinished):
                    end = event
                    continue
                if isinstance(event, ToolCallDelta):
                    end = TurnFinished("tool_calls")
                yield event
        finally:
            context.cancelled.set()
            try:
                await work.close(self._grace_s)
            finally:
                if not work.task.done():
                    self._give_up(work.task)
        yield end

    async def _events(
        self, messages: Sequence[Message], context: AgentContext
    ) -> AsyncGenerator[AgentEvent, None]:
        """Yield what the code yields, checked; whatever it raises, it is our error."""
        finished = False
        try:
            items = self._call(messages, context, self._give_up)
            async with aclosing(items):
                async for item in items:
                    if finished:
                        raise AgentFailed(
                            f'the agent "{self._id}" went on after the end of its turn'
                        )
                    given = self._checked(item)
                    if given is not None:
                        finished = isinstance(given, TurnFinished)
                        yield given
        except EdwinError:
            raise
        except (asyncio.CancelledError, GeneratorExit, SystemExit) as error:
            if context.cancelled.is_set() and not isinstance(error, SystemExit):
                raise
            # Nobody has ended the run: it is the code that ends more than itself.
            raise self._failed(context, error) from error
        except BaseException as error:
            raise self._failed(context, error) from error

    def _checked(self, item: object) -> AgentEvent | None:
        try:
            return event_of(item)
        except TypeError as error:
            raise AgentFailed(f'the agent "{self._id}" {error}') from None

    def _failed(self, context: AgentContext, error: BaseException) -> AgentFailed:
        """Return what a run says of *error*, which is logged."""
        cancelled = context.cancelled.is_set()
        _log.log(
            logging.WARNING if cancelled else logging.ERROR,
            "agent %s raised %s%s",
            self._id,
            type(error).__name__,
            " when it was cancelled" if cancelled else "",
            exc_info=error,
            extra={"fields": {"run_id": context.run_id, "agent": self._id}},
        )
        return AgentFailed(f'the agent "{self._id}" failed; the log says why')

    def _give_up(self, left: asyncio.Task[None] | threading.Thread) -> None:
        self._left.add(left)
        isolated = isinstance(left, threading.Thread)
        name = left.name if isinstance(left, threading.Thread) else left.get_name()
        _log.warning(
            "agent %s goes on though it was cancelled%s",
            self._id,
            ", in a thread" if isolated else "",
            extra={"fields": {"task": name, "agent": self._id}},
        )

    def _refuse_if_stuck(self) -> None:
        self._left = {left for left in self._left if _goes_on(left)}
        if len(self._left) >= MAX_LEFT:
            raise AgentFailed(
                f'the agent "{self._id}" is stuck: {len(self._left)} of its calls go '
                "on though they were cancelled"
            )


def _goes_on(left: asyncio.Task[None] | threading.Thread) -> bool:
    return left.is_alive() if isinstance(left, threading.Thread) else not left.done()


def _call(agent: Agent, path: str) -> Call:
    """Return what calls the code at *path*."""
    where = f"agents.list: {agent.id}.python: {path}"
    code = _imported(path, where)
    try:
        return _of_pydantic(agent, code) or calling(_callable(code))
    except TypeError as error:
        raise ConfigError(f"{where} {error}") from None


def _imported(path: str, where: str) -> Any:
    """Return what *path*, ``package.module:name``, stands for."""
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where} cannot be imported: {_said(error)}") from error
        raise ConfigError(
            f"{where}: there is no module {error.name}; install it, or put it beside "
            "the configuration's file"
        ) from None
    except SystemExit:
        raise ConfigError(f"{where} cannot be imported: it ends the process") from None
    except Exception as error:
        raise ConfigError(f"{where} cannot be imported: {_said(error)}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{where}: the module has no {name}") from None
    return found


def _said(error: BaseException) -> str:
    """Return what *error* is, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames[1:] if "importlib" not in f.filename]
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) or not ours:
        return text
    return f"{text} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})"


def _callable(code: Any) -> Any:
    if isinstance(code, type):
        raise TypeError("is a class; name an instance of it")
    if not callable(code):
        raise TypeError(f"is {type(code).__name__}, which cannot be called")
    return code


def _of_pydantic(agent: Agent, code: object) -> Call | None:
    """Return what calls *code*, if it is an agent of Pydantic AI."""
    from edwin.agents import pydantic

    return pydantic.calling(agent, code) if pydantic.is_agent(code) else None
