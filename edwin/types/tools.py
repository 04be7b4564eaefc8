"""What an agent may act with: its tools, as configured, and who may use which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server of the Model Context Protocol: a *command* to run, or a *url* to call.

    Attributes:
        command: Program that speaks over its standard input and output, or None.
        args: What it is called with.
        env: Variables it gets beside the few that every program needs.
        cwd: Folder it runs in, absolute; None: the gateway's.
        url: Address of a streamable HTTP endpoint, or None.
        headers: Added to every call of *url*.
        connect_seconds: Until the server must have answered the first time.

    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class ToolSource:
    """One entry of an agent's ``tools``: a Python function, or an MCP server's tools.

    Attributes:
        python: ``package.module:function``, or None.
        mcp: The server, or None.
        name: What the model calls the function; None: its own name.
        description: What the model is told of it; None: its docstring.
        allow: Patterns of the server's tools, by its own names for them.
        prefix: Stands before the names of the server's tools.
        idempotent: Whether a call does no harm when it is made twice.
        timeout_s: How long a call may take.

    """

    python: str | None = None
    mcp: McpServer | None = None
    name: str | None = None
    description: str | None = None
    allow: tuple[str, ...] = ("*",)
    prefix: str = ""
    idempotent: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ToolAccess:
    """Which of an agent's own tools may be used, by patterns of their names.

    Attributes:
        allow: Lists of patterns; a tool must match one of each list.
        deny: Patterns that no tool may match.

    """

    allow: tuple[tuple[str, ...], ...] = ()
    deny: tuple[str, ...] = ()

    def permits(self, name: str) -> bool:
        """Return whether the tool called *name* may be used."""
        if any(fnmatchcase(name, pattern) for pattern in self.deny):
            return False
        return all(
            any(fnmatchcase(name, pattern) for pattern in patterns)
            for patterns in self.allow
        )

    def narrowed(self, patterns: tuple[str, ...] | None) -> ToolAccess:
        """Return what is left where *patterns* have to match too; None: all do."""
        if patterns is None:
            return self
        return replace(self, allow=(*self.allow, patterns))
