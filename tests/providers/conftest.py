"""Providers that call a scripted upstream over real HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from tornado.ioloop import IOLoop

from edwin.config import from_document
from edwin.providers.openai_completions import OpenAICompletions
from edwin.testing import ScriptedUpstream


@pytest.fixture
def acme(
    io_loop: IOLoop, upstream: ScriptedUpstream
) -> Iterator[Callable[..., Awaitable[OpenAICompletions]]]:
    """Return a function that starts a provider; its arguments are configuration keys.

    It calls the upstream unless ``baseUrl`` says otherwise, and is called acme.
    """
    started = []

    async def make(**keys: object) -> OpenAICompletions:
        keys = {"api": "openai-completions", "baseUrl": upstream.url} | keys
        config = from_document({"models": {"providers": {"acme": keys}}})
        provider = OpenAICompletions(config.providers["acme"])
        await provider.start()
        started.append(provider)
        return provider

    yield make
    for provider in started:
        io_loop.run_sync(provider.stop)
