"""Agents of Pydantic AI (extra ``pydantic-ai``), as agents in Python.

Their library is imported by the code that makes such an agent, and by nobody before.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from edwin.agents import calling as kinds
from edwin.agents.base import AgentContext, AgentEvent
from edwin.errors import InvalidRequest
from edwin.types import Agent, Message, TextDelta, ToolCallDelta, TurnFinished, Usage

if TYPE_CHECKING:
    from pydantic_ai import AgentRun
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.tools import RunContext
    from pydantic_ai.usage import RunUsage

_REASONS = ("length", "content_filter")
_SAME = (
    *("temperature", "top_p", "seed", "parallel_tool_calls", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "top_k"),
)
"""Parameters of a request that Pydantic AI has by the same name."""


def is_agent(code: object) -> bool:
    """Return whether *code* is an agent of Pydantic AI."""
    library = sys.modules.get("pydantic_ai.agent")
    return library is not None and isinstance(code, library.AbstractAgent)


def calling(agent: Agent, code: Any) -> kinds.Call:
    """Return what runs *code*, an agent of Pydantic AI, with the limits of *agent*.

    Its tools get the :class:`AgentContext` as ``deps``.
    """

    def call(
        messages: Sequence[Message], context: AgentContext, give_up: kinds.GiveUp
    ) -> kinds.Items:
        return _answer(agent, code, messages, context)

    return call


async def _answer(
    agent: Agent,
    code: AbstractAgent[Any, Any],
    messages: Sequence[Message],
    context: AgentContext,
) -> AsyncGenerator[object, None]:
    from edwin.agents.pydantic_events import Reader
    from edwin.agents.pydantic_faults import faults

    clients = _clients(context.params)
    reader = Reader(clients, holds=not _is_plain(code))
    async with faults(agent), _begun(agent, code, messages, context, clients) as run:
        async for node in run:
            if code.is_model_request_node(node):
                reader.turn()
                async with node.stream(run.ctx) as answer:
                    async for event in answer:
                        for delta in reader.events(event):
                            yield delta
            elif code.is_call_tools_node(node):
                async with node.stream(run.ctx) as results:
                    async for result in results:
                        for delta in reader.events(result):
                            yield delta
    for delta in _end(run, reader, clients):
        yield delta


@asynccontextmanager
async def _begun(
    agent: Agent,
    code: AbstractAgent[Any, Any],
    messages: Sequence[Message],
    context: AgentContext,
    clients: Mapping[str, Mapping[str, Any]],
) -> AsyncIterator[AgentRun[Any, Any]]:
    """Begin a run of *code* that answers *messages*."""
    from pydantic_ai.messages import ModelRequest
    from pydantic_ai.usage import UsageLimits

    from edwin.agents.pydantic_messages import history

    past = history(messages)
    # What Pydantic AI leaves to the history where there is one.
    own = await code.system_prompt_parts(deps=context, message_history=past)
    if own:
        past.insert(0, ModelRequest([*own]))
    options: dict[str, Any] = {}
    if clients:
        options = _offered(code, clients)
    async with code.iter(
        message_history=past,
        deps=context,
        instructions=context.instructions or None,
        model_settings=_settings(context.params, clients),
        usage_limits=UsageLimits(
            request_limit=agent.max_turns, tool_calls_limit=agent.max_tool_calls
        ),
        infer_name=False,
        **options,
    ) as run:
        yield run


def _is_plain(code: AbstractAgent[Any, Any]) -> bool:
    """Return whether the text that the model writes is the answer as it stands."""
    return code.output_type is str and not getattr(code, "_output_validators", None)


def _offered(
    code: AbstractAgent[Any, Any], clients: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the options of a run in which the client's tools can be called."""
    from pydantic_ai import DeferredToolRequests, ExternalToolset
    from pydantic_ai.tools import ToolDefinition

    if getattr(code, "_output_validators", None):
        raise InvalidRequest(
            "Invalid value: this agent's answers are validated, and it can call no "
            "tools but its own; leave 'tools' out.",
            param="tools",
            code="invalid_value",
        )
    offered = [
        ToolDefinition(
            name=name,
            description=function.get("description"),
            parameters_json_schema=function.get("parameters")
            or {"type": "object", "properties": {}},
            # Left open, the library rewrites the schema to its taste.
            strict=bool(function.get("strict")),
        )
        for name, function in clients.items()
    ]
    kind = code.output_type
    kinds = list(kind) if isinstance(kind, Sequence) else [kind]
    if DeferredToolRequests not in kinds:
        kinds.append(DeferredToolRequests)
    return {"toolsets": [ExternalToolset(offered)], "output_type": kinds}


