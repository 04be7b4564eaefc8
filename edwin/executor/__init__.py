"""The executor: one agent's work for one run, turn by turn."""

from edwin.executor.loop import AgentExecutor
from edwin.executor.scope import Scope

__all__ = ["AgentExecutor", "Scope"]
