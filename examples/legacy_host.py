"""An application of the old school that gains agents under /ai.

It has coroutine handlers of Tornado 4's days, XSRF cookies, settings of its own and a
rule that catches every URL; none of it is touched.

    EDWIN_GATEWAY_TOKEN=a-token-of-your-own python examples/legacy_host.py 8888
    curl localhost:8888/ai/v1/chat/completions -H 'Authorization: Bearer …' -d '…'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Generator
from typing import Any

from tornado import gen, web
from tornado.httpserver import HTTPServer

from edwin import Gateway, mount


class HomeHandler(web.RequestHandler):
    """The host's own page, as it always was."""

    @gen.coroutine
    def get(self) -> Generator[Any, Any, None]:
        """Think for a while, and greet."""
        yield gen.sleep(0.001)
        self.write("the host's own page")

    @gen.coroutine
    def post(self) -> Generator[Any, Any, None]:
        """Take a form; without the XSRF cookie Tornado refuses it before."""
        yield gen.sleep(0.001)
        self.write("taken")


class CatchAllHandler(web.RequestHandler):
    """What the host says to every URL it does not know."""

    def get(self) -> None:
        """Apologise in HTML."""
        self.set_status(404)
        self.write("<h1>nothing here</h1>")


def host_application() -> web.Application:
    """Return the application as it was before."""
    return web.Application(
        [(r"/", HomeHandler), (r".*", CatchAllHandler)],
        xsrf_cookies=True,
        cookie_secret="the host's own",
        debug=False,
    )


async def main(port: int) -> None:
    """Serve the host with Edwin in it, until interrupted."""
    state = os.environ.get("EDWIN_STATE_DIR", "~/.edwin-of-the-host")
    gateway = Gateway(
        {
            "gateway": {
                "stateDir": state,
                "auth": {"token": os.environ["EDWIN_GATEWAY_TOKEN"]},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
            },
            "agents": {"defaults": {"model": "echo/any"}},
            "models": {"providers": {"echo": {"api": "scripted"}}},
        }
    )
    app = host_application()
    mount(app, gateway, "/ai")
    await gateway.start()
    server = HTTPServer(app)
    server.listen(port, "127.0.0.1")
    print(f"http://127.0.0.1:{port}/ai/v1", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()
        await gateway.stop()
        await server.close_all_connections()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
