"""The provider, in a process of its own: answers prompts as they ask to be.

It prints its port first.  Each line on its standard input is answered by a line of
JSON: ``ended``, the requests that have ended since the last line, and ``open``, those
that have not, each as ``[name, arrived_at, closed_at]`` with the name of its prompt,
unix seconds, and null where the client did not close.  It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from edwin.testing import Reply, ScriptedUpstream
from edwin.testing.upstream import Request
from tools.soak import script


def reply(body: dict[str, Any]) -> Reply:
    """Return the answer that the last prompt of *body* asks for."""
    prompt, before = script.asked(body["messages"])
    return Reply(deltas=prompt.pieces(before), gap_s=prompt.gap_ms / 1000)


def report(upstream: ScriptedUpstream) -> dict[str, Any]:
    """Return what became of the requests; those that have ended are forgotten."""
    ended = [r for r in upstream.requests if r.over.is_set()]
    upstream.requests[:] = [r for r in upstream.requests if not r.over.is_set()]
    return {
        "ended": [_line(request) for request in ended],
        "open": [_line(request) for request in upstream.requests],
    }


def _line(request: Request) -> tuple[str, float, float | None]:
    prompt, _ = script.asked(request.body["messages"])
    return prompt.name, request.arrived_at, request.closed_at


async def serve() -> None:
    """Serve until standard input ends."""
    ended = asyncio.Event()

    def obey() -> None:
        if sys.stdin.readline():
            print(json.dumps(report(upstream)), flush=True)
        else:
            ended.set()

    async with ScriptedUpstream() as upstream:
        upstream.on_request = reply
        print(upstream.url.split(":")[2].split("/")[0], flush=True)
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, obey)
        await ended.wait()
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(serve())
