"""The tools of all agents of one gateway, from one configuration to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from edwin.errors import ConfigError
from edwin.tools.base import ServerStatus, Tool, Toolset
from edwin.tools.threads import MAX_THREADS, Threads
from edwin.types import Agent, McpServer, ToolSource

if TYPE_CHECKING:
    from edwin.tools.mcp import McpConnection

Idle: TypeAlias = Callable[[], Awaitable[None]]

_Sources: TypeAlias = tuple[ToolSource, ...]
_Connections: TypeAlias = "Sequence[tuple[McpServer, McpConnection]]"

_log = logging.getLogger("edwin.tools")


class ToolPool:
    """Imports functions, connects to MCP servers, and stops those nobody needs.

    A server that several entries describe alike is one connection, and so is one that
    the next configuration describes as the last one did.

    Args:
        max_threads: How many functions that block may run at a time, of all agents.

    Attributes:
        current: The tools of today's configuration, by the agent's id, for agents that
            have some; replaced whole, never changed.

    """

    def __init__(self, *, max_threads: int = MAX_THREADS) -> None:
        self.current: Mapping[str, Toolset] = {}
        self._sources: Mapping[str, _Sources] = {}
        self._functions: Mapping[ToolSource, Tool] = {}
        self._connections: _Connections = ()
        self._retiring: dict[asyncio.Task[None], list[McpConnection]] = {}
        self._threads = Threads(max_threads)

    async def change(self, agents: Mapping[str, Agent], *, idle: Idle) -> None:
        """Have the tools that *agents* describe; all of them, or none is new.

        What is as it was stays as it is.  Does not wait for a server to answer.

        Args:
            agents: Every agent, by id.
            idle: Returns when nobody uses the former tools any more; called when all
                of the new ones are there, and servers no longer needed are stopped
                then.

        Raises:
            ConfigError: If a function cannot be a tool, if two of an agent have one
                name, or if a package is missing.

        """
        async with self.changing(agents) as commit:
            commit(idle)

    @asynccontextmanager
    async def changing(
        self, agents: Mapping[str, Agent]
    ) -> AsyncGenerator[Callable[[Idle], None], None]:
        """Make ready for :meth:`change`, which happens if what is yielded is called.

        It cannot fail; what else belongs to the change and may fail comes before.  New
        servers are stopped if it is not called.

        Raises:
            ConfigError: As :meth:`change` does.

        """
        sources = {id: agent.tools for id, agent in agents.items() if agent.tools}
        functions = self._loaded(sources)
        async with AsyncExitStack() as started:
            connections = await self._connected(sources, started)

            def commit(idle: Idle) -> None:
                started.pop_all()
                self._use(sources, functions, connections, idle)

            yield commit

    def servers(self) -> list[ServerStatus]:
        """Return how the MCP servers of today's configuration are doing."""
        return [connection.status for _, connection in self._connections]

    async def stop(self) -> None:
        """Stop all servers.  Idempotent."""
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)
        connections = [connection for _, connection in self._connections]
        self.current, self._sources = {}, {}
        self._functions, self._connections = {}, ()
        # Those too whose stopping has just been cancelled halfway.
        await _stop(chain(connections, *retiring.values()))

    def _use(
        self,
        sources: Mapping[str, _Sources],
        functions: Mapping[ToolSource, Tool],
        connections: _Connections,
        idle: Idle,
    ) -> None:
        current: dict[str, Toolset] = {}
        for id, entries in sources.items():
            if entries == self._sources.get(id):
                current[id] = self.current[id]
            else:
                current[id] = _toolset(id, entries, functions, connections)
        kept = [connection for _, connection in connections]
        former = [c for _, c in self._connections if c not in kept]
        self.current, self._sources = current, sources
        self._functions, self._connections = functions, connections
        if former:
            task = asyncio.create_task(_retire(former, idle()), name="retire tools")
            self._retiring[task] = former
            task.add_done_callback(self._retiring.pop)

    def _loaded(self, sources: Mapping[str, _Sources]) -> dict[ToolSource, Tool]:
        """Return the functions among *sources*, imported."""
        functions: dict[ToolSource, Tool] = {}
        for id, entries in sources.items():
            paths: dict[str, str | None] = {}
            for source in entries:
                if source.mcp is not None:
                    continue
                if source not in functions:
                    functions[source] = self._function(id, source)
                name = functions[source].name
                if name in paths:
                    raise ConfigError(
                        f"agents.list: {id}.tools: {paths[name]} and {source.python} "
                        f"are both called {name}; give one of them another name"
                    )
                paths[name] = source.python
        return functions

    def _function(self, agent: str, source: ToolSource) -> Tool:
        if source in self._functions:
            return self._functions[source]
        # Only agents that have functions need what reads them.
        from edwin.tools.python import function_tool

        try:
            return function_tool(source, self._threads)
        except ConfigError as error:
            raise ConfigError(f"agents.list: {agent}.tools: {error.message}") from error

    async def _connected(
        self, sources: Mapping[str, _Sources], started: AsyncExitStack
    ) -> _Connections:
        """Return a connection for each server of *sources*; *started* has the new."""
        connections: list[tuple[McpServer, McpConnection]] = []
        labels = {connection.status.label for _, connection in self._connections}
        for source in chain.from_iterable(sources.values()):
            server = source.mcp
            if server is None or _find(connections, server) is not None:
                continue
            connection = _find(self._connections, server)
            if connection is None:
                from edwin.tools import mcp

                label = _free(mcp.label(server), labels)
                labels.add(label)
                connection = mcp.McpConnection(server, label=label)
                await connection.start()
                started.push_async_callback(connection.stop)
            connections.append((server, connection))
        return connections


