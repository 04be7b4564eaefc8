"""Agents that are Python code, in place of instructions and a model."""

from edwin.agents.base import AgentContext, AgentEvent, PythonAgent

__all__ = ["AgentContext", "AgentEvent", "PythonAgent"]
