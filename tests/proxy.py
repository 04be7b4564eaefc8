"""An HTTP proxy that passes on what it is sent, and remembers it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Self

from tornado.httputil import HTTPHeaders


class Passed(NamedTuple):
    """The head of a request as a proxy gets it."""

    line: str
    headers: HTTPHeaders


class Proxy:
    """Listens on 127.0.0.1 and sends every request to one server, whatever its host.

    Args:
        port: Of that server, on 127.0.0.1.
        refusal: The status line's end that is the answer to everything, instead.

    Attributes:
        url: Its own address, once it is entered.
        passed: The heads of the requests, in order; the first of each connection.

    """

    def __init__(self, port: int, *, refusal: str | None = None) -> None:
        self.url = ""
        self.passed: list[Passed] = []
        self._port = port
        self._refusal = refusal
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, headers = head.decode("latin-1").partition("\r\n")
            self.passed.append(Passed(line, HTTPHeaders.parse(headers)))
            if self._refusal is not None:
                answer = f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\n\r\n"
                writer.write(answer.encode())
                await writer.drain()
                return
            there = await asyncio.open_connection("127.0.0.1", self._port)
            there[1].write(head)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pass_on(reader, there[1]))
                    both.create_task(_pass_on(there[0], writer))
            finally:
                there[1].close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
