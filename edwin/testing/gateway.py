"""A whole gateway on a free port, with a scripted provider behind it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edwin.gateway import Gateway
from edwin.testing.upstream import ScriptedUpstream

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

TOKEN = "a-token-for-tests-only"


class LocalGateway:
    """A gateway on 127.0.0.1 whose agents talk to a :class:`ScriptedUpstream`.

    The endpoint is on, the token is :data:`TOKEN`, every agent's model is
    ``upstream/scripted``.

    Args:
        state_dir: An empty folder.
        config: What else the configuration is to say, in the shape of its file.
        upstream: The provider; one of its own when None.
        tracer_provider: As for :class:`~edwin.gateway.Gateway`.

    Attributes:
        url: Such as ``http://127.0.0.1:51234``, once started.
        gateway: The gateway itself.
        upstream: The provider.

    """

    def __init__(
        self,
        state_dir: Path,
        config: Mapping[str, Any] | None = None,
        *,
        upstream: ScriptedUpstream | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.url = ""
        self.upstream = upstream or ScriptedUpstream()
        self._owns_upstream = upstream is None
        self._state_dir = state_dir
        self._config = config or {}
        self._tracer_provider = tracer_provider
        self._house = AsyncExitStack()
        self.gateway: Gateway

    async def start(self) -> None:
        """Start the provider, then the gateway."""
        async with AsyncExitStack() as house:
            if self._owns_upstream:
                await self.upstream.start()
                house.push_async_callback(self.upstream.stop)
            self.gateway = Gateway(
                merged(self._base(), self._config),
                tracer_provider=self._tracer_provider,
            )
            await self.gateway.start()
            house.push_async_callback(self.gateway.stop)
            address, port = await self.gateway.listen()
            # From here on it is stop() that takes it down.
            self._house = house.pop_all()
        scheme = "https" if self.gateway.config.gateway.tls else "http"
        self.url = f"{scheme}://{address}:{port}"

    async def stop(self) -> None:
        """Stop the gateway, then the provider.  Idempotent."""
        await self._house.aclose()

    def _base(self) -> dict[str, Any]:
        return {
            "gateway": {
                "port": 0,
                "stateDir": str(self._state_dir),
                "shutdownSeconds": 1,
                "auth": {"token": TOKEN},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
            },
            "agents": {"defaults": {"model": "upstream/scripted", "instructions": ""}},
            "models": {
                "providers": {
                    "upstream": {
                        "api": "openai-completions",
                        "baseUrl": self.upstream.url,
                        "retries": 0,
                    }
                }
            },
        }

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *over* laid on *base*: maps are merged, everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            value = merged(result[key], value)
        result[key] = value
    return result
