"""Puts a model request into the form of Anthropic's Messages API; pure.

Used by ``anthropic_messages``; docs/providers.md has the table of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from edwin.providers.anthropic_form import Unsayable, taken
from edwin.providers.anthropic_talk import (
    THINKING,
    Block,
    Thoughts,
    conversation,
    may_think,
)
from edwin.types import Message, ModelRequest

DEFAULT_MAX_TOKENS = 4096
MIN_BUDGET = 1024
"""Tokens of thinking that the API wants at least."""

# What has a place of another name or form, or none; whatever else a request has, an
# agent passes through.
_TRANSLATED = frozenset(
    {
        *("max_completion_tokens", "max_tokens", "stop", "temperature", "top_p"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("reasoning_effort", "user", "thinking", "top_k"),
    }
)
_ABSENT = frozenset(
    {
        *("seed", "presence_penalty", "frequency_penalty", "logprobs", "logit_bias"),
        *("top_logprobs", "prediction", "verbosity", "web_search_options", "store"),
        *("prompt_cache_retention", "prompt_cache_options", "prompt_cache_key"),
        *("safety_identifier", "moderation", "stream_options"),
    }
)
_BUDGETS = {"low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
# The models that know thinking with a budget only; it is refused by later ones.
_BUDGET_MODELS = re.compile(
    r"claude-(?:[23]|(?:opus|sonnet|haiku)-4(?:$|@|[-.](?:[0-5](?!\d)|2\d{7})))"
)
_CACHE = {"type": "ephemeral"}
_MIN_TOP_P = 0.95
_ANY_OBJECT = {"type": "object", "properties": {}}


class Settings(NamedTuple):
    """What of the provider's configuration a request depends on.

    Attributes:
        max_tokens: How long an answer may be where nobody says.
        cache: Whether the prompt's end is marked for the prompt cache.
        thinking: Which way of thinking the models know; None: by the model's name.
        sampling: Whether the models know temperature, top_p and top_k.
        stream: Whether the answer is streamed.

    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    cache: bool = False
    thinking: Literal["adaptive", "budget"] | None = None
    sampling: bool = True
    stream: bool = True


def document(
    request: ModelRequest, settings: Settings, thoughts: Thoughts
) -> dict[str, Any]:
    """Return the body that says *request* in the Messages API.

    Args:
        request: In OpenAI's words.
        settings: Of the provider.
        thoughts: Gives the thinking that stood before a tool call, by the call's id.

    Raises:
        InvalidRequest: If nothing is said, or a part cannot be said in this API.

    """
    params = request.params
    tools = _tools(params, request.messages)
    length = _length(params, settings)
    system, messages = conversation(request.messages, thoughts)
    thinking = _thinking(request, settings, length, messages, tools)
    if thinking.off:
        system, messages = conversation(request.messages, lambda _: ())
    format, note = _format(params.get("response_format"))
    if note:
        system = [*system, {"type": "text", "text": note}]
    config = {**thinking.config, **({"format": format} if format else {})}
    body: dict[str, Any] = {
        name: value
        for name, value in params.items()
        if name not in _TRANSLATED and name not in _ABSENT
    }
    body |= {"model": request.model, "max_tokens": length}
    if system:
        body["system"] = system
    body["messages"] = messages
    body |= tools
    if thinking.value:
        body["thinking"] = thinking.value
    if config:
        body["output_config"] = _object(body.get("output_config")) | config
    if settings.sampling:
        body |= _sampling(params, thinks=_is_on(thinking.value))
    if stops := _stops(params.get("stop")):
        body["stop_sequences"] = stops
    if params.get("user"):
        user = {"user_id": params["user"]}
        body["metadata"] = _object(body.get("metadata")) | user
    if settings.stream:
        body["stream"] = True
    if settings.cache:
        _mark(system)
        _mark(messages[-1]["content"])
    return body


class _Thinking(NamedTuple):
    """How a call thinks.

    Attributes:
        value: The field ``thinking``, or None.
        config: What of it stands in ``output_config``.
        off: Whether it was asked for, and cannot be.

    """

    value: Any = None
    config: Mapping[str, Any] = MappingProxyType({})
    off: bool = False


