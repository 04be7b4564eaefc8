"""Carry out what one turn calls of the agent's own tools.

All calls of a turn run at once; each has a time limit of its own.  What goes wrong in
one is told to the model as the call's result and ends nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

from edwin.errors import shorten
from edwin.executor.scope import Scope
from edwin.metrics import Metrics
from edwin.tools.base import Tool, ToolContext, ToolFailed
from edwin.tracing import RunTrace
from edwin.types import Agent, Message, ToolCall, ToolFinished, ToolStarted

GRACE_S = 5.0
"""How long a call that is to end may take for it; past it, it is given up."""

MAX_FAULT = 16_000
"""Characters of what a model is told of a failure."""

ToolEvent: TypeAlias = ToolStarted | ToolFinished

_log = logging.getLogger("edwin.executor")


class Outcome(NamedTuple):
    """What became of a call: what the model reads, and why it failed, if it did."""

    text: str
    error: str | None = None
    kind: str = "ok"


class Calls:
    """The calls of one turn.

    Args:
        calls: What the model asks for, in its order.
        tools: The agent's tools, by name.
        agent: Whose they are.
        scope: The run.
        trace: Where their spans belong.
        metrics: Counts what becomes of them.

    """

    def __init__(
        self,
        calls: Sequence[ToolCall],
        tools: Mapping[str, Tool],
        agent: Agent,
        scope: Scope,
        trace: RunTrace,
        metrics: Metrics,
    ) -> None:
        self._calls = calls
        self._tools = tools
        self._agent = agent
        self._scope = scope
        self._trace = trace
        self._metrics = metrics
        self._events: asyncio.Queue[ToolEvent | None] = asyncio.Queue()
        self._contexts: list[ToolContext] = []
        self._results: dict[str, str] = {}

    def messages(self) -> list[Message]:
        """Return the results as messages, in the order of the calls."""
        return [
            {
                "role": "tool",
                "tool_call_id": call["id"],
                "content": self._results[call["id"]],
            }
            for call in self._calls
        ]

    async def carried_out(self) -> AsyncGenerator[ToolEvent, None]:
        """Make the calls; yield what happens as it does.

        Closing the generator, or cancelling who iterates it, sets every tool's
        cancel signal and then cancels the calls.

        Raises:
            EdwinError: If the run may not go on, such as one that cannot be kept.

        """
        await self._scope.begun()
        tasks = [
            asyncio.create_task(
                self._carry_out(call), name=f"{self._scope.run_id} {self._agent.id}"
            )
            for call in self._calls
        ]
        for task in tasks:
            task.add_done_callback(lambda _: self._events.put_nowait(None))
        left = len(tasks)
        try:
            while left:
                event = await self._events.get()
                if event is not None:
                    yield event
                    continue
                left -= 1
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            for context in self._contexts:
                context.cancelled.set()
            await _ended(tasks)

    async def _carry_out(self, call: ToolCall) -> None:
        function = call["function"]
        name = function["name"]
        self._events.put_nowait(ToolStarted(call["id"], name, function["arguments"]))
        began = asyncio.get_running_loop().time()
        span = self._trace.tool(name, call["id"])
        try:
            outcome = await self._outcome(call)
        except BaseException as error:
            span.end(error)
            raise
        span.end(ToolFailed(outcome.error) if outcome.error else None)
        took_s = asyncio.get_running_loop().time() - began
        known = name if name in self._tools else "unknown"
        self._metrics.tool_ended(known, outcome.kind, took_s)
        self._results[call["id"]] = outcome.text
        self._events.put_nowait(
            ToolFinished(call["id"], name, outcome.error, outcome.text)
        )

    async def _outcome(self, call: ToolCall) -> Outcome:
        name = call["function"]["name"]
        tool = self._tools.get(name)
        if tool is None:
            why = f"there is no tool called {name!r} that may be called now"
            return _failed(why, "refused")
        arguments = _arguments(call["function"]["arguments"])
        if isinstance(arguments, str):
            return _failed(arguments, "refused")
        if fault := tool.fault(arguments):
            return _failed(f"the arguments do not fit: {fault}", "refused")
        if reason := await self._scope.approve(call):
            return _failed(reason, "refused")
        if not tool.idempotent:
            await self._scope.effects()
        return await self._called(tool, arguments, call["id"])

    async def _called(
        self, tool: Tool, arguments: Mapping[str, Any], call_id: str
    ) -> Outcome:
        """Call *tool*, for no longer than it may take."""
        scope = self._scope
        context = ToolContext(
            run_id=scope.run_id,
            agent=self._agent.id,
            session_key=scope.session_key,
            principal_id=scope.principal_id,
            call_id=call_id,
            token=scope.token,
        )
        self._contexts.append(context)
        task = asyncio.ensure_future(tool.call(arguments, context))
        if isinstance(task, asyncio.Task):
            task.set_name(f"{scope.run_id} {self._agent.id} {tool.name}")
        try:
            done, _ = await asyncio.wait([task], timeout=tool.timeout_s)
        finally:
            # Whoever looks at the signal sees it before the cancelling arrives.
            context.cancelled.set()
            if not task.done():
                await _ended([task])
        if not done:
            return _failed(f"it took longer than {tool.timeout_s:g} s", "timeout")
        return self._result(tool, task)

    def _result(self, tool: Tool, task: asyncio.Future[str]) -> Outcome:
        try:
            return Outcome(task.result())
        except ToolFailed as error:
            return _failed(_said(error) or "it failed", "error")
        except asyncio.CancelledError:
            return _failed("it was cancelled", "error")
        except BaseException as error:
            # Whatever somebody's code raises: the model is to know, and go on.
            fields = {"run_id": self._scope.run_id, "agent": self._agent.id}
            _log.warning(
                "tool %s failed", tool.name, exc_info=error, extra={"fields": fields}
            )
            return _failed(f"{type(error).__name__}: {_said(error)}", "error")


def _failed(why: str, kind: str) -> Outcome:
    # Half characters, as in some file's name, are no text that can be sent.
    why = shorten(why.encode("utf-8", "replace").decode(), MAX_FAULT)
    return Outcome(f"Error: {why}", why, kind)


def _said(error: BaseException) -> str:
    """Return the message of *error*, whose code is somebody's."""
    try:
        return str(error)
    except BaseException as another:
        return f"its message cannot be read ({type(another).__name__})"


def _arguments(text: str) -> Mapping[str, Any] | str:
    """Return the arguments in *text*, or what is wrong with them."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        return f"the arguments are not JSON: {error}"
    if not isinstance(found, dict):
        return "the arguments are not a JSON object"
    return found


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel *tasks*; return when they have ended, or are given up."""
    open_ = [task for task in tasks if not task.done()]
    for task in open_:
        task.cancel()
    if open_:
        _, stuck = await asyncio.wait(open_, timeout=GRACE_S)
        for task in stuck:
            _log.warning("a tool does not end though it was cancelled: %s", task)
    for task in tasks:
        if task.done() and not task.cancelled():
            # Asked for, or it would be told of as never retrieved.
            task.exception()
