"""An agent's tools as a configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from edwin.types import McpServer, ToolAccess, ToolSource

PYTHON: Final = "python"
"""What stands before the slash in the model of an agent that is Python code."""


def source(item: Mapping[str, Any]) -> ToolSource:
    """Return the entry of ``tools`` that *item* describes, in the shape of the file."""
    mcp = item.get("mcp")
    return ToolSource(
        python=item.get("python"),
        mcp=None if mcp is None else _server(mcp),
        name=item.get("name"),
        description=item.get("description"),
        allow=tuple(item.get("allow", ("*",))),
        prefix=item.get("prefix", ""),
        idempotent=item.get("idempotent", False),
        timeout_s=float(item.get("timeoutSeconds", 60)),
    )


def access(item: Mapping[str, Any]) -> ToolAccess:
    """Return what *item*, ``permissions.tools``, lets an agent use."""
    allow = item.get("allow")
    return ToolAccess(
        allow=() if allow is None else (tuple(allow),),
        deny=tuple(item.get("deny", ())),
    )


def _server(item: Mapping[str, Any]) -> McpServer:
    return McpServer(
        command=item.get("command"),
        args=tuple(item.get("args", ())),
        env=MappingProxyType(item.get("env", {})),
        cwd=item.get("cwd"),
        url=item.get("url"),
        headers=MappingProxyType(item.get("headers", {})),
        connect_seconds=float(item.get("connectSeconds", 15)),
    )
