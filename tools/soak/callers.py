"""Clients of the gateway: one call, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import aiohttp

from tools.bench.processes import TOKEN
from tools.soak.script import Prompt

CONNECT_S = 10.0


@dataclass
class Answer:
    """What came of a call.

    Attributes:
        status: 0: no head came.
        headers: By name, in any case.
        text: Of the answer, as far as it came.
        complete: Whether all of it came: a whole body, or a stream with its end.
        error: The ``error`` of the envelope, however it came.
        sent_at: When the call was made, unix seconds.
        left_at: When the client left in the middle, or None.

    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    complete: bool = False
    error: Mapping[str, Any] = field(default_factory=dict)
    sent_at: float = field(default_factory=time.time)
    left_at: float | None = None

    @property
    def code(self) -> str | None:
        """The error's code."""
        return self.error.get("code")

    @property
    def run_id(self) -> str:
        """The run whose answer it is."""
        return self.headers["x-edwin-run-id"]

    @property
    def session_key(self) -> str:
        """The key of the session it was given in."""
        return self.headers["x-edwin-session-key"]

    def __str__(self) -> str:
        whole = "whole" if self.complete else "in part"
        return f"{self.status} {self.code or ''} {whole} {self.text[:200]!r}"


class Document(NamedTuple):
    """A JSON document that came.

    Attributes:
        status: It came with.
        headers: By name, in any case.
        body: The document.

    """

    status: int
    headers: Mapping[str, str]
    body: Any


def document(prompt: Prompt, user: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return the body of a call that asks *prompt*."""
    body = {
        "model": "edwin",
        "messages": [{"role": "user", "content": prompt.text}],
        **fields,
    }
    return body if user is None else {**body, "user": user}


class Callers:
    """Any number of clients, each call on a connection that no other uses meanwhile.

    Attributes:
        url: Where the gateway is; may change.

    """

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return aiohttp's context of a request; bytes go as they stand."""
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._http.request(method, self.url + path, data=body, headers=sent)

    async def chat(
        self,
        body: Any,
        *,
        key: str | None = None,
        session_key: str | None = None,
        into: Answer | None = None,
        until: str | None = None,
        token: str = TOKEN,
    ) -> Answer:
        """Send a chat completion and read its answer, to its end or where it broke off.

        Cancelling the call closes its connection.

        Args:
            body: Of the request.
            key: The idempotency key.
            session_key: The session to talk in, by its key.
            into: Filled while the answer comes, for who does not wait for the end.
            until: Leave when the text holds this, in the middle of the stream.
            token: What the client comes in with.

        """
        answer = into or Answer()
        given = {"Idempotency-Key": key, "x-edwin-session-key": session_key}
        headers = {name: value for name, value in given.items() if value is not None}
        path = "/v1/chat/completions"
        try:
            async with self.request(
                "POST", path, body, token=token, headers=headers
            ) as response:
                answer.status, answer.headers = response.status, response.headers
                if "event-stream" in response.headers.get("Content-Type", ""):
                    await _read_stream(response, answer, until)
                else:
                    _read_whole(await response.json(content_type=None), answer)
        except aiohttp.ClientError:
            answer.complete = False
        return answer

    async def events(
        self, run_id: str, after: int, into: list[Any], *, most: int | None = None
    ) -> None:
        """Append a run's events behind number *after* to *into*, until they end.

        Args:
            run_id: Which run.
            after: Number of the last event that is known.
            into: What is appended to.
            most: Leave when there are so many.

        Raises:
            aiohttp.ClientError: If the connection broke.

        """
        path = f"/v1/runs/{run_id}/events?after={after}"
        async with self.request("GET", path) as response:
            if response.status != 200:
                raise aiohttp.ClientResponseError(
                    response.request_info, (), status=response.status
                )
            async for block in _blocks(response):
                for line in block.split("\n"):
                    if line.startswith("data: "):
                        into.append(json.loads(line[6:]))
                if most is not None and len(into) >= most:
                    response.close()
                    return

    async def fetch(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        token: str = TOKEN,
    ) -> Document:
        """Return what a request is answered with.

        Raises:
            aiohttp.ClientError: If there is no whole answer.

        """
        headers = {} if key is None else {"Idempotency-Key": key}
        async with self.request(
            method, path, body, token=token, headers=headers
        ) as response:
            content = await response.json(content_type=None)
            return Document(response.status, response.headers, content)

    async def text(self, path: str) -> str:
        """Return the body of a page that is to be there."""
        async with self.request("GET", path) as response:
            response.raise_for_status()
            return str(await response.text())


def _read_whole(body: Any, answer: Answer) -> None:
    if answer.status == 200:
        answer.text = body["choices"][0]["message"]["content"]
        answer.complete = True
    else:
        answer.error = body["error"]


async def _read_stream(
    response: aiohttp.ClientResponse, answer: Answer, until: str | None
) -> None:
    async for block in _blocks(response):
        if not block.startswith("data: "):
            continue
        if block == "data: [DONE]":
            answer.complete = True
            continue
        event = json.loads(block[6:])
        if "error" in event:
            answer.error = event["error"]
            continue
        for choice in event["choices"]:
            answer.text += choice["delta"].get("content") or ""
        if until is not None and until in answer.text:
            answer.left_at = time.time()
            response.close()
            return


async def _blocks(response: aiohttp.ClientResponse) -> Any:
    """Yield the blocks of an event stream, without the blank lines between them."""
    rest = ""
    async for piece in response.content.iter_any():
        *blocks, rest = (rest + piece.decode()).split("\n\n")
        for block in blocks:
            yield block
