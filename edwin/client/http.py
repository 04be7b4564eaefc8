"""A gateway's runs and sessions over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import orjson

from edwin.client.faults import ClientError, error_of
from edwin.errors import EdwinError

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp import ClientResponse, ClientSession

CONNECT_SECONDS = 10

PAUSES_S = (0.1, 1.0, 3.0)

# No whole answer, or a gateway that starts, stops or has no disk.
_PASSING = (0, 503)

Document = dict[str, Any]


class HttpClient:
    """Speaks to one gateway, for one principal, over connections it keeps.

    What a method returns is the document that the gateway sent.  Connecting takes ten
    seconds at most; else there is no time limit, because a session's turn may take as
    long as the runs before it: ``asyncio.timeout`` sets one.

    Each method raises the :class:`~edwin.errors.EdwinError` that the gateway answers
    with, or :class:`ClientError` where it cannot be reached or knows an error that
    this version does not.

    Args:
        url: Where the gateway is, with its prefix: ``http://127.0.0.1:18789``.
        secret: Its token or password; None: it wants none.
        tls: Which certificates of an https gateway are trusted; None: those that the
            system trusts, or the file that ``SSL_CERT_FILE`` names.
        pauses_s: Seconds before each new connection to events that broke off; after
            the last that brings nothing, the loss is an error.

    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        tls: SSLContext | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.url = url.rstrip("/")
        self._tls = tls
        self._pauses_s = pauses_s
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Takes longer to import than all else of a command.
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        self._session = ClientSession(
            connector=TCPConnector(ssl=True if self._tls is None else self._tls),
            headers=self._headers,
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def list_runs(
        self,
        *,
        agent: str | None = None,
        session: str | None = None,
        state: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Document:
        """Return a page of runs, newest first: schema ``runs/run_list``.

        Args:
            agent: Id of their agent.
            session: Their session key.
            state: ``queued``, ``running``, ``finished``, ``cancelled``, ``failed``.
            limit: 1 to 100 runs.
            after: What an earlier page gave as ``next``.

        """
        wanted = {"agent": agent, "session": session, "state": state}
        params = {**wanted, "limit": limit, "after": after}
        return await self._call("GET", "/v1/runs", params)

    async def show_run(self, run_id: str) -> Document:
        """Return a run: schema ``runs/run``.

        Raises:
            RunNotFound: If there is none.

        """
        return await self._call("GET", _run(run_id))

    async def cancel_run(self, run_id: str) -> Document:
        """End a run, and return it when it has ended: schema ``runs/run``.

        Raises:
            RunNotFound: If there is none.

        """
        return await self._call("POST", _run(run_id) + "/cancel")

    async def start_run(
        self,
        document: Mapping[str, Any],
        *,
        agent: str | None = None,
        session_key: str | None = None,
        idempotency_key: str | None = None,
        timeout_ms: int | None = None,
    ) -> Document:
        """Begin a run that goes on by itself, and return it: schema ``runs/run``.

        Args:
            document: As of a chat completion, without ``stream``.
            agent: Who answers, where *document* does not say it by its ``model``.
            session_key: The session to talk in.
            idempotency_key: A name for this call: sent again, it begins no other run.
            timeout_ms: Milliseconds after which the run is ended.

        """
        headers = {
            "x-edwin-agent-id": agent,
            "x-edwin-session-key": session_key,
            "Idempotency-Key": idempotency_key,
            "x-edwin-timeout-ms": timeout_ms,
        }
        return await self._call("POST", "/v1/runs", None, document, headers)

    async def run_events(
        self, run_id: str, *, after: int = 0
    ) -> AsyncIterator[Document]:
        """Yield a run's events, to its end: schema ``runs/event``.

        A connection that breaks is made again, and no event comes twice.  Close the
        generator to leave early (``contextlib.aclosing``).

        Args:
            run_id: Which run.
            after: Number (``seq``) of the last event that is known already.

        Raises:
            RunNotFound: If there is none.

        """
        lost, begun = 0, False
        while True:
            try:
                path, params = _run(run_id) + "/events", {"after": after}
                async with self._answer("GET", path, params) as response:
                    begun, rest = True, b""
                    async for piece in response.content.iter_any():
                        *blocks, rest = (rest + piece).split(b"\n\n")
                        for event in _events(blocks):
                            after, lost = event["seq"], 0
                            yield event
                return
            except (ClientError, EdwinError) as error:
                passes = begun and error.status in _PASSING
                if not passes or lost == len(self._pauses_s):
                    raise
            await asyncio.sleep(self._pauses_s[lost])
            lost += 1

    async def list_sessions(
        self, *, agent: str | None = None, limit: int = 20, after: str | None = None
    ) -> Document:
        """Return a page of sessions, last used first: ``sessions/session_list``.

        Args:
            agent: Id of their agent.
            limit: 1 to 100 sessions.
            after: What an earlier page gave as ``next``.

        """
        params = {"agent": agent, "limit": limit, "after": after}
        return await self._call("GET", "/v1/sessions", params)

    async def show_session(
        self,
        agent: str,
        key: str,
        *,
        after: int = 0,
        limit: int = 20,
        superseded: bool = False,
    ) -> Document:
        """Return a session and a page of its messages: ``sessions/transcript``.

        Args:
            agent: Id of its agent.
            key: Its key.
            after: Number (``seq``) of the message that the page begins behind.
            limit: 1 to 100 messages; there may be fewer, where they are long.
            superseded: Whether those that are no part of the transcript come too.

        Raises:
            SessionNotFound: If there is none.

        """
        params = {"agent": agent, "key": key, "after": after, "limit": limit}
        params["superseded"] = "true" if superseded else "false"
        return await self._call("GET", "/v1/sessions/item", params)

    async def delete_session(self, agent: str, key: str) -> Document:
        """Delete a session; its runs are cancelled: schema ``sessions/deleted``.

        Raises:
            SessionNotFound: If there is none.

        """
        params = {"agent": agent, "key": key}
        return await self._call("DELETE", "/v1/sessions/item", params)

    async def reset_session(self, agent: str, key: str) -> Document:
        """Let a session begin anew, in its turn: schema ``sessions/was_reset``.

        Raises:
            SessionNotFound: If there is none.

        """
        document = {"agent": agent, "key": key}
        return await self._call("POST", "/v1/sessions/reset", None, document)

    async def list_tokens(self) -> Document:
        """Return who has a token of its own: schema ``tokens/token_list``."""
        return await self._call("GET", "/v1/tokens")

    async def create_token(self, document: Mapping[str, Any]) -> Document:
        """Make a token, and return it with all that is said of it: ``tokens/token``.

        Args:
            document: Who it is for, and what it opens: schema ``tokens/create``.

        """
        return await self._call("POST", "/v1/tokens", None, document)

    async def rotate_token(self, id: str) -> Document:
        """Put a new token in the place of *id*'s, and return it: ``tokens/token``.

        Raises:
            TokenNotFound: If the store has none.

        """
        return await self._call("POST", f"/v1/tokens/{quote(id, safe='')}/rotate")

    async def revoke_token(self, id: str) -> Document:
        """Revoke *id*'s token: schema ``tokens/revoked``.

        Raises:
            TokenNotFound: If the store has none.

        """
        return await self._call("DELETE", f"/v1/tokens/{quote(id, safe='')}")

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        document: Any = None,
        headers: Mapping[str, Any] | None = None,
    ) -> Document:
        """Return the document that a call is answered with."""
        async with self._answer(method, path, params, document, headers) as response:
            body = await response.read()
        try:
            answer = orjson.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise error_of(self.url, response.status, response.headers, body)
        return answer

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        document: Any = None,
        headers: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """Make a request, and give the answer while its body is read.

        Raises:
            ClientError: If the gateway cannot be reached, or its answer breaks off.
            EdwinError: If it answers with an error.

        """
        from aiohttp import ClientError as HttpError

        assert self._session is not None, "the client is to be entered first"
        sent = _given(headers)
        if document is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                self.url + path,
                params=_given(params),
                data=None if document is None else orjson.dumps(document),
                headers=sent,
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    body = await response.read()
                    raise error_of(self.url, response.status, response.headers, body)
                yield response
        except (HttpError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ClientError(
                f"the gateway at {self.url} cannot be reached: {reason}"
            ) from error


def _run(run_id: str) -> str:
    return "/v1/runs/" + quote(run_id, safe="")


def _given(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {k: str(v) for k, v in (values or {}).items() if v is not None}


def _events(blocks: Iterable[bytes]) -> Iterator[Document]:
    """Yield the documents of server-sent events that are complete."""
    for block in blocks:
        for line in block.split(b"\n"):
            if line.startswith(b"data: "):
                yield orjson.loads(line[6:])
