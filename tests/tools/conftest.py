"""Connections to MCP servers, as tests make them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from edwin.tools.base import ServerStatus, Tool, ToolContext
from edwin.tools.mcp import McpConnection, label
from edwin.types import McpServer, ToolSource

HERE = Path(__file__).parent
CONTEXT = ToolContext("run_1", "main", "key", "owner", "call_1", "run_1.1")
PATIENCE_S = 20


class Connection:
    """A connection under test, started."""

    def __init__(self, server: McpServer) -> None:
        self.under_test = McpConnection(server, label=label(server))

    async def tools(self, **source: object) -> dict[str, Tool]:
        """Return the tools by name."""
        tools: Sequence[Tool] = await self.under_test.tools(ToolSource(**source))
        return {tool.name: tool for tool in tools}

    async def call(self, name: str, **arguments: object) -> str:
        """Call one of them."""
        tools = await self.tools()
        return await tools[name].call(arguments, CONTEXT)

    async def until(self, says: Callable[[ServerStatus], bool]) -> ServerStatus:
        """Wait until *says* is true of the status, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while not says(self.under_test.status):
                await asyncio.sleep(0.005)
        return self.under_test.status

    async def ready(self) -> ServerStatus:
        """Wait until the server can be called."""
        return await self.until(lambda status: status.state == "ready")


Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
def connected(io_loop: IOLoop) -> Iterator[Connect]:
    """Start a connection: ``await connected(command="…", args=("…",))``."""
    made: list[Connection] = []

    async def connect(**server: object) -> Connection:
        connection = Connection(McpServer(**({"connect_seconds": PATIENCE_S} | server)))
        made.append(connection)
        await connection.under_test.start()
        return connection

    yield connect
    for connection in made:
        io_loop.run_sync(connection.under_test.stop)


def odd(*words: str) -> dict[str, object]:
    """Return what starts the server that behaves as *words* say."""
    return {"command": sys.executable, "args": (str(HERE / "odd_server.py"), *words)}


def official() -> dict[str, object]:
    """Return what starts the server of the SDK."""
    return {"command": sys.executable, "args": (str(HERE / "mcp_server.py"), "stdio")}


async def there(path: Path) -> Path:
    """Wait until *path* exists."""
    async with asyncio.timeout(PATIENCE_S):
        while not path.exists():
            await asyncio.sleep(0.005)
    return path


def alive(pid: int) -> bool:
    """Return whether the process *pid* runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