class _Tools:
    """The tools of one agent: functions that are ready, servers that are asked."""

    def __init__(
        self, agent: str, parts: Sequence[Tool | tuple[McpConnection, ToolSource]]
    ) -> None:
        self._agent = agent
        self._parts = parts
        self._told: set[str] = set()
        ready = tuple(part for part in parts if isinstance(part, Tool))
        self._ready = ready if len(ready) == len(parts) else None

    async def tools(self) -> Sequence[Tool]:
        """Return them; see :class:`Toolset`.  Of two with one name the first counts."""
        if self._ready is not None:
            return self._ready
        found: dict[str, Tool] = {}
        for part in self._parts:
            if isinstance(part, Tool):
                given: Sequence[Tool] = (part,)
            else:
                given = await part[0].tools(part[1])
            for tool in given:
                if found.setdefault(tool.name, tool) is not tool:
                    self._tell(tool.name)
        return tuple(found.values())

    def _tell(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            _log.warning(
                "agent %s has two tools called %s: the first counts; give one of the "
                "servers a prefix",
                self._agent,
                name,
            )


def _toolset(
    agent: str,
    sources: _Sources,
    functions: Mapping[ToolSource, Tool],
    connections: _Connections,
) -> _Tools:
    parts: list[Tool | tuple[McpConnection, ToolSource]] = []
    for source in sources:
        connection = None if source.mcp is None else _find(connections, source.mcp)
        parts.append(functions[source] if connection is None else (connection, source))
    return _Tools(agent, parts)


def _find(connections: _Connections, server: McpServer) -> McpConnection | None:
    return next((c for known, c in connections if known == server), None)


def _free(label: str, taken: set[str]) -> str:
    """Return *label*, numbered where it is among *taken*."""
    found, number = label, 1
    while found in taken:
        number += 1
        found = f"{label} #{number}"
    return found


async def _retire(connections: Iterable[McpConnection], idle: Awaitable[None]) -> None:
    try:
        await idle
    finally:
        await _stop(connections)


async def _stop(connections: Iterable[McpConnection]) -> None:
    # Together: a server may take seconds to end.
    await asyncio.gather(*(connection.stop() for connection in connections))
