"""An MCP server that is written by hand, and behaves as the words it is given say.

It speaks the handshake of 2025-06-18 over stdio, starts at once and needs no package.
Words: ``deaf`` answers nothing; ``garbage`` writes what is no message before each that
is one; ``tools=N`` and ``page=N``; ``stubborn`` ignores SIGTERM and the end of its
input; ``child=FILE`` leaves a process behind, whose id goes to FILE; ``stderr=TEXT``;
``endless`` answers a listing with a line that does not end; ``names=A,B``; ``dies``
ends after the first listing; ``bad`` has a tool whose schema is none.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORDS = dict(word.partition("=")[::2] for word in sys.argv[1:])
state = {"tools": int(WORDS.get("tools", "1"))}


def say(document: dict[str, Any]) -> None:
    """Send one message."""
    if "garbage" in WORDS:
        sys.stdout.flush()
        sys.stdout.buffer.write(b'hello\n{"jsonrpc": \n[]\n\n\xff\n')
    sys.stdout.write(json.dumps(document | {"jsonrpc": "2.0"}) + "\n")
    sys.stdout.flush()


def tool(name: str, schema: Any = None) -> dict[str, Any]:
    """Return a tool of that name."""
    schema = schema or {"type": "object"}
    return {"name": name, "description": name, "inputSchema": schema}


def listing(cursor: str | None) -> dict[str, Any]:
    """Return one page of the tools."""
    names = [f"tool{number}" for number in range(state["tools"])]
    if "names" in WORDS:
        names = WORDS["names"].split(",")
    tools = [tool(name) for name in names]
    if "bad" in WORDS:
        tools.append(tool("bad", {"type": "object", "properties": {"a": {"type": 1}}}))
    first = int(cursor or 0)
    last = first + int(WORDS.get("page", "100000"))
    more = {"nextCursor": str(last)} if last < len(tools) else {}
    return {"tools": tools[first:last]} | more


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a request; None: there is no such method."""
    if method == "initialize":
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "odd", "version": "1"},
        }
    if method == "tools/list":
        return listing(params.get("cursor"))
    if method == "tools/call":
        state["tools"] += 1
        say({"method": "notifications/tools/list_changed"})
        said = {"type": "text", "text": params["name"]}
        return {"content": [said]}
    return None


def main() -> None:
    """Serve until the input ends."""
    if "stubborn" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in WORDS:
        ignoring = "import signal, time; signal.signal(15, signal.SIG_IGN); "
        child = subprocess.Popen([sys.executable, "-c", ignoring + "time.sleep(600)"])
        Path(WORDS["child"]).write_text(str(child.pid), "ascii")
    if "stderr" in WORDS:
        sys.stderr.write(WORDS["stderr"] + "\n")
        sys.stderr.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request or "deaf" in WORDS:
            continue
        if request["method"] == "tools/list" and "endless" in WORDS:
            while True:
                sys.stdout.write("x" * 65536)
        result = answer(request["method"], request.get("params") or {})
        if result is None:
            error = {"code": -32601, "message": "Method not found"}
            say({"id": request["id"], "error": error})
        else:
            say({"id": request["id"], "result": result})
        if request["method"] == "tools/list" and "dies" in WORDS:
            sys.exit(7)
    while "stubborn" in WORDS:
        time.sleep(600)


if __name__ == "__main__":
    main()
