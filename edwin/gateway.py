"""The front door: Gateway makes, starts, drains and stops everything.

``python -m edwin.gateway`` is the command ``edwin gateway``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import tornado

from edwin import __version__, agents, people
from edwin import config as configuration
from edwin.agents import PythonAgent
from edwin.audit import FILE, AuditLog
from edwin.auth import Authenticator
from edwin.config import Config
from edwin.errors import GatewayStopping
from edwin.executor import AgentExecutor
from edwin.metrics import Metrics
from edwin.monitor import LoopMonitor
from edwin.presence import Presence
from edwin.providers.pool import ProviderPool
from edwin.quotas import Quotas
from edwin.reload import reload
from edwin.runs.carry import Carrier
from edwin.runs.engine import RunEngine
from edwin.runs.idempotency import IdempotencyKeys
from edwin.runs.limits import within_descriptors
from edwin.runs.local import LocalEngine
from edwin.sessions import SessionRegistry
from edwin.sessions.retention import Retention
from edwin.state import StateFolder
from edwin.store import Store
from edwin.tools.pool import ToolPool
from edwin.tracing import Tracing
from edwin.validate import Schemas

if TYPE_CHECKING:
    from ssl import SSLContext

    from opentelemetry.trace import TracerProvider

    from edwin.handlers.answer import RunHandler
    from edwin.handlers.socket import SocketHandler
    from edwin.listener import Listener

LAST_BYTES_SECONDS = 5
SAFE_TORNADO = (6, 6, 1)

_log = logging.getLogger("edwin")


class Gateway:
    """Owns every object that lives longer than a request.

    Several gateways may live in one process, each with a state folder of its own::

        gateway = Gateway({"gateway": {"stateDir": "/var/lib/edwin"}})
        await gateway.start()
        mount(app, gateway, "/ai")
        ...
        await gateway.stop()

    Args:
        config: The configuration, or a mapping in the shape of its file.
        tracer_provider: OpenTelemetry's, for the runs' spans; None: the process's.

    Attributes:
        config: Today's configuration; a request keeps the one it began with.
        began_with: That of the start.
        executor: Today's; a run keeps the one it began with.
        state: ``starting``, ``ready``, ``draining`` or ``stopped``.
        sockets: The WebSockets that are open.
        answers: The HTTP handlers that give a run's answer.
        presence: Notices when their clients have gone.
        metrics: What it counts; a registry of its own.
        quotas: What principals have used of what they may.
        audit: Keeps who was refused, and who changed what.
        created: Unix seconds, whole, of the start.

    Raises:
        ConfigError: If *config* cannot be used.

    """

    authenticator: Authenticator
    store: Store
    registry: SessionRegistry
    engine: RunEngine
    providers: ProviderPool
    tools: ToolPool
    executor: AgentExecutor

    def __init__(
        self,
        config: Config | Mapping[str, Any],
        *,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if not isinstance(config, Config):
            config = configuration.from_document(config)
        self.config = self.began_with = config
        self.state = "starting"
        self.schemas = Schemas()
        self.sockets: set[SocketHandler] = set()
        self.answers: set[RunHandler] = set()
        self.created = int(time.time())
        self.presence = Presence()
        self.metrics = Metrics()
        self.quotas = Quotas()
        self.audit = AuditLog(config.gateway.state_dir / FILE)
        self._tracer_provider = tracer_provider
        self._folder = StateFolder(config.gateway.state_dir)
        self._house = AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._listener: Listener | None = None
        self._draining: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the state folder, open the store, start providers and engine.

        Raises:
            StateError: If the state folder or the store cannot be used.
            ConfigError: If a provider's class cannot be found.

        """
        self._folder.acquire()
        async with AsyncExitStack() as house:
            house.callback(self._folder.release)
            self.audit.start()
            house.callback(self.audit.stop)
            await self._start(house)
            self._tell("gateway.started")
            house.callback(self._tell, "gateway.stopped")
            # From here on it is stop() that takes the house down.
            self._house = house.pop_all()
        self._draining = self._stopping = None
        self.state = "ready"

    async def _start(self, house: AsyncExitStack) -> None:
        config = self.config
        if tornado.version_info < SAFE_TORNADO:
            _log.warning(
                "Tornado %s has known security faults; use 6.6.1 or later",
                tornado.version,
            )
        self.authenticator = Authenticator(
            config.gateway.auth,
            token=self._token(config),
            proxies=config.gateway.trusted_proxies,
            audit=self.audit,
        )
        secrets = [s.encode() for s in config.gateway.session_secrets]
        if not secrets:
            secrets = [self._folder.session_secret().encode()]
        store = Store(
            f"sqlite:///{config.gateway.state_dir.resolve() / 'edwin.db'}", self.metrics
        )
        house.push_async_callback(store.stop)
        await store.start([hashlib.sha256(secret).hexdigest() for secret in secrets])
        self.providers = ProviderPool()
        house.push_async_callback(self.providers.stop)
        await self.providers.change(config.providers, idle=partial(asyncio.sleep, 0))
        self.tools = ToolPool()
        house.push_async_callback(self.tools.stop)
        await self.tools.change(config.agents, idle=partial(asyncio.sleep, 0))
        self.executor = self._executor(agents.load(config.agents))
        self.store = store
        await people.load(self)
        self.registry = SessionRegistry(
            store, secrets[0], config.gateway.sessions, former=secrets[1:]
        )
        tracing = Tracing(
            self._tracer_provider,
            secret=secrets[0],
            addresses={name: p.base_url for name, p in config.providers.items()},
        )
        carrier = Carrier(self.registry, store, self.executor, tracing, self.metrics)
        self.engine = LocalEngine(
            carrier, within_descriptors(config.gateway.runs), IdempotencyKeys(store)
        )
        await self.engine.start()
        self._retention = Retention(
            store, config.gateway.sessions, cleared=self.registry.clear
        )
        self._retention.start()
        house.push_async_callback(self._retention.stop)
        self.schemas.warm("openai/chat_completion_request")
        self._instrument(house)

    def _token(self, config: Config) -> str | None:
        """Return the token that stands in for one that *config* does not have."""
        auth = config.gateway.auth
        wanted = auth.mode == "token" and not auth.token
        return self._folder.token() if wanted else None

    async def reload(self, config: Config | Mapping[str, Any]) -> list[str]:
        """Go by another configuration from the next request on.

        No connection and no run is dropped but those of principals that are not let
        in any more.

        Returns:
            The keys whose change takes a restart, and is left out until then.

        Raises:
            ConfigError: If *config* cannot be used; all is as it was.
            EdwinError: If a provider does not start; likewise.

        """
        if not isinstance(config, Config):
            config = configuration.from_document(config)
        async with self._reloading:
            self.check_serving()
            return await reload(self, config)

    def _executor(self, code: Mapping[str, PythonAgent]) -> AgentExecutor:
        """Return an executor for what there is today, *code* its agents in Python."""
        return AgentExecutor(
            self.providers.current,
            self.metrics,
            gates=self.providers.gates,
            tools=self.tools.current,
            agents=code,
        )

    def use(
        self,
        config: Config,
        tls: SSLContext | None,
        code: Mapping[str, PythonAgent],
    ) -> None:
        """Put *config* in place of today's, in one step; called by :meth:`reload`.

        Args:
            config: Whose providers and tools are there already.
            code: Its agents that are Python code.
            tls: What its connections are encrypted with; None: they are not.

        """
        self.authenticator.configure(
            config.gateway.auth,
            token=self._token(config),
            proxies=config.gateway.trusted_proxies,
        )
        self.config = config
        self.executor = self._executor(code)
        self.engine.limit(within_descriptors(config.gateway.runs))
        self.registry.limit(config.gateway.sessions)
        self._retention.limit(config.gateway.sessions)
        if self._listener is not None:
            self._listener.use(tls)

    def _tell(self, event: str) -> None:
        self.audit.write(event, pid=os.getpid(), version=__version__)

    def _instrument(self, house: AsyncExitStack) -> None:
        """Show what can be read at any time, and watch the loop."""
        gauge = self.metrics.gauge
        gauge("edwin_runs_running", "Runs under way.", lambda: self.engine.running)
        gauge("edwin_runs_waiting", "Runs that wait.", lambda: self.engine.waiting)
        gauge("edwin_answers_open", "Runs' answers open.", lambda: len(self.answers))
        gauge("edwin_sockets_open", "WebSockets open.", lambda: len(self.sockets))
        gauge("edwin_tasks", "Tasks of the loop.", lambda: len(asyncio.all_tasks()))
        gauge("edwin_store_writable", "0: it fails.", lambda: self.store.writable)
        # The first scrape imports what it is written with: not while requests wait.
        self.metrics.scrape()
        blocked_ms = self.config.gateway.monitor.blocked_ms
        if blocked_ms:
            monitor = LoopMonitor(
                blocked_ms / 1000,
                lag=self.metrics.loop_lag.observe,
                blocked=self.metrics.loop_blocked.add,
            )
            monitor.start()
            house.callback(monitor.stop)

    async def listen(self) -> tuple[str, int]:
        """Serve on the configured address with a server of the gateway's own.

        Returns:
            The address and the port, which is a free one where 0 was asked for.

        Raises:
            StateError: If the address cannot be bound.
            ConfigError: If the certificate, or its key, cannot be used.

        """
        # A host that serves the gateway itself needs none of this.
        from edwin.listener import Listener

        self._listener = listener = Listener(self)
        self._folder.announce(*listener.address, scheme=listener.scheme)
        return listener.address

    def enforce(self) -> None:
        """End what is open for those who are not let in any more, as they were."""
        for handler in (*self.answers, *self.sockets):
            if handler.principal is not None and not self.authenticator.holds(
                handler.principal, handler.secret
            ):
                handler.cut()

    def check_serving(self) -> None:
        """Return if requests can be served.

        Raises:
            GatewayStopping: Before :meth:`start`, and after :meth:`stop`.

        """
        if self.state not in ("ready", "draining"):
            raise GatewayStopping("the gateway is not running", retry_after_s=1)

    async def drain(self) -> None:
        """Take no new runs, and let those there are come to their end.

        Runs that are not done after ``gateway.shutdownSeconds`` are ended with
        ``gateway_stopping``.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="drain")
        await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        if self.state != "ready":
            return
        self.state = "draining"
        if self._listener is not None:
            self._listener.drain()
        await self.engine.drain(self.config.gateway.shutdown_seconds)

    async def stop(self) -> None:
        """Drain, close every connection, and let the state folder go.

        Idempotent; who is cancelled while waiting for it does not cancel it.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self.drain()
        for socket in list(self.sockets):
            socket.go_away()
        await self._last_bytes()
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        await self._house.aclose()
        self.state = "stopped"

    async def _last_bytes(self) -> None:
        """Let the answers under way go out, and give up on those that stall."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAST_BYTES_SECONDS
        while (self.answers or self.sockets) and loop.time() < until:
            await asyncio.sleep(0.01)
        for handler in (*self.answers, *self.sockets):
            handler.cut()


if __name__ == "__main__":
    from edwin.cli import gateway

    gateway(prog_name="python -m edwin.gateway")
