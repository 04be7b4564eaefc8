"""Which agent answers: the model string, the agent header and the session key."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edwin.errors import (
    AgentNotFound,
    InvalidRequest,
    ModelNotFound,
    SessionAgentMismatch,
    shorten,
)
from edwin.types import Agent

HEADER = "x-edwin-agent-id"
DEFAULT_AGENT = "main"
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PREFIXES = ("edwin:", "edwin/", "agent:")


def resolve(
    agents: Mapping[str, Agent],
    *,
    model: str | None,
    header: str | None,
    key_agent: str | None = None,
    key_param: str = "x-edwin-session-key",
) -> Agent:
    """Return the agent that answers the request.

    Args:
        agents: Every agent, by lower-case id.
        model: The request's ``model``, or None where it has none.
        header: Agent id given apart from the model; wins over it.  Empty is absent.
        key_agent: Agent that the client's session key names, or None.
        key_param: Name of what gave the key, for errors.

    Raises:
        AgentNotFound: If *header*, or the session key, names nobody.
        ModelNotFound: If *model* names nobody.
        InvalidRequest: If *header* is malformed, or both it and *model* are missing.
        SessionAgentMismatch: If the key belongs to another agent than was named.

    """
    named = _by_header(agents, header) if header else _by_model(agents, model)
    if key_agent is None:
        return named or agents[DEFAULT_AGENT]
    if named is None:
        if key_agent not in agents:
            raise AgentNotFound(
                f"the session key names agent {key_agent!r}, which does not exist",
                param=key_param,
            )
        return agents[key_agent]
    if named.id != key_agent:
        raise SessionAgentMismatch(
            f"the session key belongs to agent {key_agent!r}, "
            f"but the request names {named.id!r}",
            param=key_param,
        )
    return named


def _by_header(agents: Mapping[str, Agent], header: str) -> Agent:
    if not _AGENT_ID.fullmatch(header):
        raise InvalidRequest(
            f"{HEADER} must match [a-z0-9][a-z0-9_-]{{0,63}}",
            param=HEADER,
            code="invalid_value",
        )
    try:
        return agents[header.lower()]
    except KeyError:
        raise AgentNotFound(f"no agent has the id {header!r}", param=HEADER) from None


def _by_model(agents: Mapping[str, Agent], model: str | None) -> Agent | None:
    if not model:
        raise InvalidRequest(
            "Missing required parameter: 'model'.",
            param="model",
            code="missing_required_parameter",
        )
    if model == "edwin":
        return None
    for prefix in _PREFIXES:
        if model.startswith(prefix):
            agent = agents.get(model.removeprefix(prefix).lower())
            if agent is not None:
                return agent
            break
    for agent in agents.values():
        if model in agent.aliases:
            return agent
    raise ModelNotFound(
        f"no agent answers to model {shorten(model)!r}; GET /v1/models lists them",
        param="model",
    )


def model_names(agents: Mapping[str, Agent]) -> list[str]:
    """Return every model name a request may use, ``edwin`` first."""
    names = ["edwin", *(f"edwin:{id}" for id in agents)]
    for agent in agents.values():
        names.extend(agent.aliases)
    return names
