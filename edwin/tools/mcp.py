"""Connections to MCP servers: kept up for as long as the gateway serves.

The pool of tools makes one :class:`McpConnection` for each server.  Only who starts one
loads the SDK.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from edwin.errors import ConfigError, ToolsUnavailable
from edwin.tools import mcp_offer, mcp_results
from edwin.tools.base import ServerStatus, Tool, ToolFailed
from edwin.types import McpServer, ToolSource

if TYPE_CHECKING:
    from mcp import Client

FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
# A server that was there for this long is not one that dies as it starts.
STEADY_S: Final = 30.0
# Until leaving a conversation in good order has taken too long.
_LEAVING_S: Final = 3.0
# Until a link has said why a call found it closed.
_NEWS_S: Final = 0.2
# Programs that run others: what they are called with first is the other's name.
_LAUNCHERS = re.compile(r"(python[0-9.]*|node|bun|bunx|npx|uvx)\Z")
_HARMLESS = ("-y", "--yes", "-m", "-u", "-q", "--quiet")

log = logging.getLogger("edwin.tools")


def label(server: McpServer) -> str:
    """Return what *server* is called in the log and for admins.

    The program's name, with that of what it runs if it is a launcher such as ``npx``;
    or scheme, host and port.  No folder, no other argument, no path: those may hold
    what is secret.
    """
    if server.url is not None:
        parts = urlsplit(server.url)
        port = "" if parts.port is None else f":{parts.port}"
        host = parts.hostname or ""
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
    name = _base(server.command or "")
    if _LAUNCHERS.match(name):
        what = next((a for a in server.args if a not in _HARMLESS), "")
        if re.fullmatch(r"[A-Za-z0-9@._/-]{1,256}", what) and what[0] != "-":
            return f"{name} {_base(what)[:64]}"
    return name


def check_installed() -> None:
    """Return if the SDK is there, in a version that will do.

    Raises:
        ConfigError: If not.

    """
    # The latter came with version 2.
    if not (find_spec("mcp") and find_spec("mcp_types")):
        raise ConfigError(
            "an agent has tools of an MCP server, and the package mcp, 2.2 or "
            "later, is not installed: pip install 'edwin-gateway[mcp]'"
        )


class _Link(Protocol):
    """How a server is reached: one life of a program, or of a connection."""

    gone: asyncio.Future[str]
    hint: str

    def streams(self) -> AbstractAsyncContextManager[Any]: ...

    async def close(self) -> None: ...


class McpConnection:
    """One server: started, spoken to, and started again when it dies.

    A task of the connection's owns it from :meth:`start` to :meth:`stop`.  Each life of
    the server is one conversation, in a task of its own that enters and leaves all of
    the SDK's contexts.  A call is made in a task of its own too, which the SDK allows:
    a request's scopes belong to who asks, and the rest is a queue.  So who gives up a
    call leaves at once, while the server is still being told.

    Args:
        server: The server.
        label: What it is called, see :func:`label`.

    """

    def __init__(self, server: McpServer, *, label: str) -> None:
        self._server = server
        self._status = ServerStatus(label, "stopped")
        self._offers: tuple[mcp_offer.Offer, ...] | None = None
        self._made: dict[tuple[object, ...], tuple[Tool, ...]] = {}
        self._known = asyncio.Event()
        self._client: Client | None = None
        self._link: _Link | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._owner: asyncio.Task[None] | None = None
        self._ending: asyncio.Future[None] | None = None
        self._patient_until = 0.0
        self._retry_at = 0.0
        self._ready_at = math.inf

    @property
    def status(self) -> ServerStatus:
        """How the server is doing."""
        return self._status

    async def start(self) -> None:
        """Begin to connect; returns at once.

        Raises:
            ConfigError: If the SDK is not installed.

        """
        check_installed()
        loop = asyncio.get_running_loop()
        self._patient_until = loop.time() + self._server.connect_seconds
        self._ending = loop.create_future()
        self._say(state="starting")
        self._owner = asyncio.create_task(self._own(self._ending))

    async def stop(self) -> None:
        """End calls, connection and server; returns when nothing is left of them.

        Takes a few seconds where the server does not end by itself.
        """
        if self._owner is None or self._ending is None:
            return
        if not self._ending.done():
            self._ending.set_result(None)
        await asyncio.wait({self._owner})
        self._say(state="stopped", error=None)
        self._known.set()

    async def tools(self, source: ToolSource) -> Sequence[Tool]:
        """Return the server's tools as *source*, an entry of an agent's, has them.

        While the server is down these are the last that it told of.

        Raises:
            ToolsUnavailable: If it has told of none within its ``connect_seconds``.

        """
        loop = asyncio.get_running_loop()
        if self._offers is None and self._owner is not None:
            try:
                async with asyncio.timeout_at(self._patient_until):
                    await self._known.wait()
            except TimeoutError:
                pass
        if self._offers is None:
            raise ToolsUnavailable(
                "a server of the agent's tools has not said yet which tools it has",
                retry_after_s=max(1.0, self._retry_at - loop.time()),
            )
        key = (source.allow, source.prefix, source.idempotent, source.timeout_s)
        if key not in self._made:
            self._made[key] = mcp_offer.tools(
                self._offers, source, self._call, label=self._status.label
            )
        return self._made[key]

    async def _own(self, ending: asyncio.Future[None]) -> None:
        """Keep the connection up until *ending*."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            self._ready_at = math.inf
            reason = await self._live(ending)
            if ending.done():
                return
            if loop.time() - self._ready_at >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            # So that the servers of many gateways do not all come at once.
            wait_s = pause_s * random.uniform(0.5, 1.0)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            self._retry_at = loop.time() + wait_s
            self._say(state="restarting", error=reason)
            fields = {
                "server": self._status.label,
                "reason": reason,
                "again_in_s": round(wait_s, 1),
            }
            log.warning("server of tools lost", extra={"fields": fields})
            await asyncio.wait({ending}, timeout=wait_s)
            if ending.done():
                return
            self._say(restarts=self._status.restarts + 1)

    async def _live(self, ending: asyncio.Future[None]) -> str:
        """Connect, and serve until the connection ends; return why it did."""
        try:
            make = await asyncio.to_thread(_load, self._server)
        except ImportError as error:
            return self._words(f"the SDK cannot be loaded: {error}")
        self._link = link = make(self._server, self._status.label)
        conversation = asyncio.create_task(self._converse(link))
        conversation.add_done_callback(_heed)
        until = {conversation, link.gone, ending}
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait(
                until, timeout=self._server.connect_seconds, return_when=first
            )
            if self._client is not None:
                await asyncio.wait(until, return_when=first)
            if conversation.done():
                await asyncio.wait({link.gone}, timeout=_NEWS_S)
            reason = self._reason(conversation, link)
        finally:
            self._client = None
            await _leave(conversation)
            await link.close()
            await _leave(*self._calls)
        return reason

    async def _converse(self, link: _Link) -> None:
        from edwin.tools.mcp_session import converse

        await converse(
            link.streams(), patience_s=self._server.connect_seconds, keep=self._keep
        )

    def _keep(self, client: Client, offers: tuple[mcp_offer.Offer, ...]) -> None:
        """Take what the server offers, and let its tools be called."""
        if offers != self._offers:
            self._offers = offers
            self._made.clear()
        self._client = client
        if self._status.state != "ready":
            fields = {"server": self._status.label, "tools": len(offers)}
            log.info("server of tools ready", extra={"fields": fields})
            self._ready_at = asyncio.get_running_loop().time()
        self._say(state="ready", tools=len(offers), error=None)
        self._known.set()

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return what the server's tool *name* says.

        Raises:
            ToolFailed: If it fails, or there is no server to ask; at once.

        """
        client, link = self._client, self._link
        if client is None or link is None:
            raise ToolFailed(
                f"the server {self._status.label} is not there at the moment"
            )
        from edwin.tools import mcp_session

        call = asyncio.create_task(mcp_session.call(client, name, arguments))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        call.add_done_callback(_heed)
        try:
            await asyncio.wait({call})
        finally:
            call.cancel()
        if call.cancelled() or isinstance(call.exception(), mcp_session.Gone):
            asyncio.get_running_loop().call_later(_NEWS_S, _give_up, link)
            raise ToolFailed(f"the server {self._status.label} has gone")
        return mcp_results.text(call.result())

    def _reason(self, conversation: asyncio.Task[None], link: _Link) -> str:
        """Return why the connection ended, in one line, and what may help."""
        was_ready = self._client is not None
        if link.gone.done():
            reason = link.gone.result()
        elif conversation.done():
            reason = _why(conversation.exception())
        else:
            seconds = self._server.connect_seconds
            reason = f"it has not answered within {seconds:g} seconds"
        if link.hint and not was_ready:
            reason = f"{reason} ({link.hint})"
        return self._words(reason)

    def _words(self, text: str) -> str:
        return mcp_results.one_line(text, mcp_results.secrets(self._server))

    def _say(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)


def _load(server: McpServer) -> Any:
    """Return what reaches *server*; takes a while the first time, so in a thread."""
    from edwin.tools import mcp_session  # noqa: F401

    if server.command is not None:
        from edwin.tools.mcp_stdio import Program

        return Program
    from edwin.tools.mcp_http import Endpoint

    return Endpoint


async def _leave(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and wait for their end, though not for ever."""
    for _ in range(2):
        # The second time, one that tells the server so is not to wait for it.
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LEAVING_S)
    for task in tasks:
        if not task.done():
            log.warning("a conversation with a server of tools does not end")


def _heed(task: asyncio.Task[Any]) -> None:
    """Take the error of *task*, which nobody may be left to ask for."""
    if not task.cancelled():
        task.exception()


def _give_up(link: _Link) -> None:
    """Let the connection be made anew, unless that is under way."""
    if not link.gone.done():
        link.gone.set_result("it ended the connection")


def _why(error: BaseException | None) -> str:
    """Return what *error* says, without the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it has not listed its tools in time"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be started: {error.strerror}"
    return str(error) or type(error).__name__


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
