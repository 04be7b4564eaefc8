"""Tools of an agent's own: Python functions, and the tools of MCP servers.

A function that has a parameter of type :class:`ToolContext` is handed one, and raises
:class:`ToolFailed` to tell the model why it cannot do what it was asked for.
"""

from edwin.tools.base import Tool, ToolContext, ToolFailed, Toolset

__all__ = ["Tool", "ToolContext", "ToolFailed", "Toolset"]
