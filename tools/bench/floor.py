"""The floor: the least a Tornado process does to pass a model's answer on.

It posts what it gets to the same upstream through aiohttp, and each piece that comes
goes out as it is: no authentication, no parsing, no checks.  A whole answer is passed
on like a stream, since the upstream streams in either case.

    python -m tools.bench.floor http://127.0.0.1:8000/v1    prints its port

This file is what every figure is compared with, so it is frozen: a change needs a
reason in the changelog, and makes the figures before it incomparable with those after.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

JSON = {"Content-Type": "application/json"}


class RelayHandler(RequestHandler):
    """Answer with the upstream's bytes."""

    def initialize(self, session: aiohttp.ClientSession, url: str) -> None:
        """Take the connection pool; called by Tornado."""
        self.session = session
        self.url = url

    async def post(self) -> None:
        """Relay."""
        self.set_header("Content-Type", "text/event-stream")
        self.request.connection.stream.set_nodelay(True)  # type: ignore[union-attr]
        async with self.session.post(
            self.url, data=self.request.body, headers=JSON
        ) as response:
            async for piece in response.content.iter_any():
                self.write(piece)
                await self.flush()


class HealthHandler(RequestHandler):
    """Answer ``GET /healthz``."""

    def get(self) -> None:
        """Say that the process serves."""
        self.write(b"{}")


async def main(upstream: str) -> None:
    """Serve on a free port until the process is ended."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    given = {"session": session, "url": f"{upstream}/chat/completions"}
    app = Application(
        [(r"/v1/chat/completions", RelayHandler, given), (r"/healthz", HealthHandler)],
        log_function=lambda handler: None,
    )
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(app).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
