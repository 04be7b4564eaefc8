"""What a run's model is offered: the client's tools, the agent's own; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edwin.errors import InvalidRequest, shorten
from edwin.tools.base import Tool
from edwin.types import Agent

_LENGTHS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Offer:
    """What goes up with the messages of a run.

    Attributes:
        own: The agent's tools that may be called, by name.
        clients: Names of the client's tools; None: whatever is called is for it.
        params: Fields of the first call.
        later: Fields of the calls that follow results of the agent's own tools: what
            the first one had to call, it need not call again.
        single: Whether one tool is called at a time.
        length: Tokens that the answers may have together; None: no limit.

    """

    own: Mapping[str, Tool]
    clients: frozenset[str] | None
    params: Mapping[str, Any]
    later: Mapping[str, Any]
    single: bool
    length: int | None

    def again(self, spent: int, *, results: bool) -> Mapping[str, Any]:
        """Return the fields of a later call.

        Args:
            spent: Tokens that the answers before it have.
            results: Whether some of the agent's own tools gave a result.

        """
        params = self.later if results else self.params
        if self.length is None:
            return params
        rest = self.length - spent
        return {**params, **{name: rest for name in _LENGTHS if name in params}}


def offer(agent: Agent, params: Mapping[str, Any], own: Sequence[Tool]) -> Offer:
    """Return what *agent* offers its model, of *own* and of what *params* has.

    Raises:
        InvalidRequest: If the request's tools have a name of the agent's, or if
            ``tool_choice`` asks for a tool that is not there.

    """
    given = params.get("tools") or ()
    clients = frozenset(_name(tool) for tool in given)
    mine = {tool.name: tool for tool in own if agent.tool_access.permits(tool.name)}
    for place, tool in enumerate(given):
        if _name(tool) in mine:
            raise InvalidRequest(
                f"Invalid value: the agent has a tool of its own that is called "
                f"'{shorten(_name(tool))}'; give this one another name.",
                param=f"tools[{place}].function.name",
                code="invalid_value",
            )
    choice = params.get("tool_choice")
    if choice is not None:
        _check_choice(choice, clients | mine.keys())
    first = dict(params)
    if not given and not mine:
        # They ask for nothing then, and some providers refuse them.
        for name in ("tool_choice", "parallel_tool_calls"):
            first.pop(name, None)
        later = first
    else:
        if mine:
            first["tools"] = [*given, *map(_definition, mine.values())]
        later = _later(first)
    lengths = [first[name] for name in _LENGTHS if name in first]
    return Offer(
        own=_callable(mine, choice),
        clients=clients if mine else None,
        params=first,
        later=later,
        single=params.get("parallel_tool_calls") is False,
        length=min(lengths) if lengths else None,
    )


def _name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _definition(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _wanted(choice: Any) -> list[str]:
    """Return the names of the functions that *choice* is limited to."""
    if not isinstance(choice, dict):
        return []
    if choice.get("type") == "allowed_tools":
        return [_name(tool) for tool in _allowed(choice).get("tools") or ()]
    return [_name(choice)]


def _allowed(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = choice.get("allowed_tools")
    return inner if isinstance(inner, dict) else choice


def _callable(mine: Mapping[str, Tool], choice: Any) -> Mapping[str, Tool]:
    """Return those of *mine* that *choice* lets be called, whatever a model makes."""
    if choice == "none":
        return {}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = _wanted(choice)
        return {name: tool for name, tool in mine.items() if name in names}
    return mine


def _check_choice(choice: Any, names: frozenset[str]) -> None:
    if not names and choice not in ("none", "auto"):
        raise InvalidRequest(
            "Invalid value: 'tool_choice' asks for a tool, and there are none; "
            "send 'tools' with it.",
            param="tool_choice",
            code="invalid_value",
        )
    for name in _wanted(choice):
        if name not in names:
            raise InvalidRequest(
                f"Invalid value: 'tool_choice' names '{shorten(name)}', which is "
                "neither among 'tools' nor the agent's own.",
                param="tool_choice",
                code="invalid_value",
            )


def _later(params: dict[str, Any]) -> dict[str, Any]:
    """Return *params* without the duty to call a tool."""
    choice = params.get("tool_choice")
    if choice in (None, "none", "auto"):
        return params
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        inner = {**_allowed(choice), "mode": "auto"}
        nested = "allowed_tools" in choice
        choice = {**choice, "allowed_tools": inner} if nested else inner
    else:
        choice = "auto"
    return {**params, "tool_choice": choice}
