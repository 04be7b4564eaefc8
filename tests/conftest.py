"""What every test is held to: no unexpected ERROR line, no task left behind."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from hypothesis import HealthCheck, settings
from multidict import CIMultiDict
from tornado.ioloop import IOLoop

from edwin.testing import ScriptedUpstream
from edwin.testing.gateway import TOKEN, LocalGateway

# How fast examples are made, and tried, says how busy the machine is.
settings.register_profile(
    "edwin", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edwin")


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def error_log(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """Fail the test for ERROR lines it did not take out of this list."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)
    assert not handler.records, [record.getMessage() for record in handler.records]


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """Return a fresh IOLoop; a task that outlives the test fails it."""
    loop = IOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    left = {task for task in asyncio.all_tasks(loop.asyncio_loop) if not task.done()}
    loop.close()
    asyncio.set_event_loop(None)
    assert not left, f"tasks left behind: {left}"


@pytest.fixture
def upstream(io_loop: IOLoop) -> Iterator[ScriptedUpstream]:
    """Return a scripted provider, started."""
    scripted = ScriptedUpstream()
    io_loop.run_sync(scripted.start)
    yield scripted
    io_loop.run_sync(scripted.stop)


MakeGateway = Callable[..., Awaitable[LocalGateway]]


@pytest.fixture
def make_gateway(io_loop: IOLoop, tmp_path: Path) -> Iterator[MakeGateway]:
    """Start gateways on free ports: ``await make_gateway({"gateway": {…}})``.

    Each has a state folder of its own unless *state_dir* names one.
    """
    started: list[LocalGateway] = []

    async def make(
        config: Mapping[str, Any] | None = None,
        *,
        state_dir: Path | None = None,
        upstream: ScriptedUpstream | None = None,
    ) -> LocalGateway:
        folder = state_dir or tmp_path / f"state-{len(started)}"
        served = LocalGateway(folder, config, upstream=upstream)
        await served.start()
        started.append(served)
        return served

    yield make
    for served in started:
        io_loop.run_sync(served.stop)


@pytest.fixture
def served(io_loop: IOLoop, make_gateway: MakeGateway) -> LocalGateway:
    """Return a gateway in its plainest configuration."""
    return io_loop.run_sync(make_gateway)


class Response(NamedTuple):
    """What came back."""

    code: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    @classmethod
    async def read(cls, response: aiohttp.ClientResponse) -> Response:
        """Read *response* to its end, or to where its connection was cut."""
        body = b""
        try:
            async for piece in response.content.iter_any():
                body += piece
        except aiohttp.ClientPayloadError:
            return cls(response.status, response.headers, body, cut=True)
        return cls(response.status, response.headers, body)


class Client:
    """Posts to a gateway and reads its answers; keeps no state."""

    def __init__(self, served: LocalGateway) -> None:
        self.served = served

    async def request(
        self,
        path: str,
        document: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = TOKEN,
        method: str | None = None,
    ) -> Response:
        """Send *document* (as JSON, unless it is bytes) and return the answer.

        Cancelling the call closes the connection.
        """
        sent = CIMultiDict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        body = None
        if document is not None:
            data = document if isinstance(document, bytes) else json.dumps(document)
            body = io.BytesIO(data.encode() if isinstance(data, str) else data)
            sent.setdefault("Content-Type", "application/json")
        verb = method or ("GET" if body is None else "POST")
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                verb, self.served.url + path, headers=sent, data=body
            ) as response,
        ):
            return await Response.read(response)

    async def chat(self, *messages: Any, headers: Any = None, **fields: Any) -> Answer:
        """Send one chat completion; texts stand for user messages."""
        response = await self.request(
            "/v1/chat/completions", chat(*messages, **fields), headers=headers
        )
        return Answer(response)


class Answer:
    """The answer to a chat completion, whole or streamed."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.status = response.code
        self.cut = response.cut
        self.headers = response.headers
        self.body = response.body.decode()

    @property
    def json(self) -> Any:
        """The whole body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of a plain answer."""
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The documents of a stream, ``[DONE]`` as text."""
        return [
            line if line == "[DONE]" else json.loads(line)
            for line in (
                event.removeprefix("data: ")
                for event in self.body.split("\n\n")
                if event.startswith("data: ")
            )
        ]

    @property
    def text(self) -> str:
        """The text, however it came."""
        if not self.body.startswith("data:"):
            return self.json["choices"][0]["message"]["content"]
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if event != "[DONE]"
            for choice in event["choices"]
        )


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    """Return the document of a chat completion."""
    return {
        "model": "edwin",
        "messages": [
            {"role": "user", "content": m} if isinstance(m, str) else m
            for m in messages or ("Hello",)
        ],
    } | fields


@pytest.fixture
def client(served: LocalGateway) -> Client:
    """Return a client of the plain gateway."""
    return Client(served)


class RawAnswer:
    """An HTTP answer read from a socket of its own, byte by byte as it comes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    async def until(self, mark: bytes) -> bytes:
        """Read until *mark* has come, or to the end; return all that came so far."""
        while mark not in self.received:
            piece = await self.reader.read(65536)
            if not piece:
                break
            self.received += piece
        return self.received

    async def to_end(self) -> bytes:
        """Read until the other side closes; return all that came."""
        self.received += await self.reader.read()
        return self.received

    async def close(self) -> None:
        """Close the connection, whatever has come."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


Connect = Callable[..., Awaitable[RawAnswer]]


@pytest.fixture
def connect(io_loop: IOLoop) -> Iterator[Connect]:
    """Send bytes as they stand: ``answer = await connect(served, data)``."""
    made: list[RawAnswer] = []

    async def send(served: LocalGateway, data: bytes = b"") -> RawAnswer:
        port = int(served.url.rsplit(":", 1)[1])
        answer = RawAnswer(*await asyncio.open_connection("127.0.0.1", port))
        made.append(answer)
        answer.writer.write(data)
        await answer.writer.drain()
        return answer

    yield send
    for answer in made:
        io_loop.run_sync(answer.close)


def raw_chat(
    *messages: Any, version: str = "1.1", headers: str = "", **fields: Any
) -> bytes:
    """Return the bytes of a chat completion's request."""
    body = json.dumps(chat(*messages, **fields)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body