def _clients(params: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the functions that the client carries out, by name."""
    if params.get("tool_choice") == "none":
        return {}
    tools = params.get("tools") or ()
    return {
        tool["function"]["name"]: tool["function"]
        for tool in tools
        if tool.get("type") == "function"
    }


def _settings(params: Mapping[str, Any], clients: Mapping[str, Any]) -> Any:
    """Return the model's settings, as *params* has them, for each turn."""
    settings = {name: params[name] for name in _SAME if params.get(name) is not None}
    for name in ("max_tokens", "max_completion_tokens"):
        if params.get(name) is not None:
            settings["max_tokens"] = params[name]
    stop = params.get("stop")
    if stop:
        settings["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    effort = params.get("reasoning_effort")
    if effort is not None:
        settings["thinking"] = False if effort == "none" else effort
    if params.get("service_tier") in ("auto", "default", "flex", "priority"):
        settings["service_tier"] = params["service_tier"]
    wanted = _wanted(params.get("tool_choice"), clients)

    def of_turn(run: RunContext[Any]) -> dict[str, Any]:
        # A call that was asked for is made once; then there is an answer to be given.
        first = wanted is not None and run.run_step == 1
        return {**settings, "tool_choice": wanted} if first else settings

    return of_turn


def _wanted(choice: Any, clients: Mapping[str, Any]) -> Any:
    """Return what of the tools has to be called, in Pydantic AI's words; None: none.

    Raises:
        InvalidRequest: If it is none of the client's.

    """
    if choice in (None, "none", "auto") or not clients:
        return None
    if choice == "required":
        return "required"
    if choice.get("type") == "function" and choice["function"]["name"] in clients:
        return [choice["function"]["name"]]
    raise InvalidRequest(
        "Invalid value: this agent can be made to call one function of 'tools', "
        "or any; it knows no other 'tool_choice'.",
        param="tool_choice",
        code="invalid_value",
    )


def _end(
    run: AgentRun[Any, Any], reader: Any, clients: Mapping[str, Any]
) -> list[AgentEvent]:
    """Return what is left to be said once *run* has ended."""
    from pydantic_ai import DeferredToolRequests
    from pydantic_core import to_json

    assert run.result is not None
    output = run.result.output
    usage = _usage(run.usage)
    if isinstance(output, DeferredToolRequests):
        unknown = [c.tool_name for c in output.calls if c.tool_name not in clients]
        if output.approvals or unknown:
            raise RuntimeError("a tool of its own waits for an approval, or a result")
        calls = [
            ToolCallDelta(index, c.tool_call_id, c.tool_name, c.args_as_json_str())
            for index, c in enumerate(output.calls)
        ]
        return [*calls, TurnFinished("tool_calls", usage)]
    reason = run.result.response.finish_reason
    end = TurnFinished(reason if reason in _REASONS else "stop", usage)
    if not reader.holds:
        return [end]
    text = output if isinstance(output, str) else to_json(output).decode()
    return [TextDelta(text), end]


def _usage(usage: RunUsage) -> Usage | None:
    if not usage.input_tokens and not usage.output_tokens:
        return None
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.details.get("reasoning_tokens", 0),
    )
