"""The executor: one agent's work for one run, turn by turn."""

from edwin.executor.loop import AgentExecutor

__all__ = ["AgentExecutor"]
