"""The embedded model, served by a child process of the gateway: ``api: local``.

Demo-grade: a small model that runs on any machine, so that a gateway answers before a
provider is configured.  One option: ``path``, a GGUF file to serve instead.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from edwin.errors import (
    ConfigError,
    InvalidRequest,
    ProviderError,
    ProviderUnavailable,
    shorten,
)
from edwin.providers import llama_child
from edwin.providers.openai_completions import OpenAICompletions
from edwin.types import Delta, ModelRequest, TurnFinished

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

# What a model that knows no tools can keep to.
_FREE = (None, "none", "auto")

log = logging.getLogger("edwin.providers")

MODEL: Final = "smollm2-135m-instruct"
# Less than the child's context: a token count is an estimate, and answers need room.
CONTEXT_TOKENS: Final = 7_000
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
_LAST_WORDS: Final = 20


class LocalProvider:
    """A provider that owns its server, see :class:`edwin.providers.base.Provider`.

    The child process starts with the first call (``eager``: with the gateway) and
    serves until the provider stops.  When it dies, calls under way fail and the next
    one starts another, though not before a pause that doubles with each death and
    ends with the first whole answer; calls in the pause fail at once.
    """

    def __init__(self, config: ProviderConfig) -> None:
        for option in config.options:
            if option != "path":
                raise ConfigError(
                    f"models.providers.{config.name}.options.{option} is unknown; "
                    "there is path"
                )
        self._path: str | None = config.options.get("path")
        if not isinstance(self._path, str | None):
            raise ConfigError(
                f"models.providers.{config.name}.options.path must be the path of a "
                "GGUF file"
            )
        self.name = config.name
        self.context_tokens = config.context_tokens or CONTEXT_TOKENS
        self.context_is_known = True
        self.retries = config.retries
        self.retry_seconds = config.retry_seconds
        self._config = config
        # A call that finds no free slot waits here, where no timeout of a provider
        # runs, only the run's deadline.
        self._slots = asyncio.Semaphore(llama_child.SLOTS)
        self._running = False
        self._owner: asyncio.Task[None] | None = None
        self._server: asyncio.Future[OpenAICompletions] | None = None
        self._child: _Child | None = None
        self._deaths = 0
        self._not_before = 0.0

    async def start(self) -> None:
        """Accept calls; an ``eager`` provider's child begins to start."""
        self._running = True
        self._not_before = 0.0
        if self._config.eager:
            self._begin()

    async def stop(self) -> None:
        """End the child process; calls under way and waiting ones fail."""
        self._running = False
        if self._child is not None:
            self._child.kill()
        if self._owner is not None:
            await asyncio.wait([self._owner])

    async def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Call the model once, see :meth:`edwin.providers.base.Provider.stream`.

        A caller that leaves while the child starts does not end the start.
        """
        self._check(request)
        request = replace(request, params={"temperature": 0, **request.params})
        async with self._slots:
            server = await self._ready()
            async with aclosing(server.stream(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, TurnFinished):
                        self._deaths = 0
                    yield delta

    def _check(self, request: ModelRequest) -> None:
        if self._path is None and request.model != MODEL:
            raise ProviderError(
                f"provider {self.name!r} has no model {shorten(request.model)!r}; its "
                f"only one is {MODEL!r}",
                should_retry=False,
            )
        if self._path is None and request.params.get("tool_choice") not in _FREE:
            # It would answer as if nothing had been asked for.
            raise InvalidRequest(
                "Unsupported value: 'tool_choice': the embedded model calls no tools; "
                "use 'auto' or 'none', or an agent with another model.",
                param="tool_choice",
                code="unsupported_value",
            )
        for message in request.messages:
            content = message.get("content")
            if isinstance(content, list) and any(
                part.get("type") not in ("text", "refusal") for part in content
            ):
                # The server would call this a fault of its own, worth a repetition.
                raise ProviderError(
                    f"the model of provider {self.name!r} reads text alone, no images "
                    "or files",
                    should_retry=False,
                )

    async def _ready(self) -> OpenAICompletions:
        client = await asyncio.shield(self._server or self._begin())
        if self._child is None:
            raise self._unavailable("has just ended")
        return client

    def _begin(self) -> asyncio.Future[OpenAICompletions]:
        """Let a child start; return what will be the way to call it.

        Raises:
            ProviderUnavailable: If the provider is stopped, or its child died a
                short while ago.

        """
        if not self._running:
            raise self._unavailable("is stopped")
        loop = asyncio.get_running_loop()
        pause_s = self._not_before - loop.time()
        if pause_s > 0:
            raise self._unavailable("has just ended and will start again", pause_s)
        server: asyncio.Future[OpenAICompletions] = loop.create_future()
        # Everyone who waited may have left: then nobody looks at a failure.
        server.add_done_callback(lambda done: done.exception())
        self._server = server
        self._owner = asyncio.create_task(self._own(server), name="embedded-model")
        return server

    async def _own(self, server: asyncio.Future[OpenAICompletions]) -> None:
        """Carry one child from its start to its end; *server* says how to call it."""
        failure: ProviderError = self._unavailable("has ended unexpectedly")
        child = client = None
        try:
            self._child = child = await _Child.spawn()
            if not self._running:
                child.kill()
            api_key = secrets.token_urlsafe(32)
            address = await child.ask({"api_key": api_key, "path": self._path})
            client = self._client(address, api_key)
            await client.start()
            server.set_result(client)
            log.info("the embedded model is ready (process %d)", child.pid)
            raise _Died(await child.death())
        except _Refused as refusal:
            failure = self._refusal(str(refusal))
            log.warning("%s Its last words: %s", failure.message, refusal.last_words)
        except (OSError, _Died) as error:
            if self._running:
                self._pause(error)
        finally:
            self._child = None
            if child is not None:
                await child.end()
            if client is not None:
                await client.stop()
            # Last, with nothing to wait for: from here on another child may start.
            self._server = None
            if not server.done():
                server.set_exception(failure)

    def _client(self, address: str, api_key: str) -> OpenAICompletions:
        # The server closes a connection after a streamed answer without having said
        # so; asked to, it says so, and nobody tries to use the connection again.
        headers = {**self._config.headers, "Connection": "close"}
        return OpenAICompletions(
            replace(
                self._config,
                base_url=f"{address}/v1",
                api_key=api_key,
                headers=headers,
                options={},
            )
        )

    def _pause(self, error: OSError | _Died) -> None:
        pause_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**self._deaths)
        # 2**6 is past the longest pause already.
        self._deaths = min(self._deaths + 1, 6)
        self._not_before = asyncio.get_running_loop().time() + pause_s
        log.warning(
            "the embedded model's process ended (%s); it may start again in %g s",
            error,
            pause_s,
        )

    def _refusal(self, why: str) -> ProviderError:
        return ProviderError(
            f"provider {self.name!r} cannot run its model here: {why}. "
            "agents.list[].model can name the model of another provider.",
            should_retry=False,
        )

    def _unavailable(
        self, what: str, after_s: float | None = None
    ) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"the embedded model of provider {self.name!r} {what}",
            retry_after_s=after_s,
        )


class _Died(Exception):
    """The child process ended by itself; the message says how."""


class _Refused(Exception):
    """The child process says why it cannot serve; the message is fit for a client.

    Attributes:
        last_words: What else it said, fit for the log.

    """

    def __init__(self, why: str, last_words: str) -> None:
        super().__init__(why)
        self.last_words = last_words


class _Child:
    """The process of ``llama_child``, from its start to its end.

    Attributes:
        pid: Its process id.

    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._lines: deque[str] = deque(maxlen=_LAST_WORDS)
        self._listener = asyncio.create_task(self._listen(), name="embedded-model-log")

    @classmethod
    async def spawn(cls) -> _Child:
        """Start the process.

        Raises:
            OSError: If the system has no room for it.

        """
        # -P: the script's own folder holds modules that are not meant to be found.
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                llama_child.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def ask(self, settings: dict[str, Any]) -> str:
        """Hand over *settings*; return the server's address once it has started.

        Raises:
            _Refused: If it says that it cannot serve.
            _Died: If it ends without a word.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(settings) + b"\n")
        line = await self._process.stdout.readline()
        answer: dict[str, str] = orjson.loads(line) if line else {}
        if "address" in answer:
            return answer["address"]
        # Nobody's conversation can be in these, unlike in what it says later.
        await self.end()
        last_words = "\n".join(self._lines)
        if "error" in answer:
            raise _Refused(answer["error"], last_words)
        raise _Died(f"{await self.death()}; its last words: {last_words}")

    async def death(self) -> str:
        """Wait until it ends; return how."""
        code = await self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def kill(self) -> None:
        """Let it end at once; it holds nothing that could be lost."""
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Kill it, should it live, and let go of its pipes."""
        self.kill()
        await self._process.wait()
        await self._listener
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(ConnectionError):
            # A child that has ended before it read leaves a broken pipe behind.
            await self._process.stdin.wait_closed()

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        while data := await self._process.stderr.read(8192):
            *lines, rest = (rest + data).split(b"\n")
            # An endless line is cut; the log needs no more of it.
            rest = rest[:8192]
            for line in lines:
                self._lines.append(line.decode("utf-8", "replace"))
                log.debug("embedded model: %s", self._lines[-1])
