"""A real MCP server, of the official SDK, for tests: over stdio, or over HTTP.

``python mcp_server.py stdio`` or ``python mcp_server.py http PORT``, where 0 is a free
port; the port is written as the first line of its output.  With ``--handshake`` the
HTTP server is one of before 2026-07-28, with sessions.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent

server = MCPServer("test")


@server.tool()
def add(first: int, second: int) -> CallToolResult:
    """Add two numbers."""
    return CallToolResult(content=[TextContent(type="text", text=str(first + second))])


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool(structured_output=False)
def picture() -> Any:
    """Show something."""
    return ["a dot", Image(data=b"x" * 1204, format="png")]


@server.tool()
def crash() -> str:
    """End the server at once."""
    os._exit(3)


@server.tool(structured_output=False)
def environment() -> str:
    """Return the names of the server's variables."""
    return " ".join(sorted(os.environ))


@server.tool()
def weigh() -> dict[str, int]:
    """Return what is no text."""
    return {"grams": 3}


@server.tool()
async def hold(folder: str) -> str:
    """Wait for ``go`` in *folder*; leave ``begun`` there, and ``cancelled``."""
    place = Path(folder)
    (place / "beginning").write_text(str(os.getpid()), "ascii")
    (place / "beginning").rename(place / "begun")
    try:
        while not (place / "go").exists():
            await anyio.sleep(0.01)
    except anyio.get_cancelled_exc_class():
        (place / "cancelled").touch()
        raise
    return "went on"


@server.tool()
async def grow(context: Context) -> str:
    """Get another tool, and say so in both of the protocol's ways."""
    server.add_tool(lambda: "new", name="late", description="Came later.")
    await context.notify_tools_changed()
    await context.session.send_tool_list_changed()
    return "grown"


def without_discovery(app: Any) -> Any:
    """Return *app* as it was before clients could ask what it speaks."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            piece = await receive()
            body, more = body + piece.get("body", b""), piece.get("more_body", False)
        document = json.loads(body)
        if document.get("method") == "server/discover":
            error = {"code": -32601, "message": "Method not found"}
            reply = {"jsonrpc": "2.0", "id": document["id"], "error": error}
            kind = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": kind})
            whole = json.dumps(reply).encode()
            await send({"type": "http.response.body", "body": whole})
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return given.pop() if given else await receive()

        await app(scope, again, send)

    return answer


def serve_http(port: int, *, handshake: bool) -> None:
    """Serve on *port* of 127.0.0.1 until killed."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", port))
    app: Any = server.streamable_http_app()
    if handshake:
        app = without_discovery(app)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        serve_http(int(sys.argv[2]), handshake="--handshake" in sys.argv)
