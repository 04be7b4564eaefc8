"""An MCP server that is a program: it speaks over its standard input and output.

The SDK has a transport of this kind too.  This one also ends what the program has
started and left behind, notices its end whoever else holds its output, bounds what it
reads, and keeps its standard error out of the gateway's own.  Loaded only where such a
server is configured.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE
from typing import Final, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from edwin.tools.mcp_results import one_line, secrets
from edwin.types import McpServer

MAX_MESSAGE_BYTES: Final = 16 << 20
# Until a signal follows the end of its input, and the next signal the first one.
EOF_S: Final = 2.0
SIGNAL_S: Final = 1.0
GRACE_S: Final = 0.1
_LINE_BYTES: Final = 2000
_POLL_S: Final = 0.02
_WAITING_MESSAGES: Final = 256

log = logging.getLogger("edwin.tools")

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


class Program(asyncio.SubprocessProtocol):
    """One life of the program, from :meth:`open` to :meth:`close`.

    Attributes:
        gone: Is set, to the reason, when it has ended or cannot be spoken to any more.
        hint: The last line of its standard error, for whom it may help.

    """

    def __init__(self, server: McpServer, label: str) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.hint = ""
        self._server = server
        self._label = label
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._output = bytearray()
        self._errors = bytearray()
        self._garbage = False
        self._end_of_it = ""
        self._grace: asyncio.TimerHandle | None = None
        self._received, self._incoming = anyio.create_memory_object_stream[
            SessionMessage | Exception
        ](math.inf)

    async def open(self) -> None:
        """Start it, as the head of a process group of its own.

        Raises:
            OSError: If it cannot be started.

        """
        assert self._server.command is not None
        await asyncio.get_running_loop().subprocess_exec(
            lambda: self,
            self._server.command,
            *self._server.args,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=get_default_environment() | dict(self._server.env),
            cwd=self._server.cwd,
            start_new_session=True,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take what it is reached by; called by asyncio."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[Incoming, Outgoing]]:
        """Give the messages it sends, and where those for it go."""
        await self.open()
        # Room for some: who gives up a call need not wait for a program that does not
        # read, to tell it so.
        outgoing, sent = anyio.create_memory_object_stream[SessionMessage](
            _WAITING_MESSAGES
        )
        writer = asyncio.create_task(self._write(sent))
        try:
            yield self._incoming, outgoing
        finally:
            outgoing.close()
            await asyncio.wait({writer}, timeout=0.5)
            writer.cancel()
            await asyncio.wait({writer})
            sent.close()
            self._incoming.close()

    async def close(self) -> None:
        """End it, and all it has started that has not left its process group.

        Its input ends, then its group is sent SIGTERM, then SIGKILL; a few seconds at
        most.
        """
        self._lost("stopped")
        self._received.close()
        self._incoming.close()
        if self._grace is not None:
            self._grace.cancel()
        if self._transport is None:
            return
        try:
            await self._end()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise
        finally:
            self._transport.close()

    async def _end(self) -> None:
        """End the group, as gently as it lets itself be ended."""
        self._pipe(0).close()
        with suppress(TimeoutError):
            async with asyncio.timeout(EOF_S):
                await self._exited.wait()
        # What it leaves behind has no input of ours that could end.
        if not self._signal(signal.SIGTERM) or await self._vanished():
            return
        self._signal(signal.SIGKILL)
        await self._vanished()

    async def _vanished(self) -> bool:
        """Return whether the group comes to its end in time."""
        for _ in range(round(SIGNAL_S / _POLL_S)):
            if not self._signal(0):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _signal(self, number: int) -> bool:
        """Signal the group; return whether there still is one."""
        assert self._transport is not None
        try:
            os.killpg(self._transport.get_pid(), number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # macOS says so of a group whose last member is yet to be waited for.
            return True
        return True

    def _pipe(self, fd: int) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast("asyncio.WriteTransport", self._transport.get_pipe_transport(fd))

    async def _write(self, sent: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async for message in sent:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            self._pipe(0).write(line.encode() + b"\n")
            await self._room.wait()

    def _lost(self, reason: str) -> None:
        if not self.gone.done():
            self.gone.set_result(reason)

    def pause_writing(self) -> None:
        """Let the writer wait; called by asyncio."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let it go on; called by asyncio."""
        self._room.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what it says; called by asyncio."""
        if fd == 2:
            self._take_errors(data)
            return
        first, *more = data.split(b"\n")
        self._output += first
        for part in more:
            self._take_message(bytes(self._output))
            self._output[:] = part
        if len(self._output) > MAX_MESSAGE_BYTES:
            self._output.clear()
            self._received.close()
            self._pipe(1).close()
            self._lost(f"it sent a message of more than {MAX_MESSAGE_BYTES:,} bytes")

    def _take_message(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            if not self._garbage:
                self._garbage = True
                log.warning(
                    "server of tools writes what is no message to its output",
                    extra={"fields": {"server": self._label}},
                )
            return
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._received.send_nowait(SessionMessage(message))

    def _take_errors(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self._errors += first[:_LINE_BYTES]
        for part in more:
            self._log_line(bytes(self._errors[:_LINE_BYTES]))
            self._errors[:] = part[:_LINE_BYTES]
        del self._errors[_LINE_BYTES:]

    def _log_line(self, line: bytes) -> None:
        text = one_line(
            line.decode("utf-8", "replace"), secrets(self._server), _LINE_BYTES
        )
        if text:
            self.hint = text
            fields = {"server": self._label, "text": text}
            log.debug("server of tools says", extra={"fields": fields})

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Fail what waits for an answer; called by asyncio."""
        if fd == 1:
            self._received.close()
            self._soon_lost(self._end_of_it or "it closed its output")

    def process_exited(self) -> None:
        """Take note how it ended; called by asyncio."""
        assert self._transport is not None
        code = self._transport.get_returncode() or 0
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._end_of_it = f"it ended {how}"
        self._exited.set()
        # Another may hold its pipes, which then do not end.
        self._soon_lost(self._end_of_it)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say how it ended, now that all it said is read; called by asyncio."""
        self._lost(self._end_of_it)

    def _soon_lost(self, reason: str) -> None:
        """Give what there is still to be read, and the exit code, time to come."""
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(GRACE_S, self._lost, reason)