def _thinking(
    request: ModelRequest,
    settings: Settings,
    length: int,
    turns: Sequence[Mapping[str, Any]],
    tools: Mapping[str, Any],
) -> _Thinking:
    effort = request.params.get("reasoning_effort")
    value = request.params.get("thinking")
    config: dict[str, Any] = {}
    if value is None and effort not in (None, "none", "minimal"):
        if _budgets(request.model, settings):
            if length <= MIN_BUDGET:
                return _Thinking()
            budget = max(min(_BUDGETS.get(effort, 8192), length // 2), MIN_BUDGET)
            value = {"type": "enabled", "budget_tokens": budget}
        else:
            value = {"type": "adaptive", "display": "summarized"}
            config = {"effort": effort}
    if not _is_on(value):
        return _Thinking(value, config)
    forced = tools.get("tool_choice", {}).get("type") in ("any", "tool")
    going_on = turns[-1]["role"] == "assistant"
    unknown = _object(value).get("type") == "enabled" and not may_think(turns)
    if forced or going_on or unknown:
        return _Thinking(None, config, off=True)
    return _Thinking(value, config)


def _budgets(model: str, settings: Settings) -> bool:
    if settings.thinking is not None:
        return settings.thinking == "budget"
    return _BUDGET_MODELS.search(model) is not None


def _is_on(thinking: Any) -> bool:
    return _object(thinking).get("type") in ("enabled", "adaptive")


def _object(value: Any) -> dict[str, Any]:
    """Return *value*; what an agent passes through may be anything else."""
    return value if isinstance(value, dict) else {}


def _length(params: Mapping[str, Any], settings: Settings) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if name in params:
            return int(params[name])
    return settings.max_tokens


def _sampling(params: Mapping[str, Any], *, thinks: bool) -> dict[str, Any]:
    """Return how to choose words: by temperature or top_p, as newer models want it."""
    found: dict[str, Any] = {}
    top_p = params.get("top_p")
    if thinks:
        # Of these, thinking allows a high top_p alone.
        if top_p is not None and top_p >= _MIN_TOP_P:
            found["top_p"] = top_p
        return found
    if params.get("temperature") is not None:
        found["temperature"] = min(params["temperature"], 1)
    elif top_p is not None:
        found["top_p"] = top_p
    if params.get("top_k") is not None:
        found["top_k"] = params["top_k"]
    return found


def _stops(stop: Any) -> list[str]:
    """Return the texts that end the answer; blank ones are refused there."""
    given = [stop] if isinstance(stop, str) else stop or ()
    return [text for text in given if text.strip()]


def _tools(params: Mapping[str, Any], messages: Sequence[Message]) -> dict[str, Any]:
    """Return ``tools`` and ``tool_choice``.

    Calls that were made have to have their tool among them, or the API refuses them.
    """
    tools = [_tool(tool["function"]) for tool in params.get("tools") or ()]
    choice = params.get("tool_choice")
    if not tools:
        names = {
            call["function"]["name"]: None
            for message in messages
            for call in message.get("tool_calls") or ()
        }
        tools = [{"name": name, "input_schema": _ANY_OBJECT} for name in names]
        return {"tools": tools, "tool_choice": {"type": "none"}} if tools else {}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        names = {_name(tool): None for tool in allowed.get("tools") or ()}
        tools = [tool for tool in tools if tool["name"] in names] or tools
        choice = allowed.get("mode")
    told: dict[str, Any] | None = None
    if isinstance(choice, dict):
        told = {"type": "tool", "name": _name(choice)}
    elif choice is not None:
        told = {"type": {"required": "any", "none": "none"}.get(choice, "auto")}
    if params.get("parallel_tool_calls") is False and choice != "none":
        told = {**(told or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools} | ({"tool_choice": told} if told else {})


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or _ANY_OBJECT
    if schema.get("type") != "object":
        schema = {**schema, "type": "object"}
    tool: dict[str, Any] = {"name": function["name"]}
    if function.get("description"):
        tool["description"] = function["description"]
    return tool | {"input_schema": schema}


def _format(wanted: Any) -> tuple[dict[str, Any] | None, str]:
    """Return ``output_config.format``, and what the model has to be told beside it."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return None, _ALONE.format(what="one JSON object")
    if kind != "json_schema":
        return None, ""
    schema = wanted["json_schema"].get("schema") or {"type": "object"}
    told = _ALONE.format(what="one JSON document") + _SCHEMA.format(
        schema=orjson.dumps(schema).decode()
    )
    try:
        part, is_all = taken(schema)
    except Unsayable:
        return None, told
    return {"type": "json_schema", "schema": part}, "" if is_all else told


_ALONE = (
    "The whole answer has to be {what}: no code fence, and no text before or after it."
)
_SCHEMA = " It has to be valid against this JSON Schema:\n{schema}"


def _mark(blocks: list[Block]) -> None:
    if blocks and blocks[-1]["type"] not in THINKING:
        blocks[-1] = {**blocks[-1], "cache_control": _CACHE}
