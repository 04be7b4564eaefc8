"""The official MCP server for files, of npm, as an agent's tools."""

from __future__ import annotations

import pytest

from edwin.config import load
from edwin.tools.base import ToolFailed
from tests.process import ROOT

EXAMPLE = ROOT / "examples" / "mcp_filesystem.yaml"


@pytest.mark.gen_test
async def test_mcp_filesystem_server(connected, filesystem_server, tmp_path):
    """The agent reads what is in the folder it is given; it can do nothing else."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "note.txt").write_text("Buy milk.", "utf-8")
    (tmp_path / "secret.txt").write_text("nobody's business", "utf-8")
    environ = {"HOME": str(tmp_path), "EDWIN_FILES": str(shared)}
    config = load(EXAMPLE, environ=environ | {"OPENAI_API_KEY": "none"})
    (source,) = config.agents["main"].tools
    assert (source.mcp.command, source.mcp.args[2]) == ("npx", str(shared))

    command, *args = filesystem_server
    server = await connected(command=command, args=(*args, *source.mcp.args[2:]))
    tools = {tool.name: tool for tool in await server.under_test.tools(source)}
    assert {"read_text_file", "list_directory"} <= set(tools)
    assert not [name for name in tools if "write" in name or "move" in name]
    assert all(tool.idempotent for tool in tools.values())

    assert "note.txt" in await server.call("list_directory", path=str(shared))
    path = str(shared / "note.txt")
    assert await server.call("read_text_file", path=path) == "Buy milk."
    with pytest.raises(ToolFailed, match="outside allowed directories"):
        await server.call("read_text_file", path=str(tmp_path / "secret.txt"))
