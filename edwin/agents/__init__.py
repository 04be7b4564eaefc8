"""Agents that are Python code, in place of instructions and a model."""

from __future__ import annotations

from collections.abc import Mapping

from edwin.agents.base import AgentContext, AgentEvent, PythonAgent
from edwin.types import Agent

__all__ = ["AgentContext", "AgentEvent", "PythonAgent", "load"]


def load(agents: Mapping[str, Agent]) -> Mapping[str, PythonAgent]:
    """Return the agents among *agents* that are Python code, imported.

    Raises:
        ConfigError: If one cannot be imported, or is nothing that can answer.

    """
    if not any(agent.python for agent in agents.values()):
        return {}
    # Only who has such agents needs what calls them.
    from edwin.agents import python

    return python.load(agents)
