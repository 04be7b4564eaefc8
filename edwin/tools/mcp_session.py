"""A conversation with an MCP server, in the SDK's terms.

Loaded only where a server is configured.  It offers the server nothing: no sampling, no
roots, no elicitation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, cast

from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolResult,
    Implementation,
    Tool,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from edwin import __version__
from edwin.tools.base import ToolFailed
from edwin.tools.mcp_offer import Offer
from edwin.tools.mcp_results import one_line

MAX_TOOLS: Final = 4096
MAX_PAGES: Final = 1000
# A server that says that its tools have changed whenever they are listed gets rest.
LISTING_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 60.0

Keep = Callable[[Client, tuple[Offer, ...]], None]


class Gone(Exception):
    """The connection ended before the call did."""


async def converse(
    transport: AbstractAsyncContextManager[Any], *, patience_s: float, keep: Keep
) -> None:
    """Connect through *transport*; list the server's tools, again when they change.

    Ends with an error, or by being cancelled; everything is entered and left in the
    task that calls it, as the SDK's cancel scopes demand.

    Args:
        transport: Gives the streams of messages.
        patience_s: How long a later listing may take.
        keep: Is called with each listing, and the client that makes calls.

    """
    changed = asyncio.Event()

    async def heard(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    async with Client(
        cast("Any", transport),
        message_handler=heard,
        client_info=Implementation(name="edwin-gateway", version=__version__),
        cache=None,
    ) as client:
        tools = client.server_capabilities.tools
        if tools is None:
            keep(client, ())
            await asyncio.Event().wait()
        # The first one is within the time there is to connect.
        keep(client, await _listed(client))

        async def list_again() -> None:
            await asyncio.sleep(LISTING_PAUSE_S)
            async with asyncio.timeout(patience_s):
                keep(client, await _listed(client))

        if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await _listen(client, list_again)
        while True:
            await changed.wait()
            changed.clear()
            await list_again()


async def call(client: Client, name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the result of the server's tool *name*.

    Cancelling it tells the server, which may take the SDK a few seconds if the server
    does not listen.

    Raises:
        Gone: If the connection ended before.
        ToolFailed: If the server refuses, or its answer is none.

    """
    try:
        result = await client.call_tool(name, dict(arguments))
    except MCPError as error:
        if error.code == CONNECTION_CLOSED:
            raise Gone from error
        raise ToolFailed(one_line(error.message)) from error
    except (RuntimeError, ValueError) as error:
        # It does not fit the protocol, or what the tool itself promises to return.
        raise ToolFailed(
            f"the answer cannot be used: {one_line(str(error))}"
        ) from error
    assert isinstance(result, CallToolResult)
    return result


async def _listen(client: Client, list_again: Any) -> None:
    """List again whenever the server says so; returns if it never will.

    Since 2026-07-28 a server says so to those alone who listen, in a request that goes
    on for as long as they do.
    """
    pause_s = 1.0
    while True:
        try:
            async with client.listen(tools_list_changed=True) as changes:
                if not changes.honored.tools_list_changed:
                    return
                # Between the last listing and now there may have been a change.
                await list_again()
                pause_s = 1.0
                async for _ in changes:
                    await list_again()
        except SubscriptionLost:
            pass
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)


async def _listed(client: Client) -> tuple[Offer, ...]:
    """Return the server's tools, page after page."""
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None or len(found) >= MAX_TOOLS:
            break
    return tuple(
        Offer(
            name=tool.name,
            description=tool.description or tool.title or "",
            parameters=tool.input_schema,
        )
        for tool in found[:MAX_TOOLS]
    )
