"""The providers of one gateway, from one configuration to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import chain

from edwin.config import ProviderConfig
from edwin.providers.base import Provider, provider_class
from edwin.providers.gate import Gate


class ProviderPool:
    """Starts providers, and stops those that no run needs any more.

    Attributes:
        current: Those of today's configuration, by name; replaced whole, never changed.
        gates: Who may call each of them now; replaced together with them.

    """

    def __init__(self) -> None:
        self.current: Mapping[str, Provider] = {}
        self.gates: Mapping[str, Gate] = {}
        self._configs: Mapping[str, ProviderConfig] = {}
        self._retiring: dict[asyncio.Task[None], list[Provider]] = {}

    async def change(
        self,
        configs: Mapping[str, ProviderConfig],
        *,
        idle: Callable[[], Awaitable[None]],
    ) -> None:
        """Have the providers that *configs* describe; all of them, or none is new.

        One whose configuration is as it was stays as it is, and so does its gate.  One
        that is replaced has a new gate; what waits at the former's is let in there.

        Args:
            configs: What there is to be, by name.
            idle: Returns when nobody uses the former ones any more; called when all of
                the new ones are started, and the former ones are stopped then.

        Raises:
            ConfigError: If a provider's class cannot be found.
            EdwinError: If one does not start.

        """
        providers: dict[str, Provider] = {}
        async with AsyncExitStack() as started:
            for name, config in configs.items():
                if name in self.current and self._configs[name] == config:
                    providers[name] = self.current[name]
                else:
                    providers[name] = provider_class(config.api)(config)
                    await providers[name].start()
                    started.push_async_callback(providers[name].stop)
            started.pop_all()
        gates = {
            name: self.gates[name]
            if provider is self.current.get(name)
            else _gate(configs[name])
            for name, provider in providers.items()
        }
        former = [p for name, p in self.current.items() if providers.get(name) is not p]
        self.current, self.gates, self._configs = providers, gates, dict(configs)
        if former:
            retire = _retire(former, idle())
            task = asyncio.create_task(retire, name="retire providers")
            self._retiring[task] = former
            task.add_done_callback(self._retiring.pop)

    async def stop(self) -> None:
        """Stop all of them.  Idempotent."""
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)
        providers, self.current, self.gates = self.current, {}, {}
        # Those too whose stopping has just been cancelled halfway.
        await _stop(chain(providers.values(), *retiring.values()))


def _gate(config: ProviderConfig) -> Gate:
    return Gate(
        config.name,
        max_concurrent=config.max_concurrent,
        failures=config.breaker.failures,
        seconds=config.breaker.seconds,
        clock=asyncio.get_running_loop().time,
    )


async def _retire(providers: Iterable[Provider], idle: Awaitable[None]) -> None:
    try:
        await idle
    finally:
        await _stop(providers)


async def _stop(providers: Iterable[Provider]) -> None:
    for provider in providers:
        await provider.stop()
