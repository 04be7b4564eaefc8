"""The provider without a model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from edwin.config import ProviderConfig
from edwin.errors import ConfigError, ProviderRateLimited
from edwin.providers.scripted import Scripted
from edwin.types import ModelRequest, TextDelta, TurnFinished


def scripted(**options):
    return Scripted(
        ProviderConfig(
            name="demo",
            api="scripted",
            base_url=None,
            api_key=None,
            headers={},
            context_tokens=None,
            connect_seconds=10,
            first_delta_seconds=120,
            idle_seconds=60,
            retries=2,
            retry_seconds=0.5,
            stream=True,
            remote_images=False,
            eager=False,
            options=options,
        )
    )


async def answer(provider, *contents):
    messages = [{"role": "user", "content": content} for content in contents]
    messages.insert(0, {"role": "system", "content": "be brief"})
    await provider.start()
    async with aclosing(provider.stream(ModelRequest("m", messages, {}))) as deltas:
        events = [delta async for delta in deltas]
    await provider.stop()
    assert all(isinstance(event, TextDelta) for event in events[:-1])
    assert events[-1] == TurnFinished("stop")
    return [event.text for event in events[:-1]]


@pytest.mark.gen_test
async def test_scripted_echoes_the_last_user_message():
    """It says the last user message again, word by word."""
    assert await answer(scripted(), "first", "say it again") == ["say", " it", " again"]
    parts = [{"type": "text", "text": "with "}, {"type": "text", "text": "parts"}]
    assert await answer(scripted(), parts) == ["with", " parts"]
    parts.append({"type": "image_url", "image_url": {"url": "data:,"}, "text": {}})
    assert await answer(scripted(), parts) == ["with", " parts"]
    assert await answer(scripted()) == []


@pytest.mark.gen_test
async def test_scripted_says_its_text():
    """It says the text it is given, with a pause between two words."""
    began = asyncio.get_running_loop().time()
    assert await answer(scripted(text="a b", delaySeconds=0.05), "x") == ["a", " b"]
    assert asyncio.get_running_loop().time() - began >= 0.05


@pytest.mark.gen_test
async def test_scripted_fails_when_told():
    """It answers with the error it is told to answer with."""
    with pytest.raises(ProviderRateLimited):
        await answer(scripted(fail="provider_rate_limited"), "x")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"txet": "a"}, "txet"),
        ({"text": 5}, "text"),
        ({"delaySeconds": "1"}, "delaySeconds"),
        ({"delaySeconds": -1}, "delaySeconds"),
        ({"fail": "badly"}, "fail"),
    ],
)
def test_scripted_refuses_other_options(options, key):
    """An option it does not know is a configuration error that names its key."""
    with pytest.raises(ConfigError, match=rf"models\.providers\.demo\.options\.{key} "):
        scripted(**options)


def test_scripted_has_the_usual_context():
    """Its context is a guess, as for any provider whose context nobody gave."""
    provider = scripted()
    assert (provider.context_tokens, provider.context_is_known) == (100_000, False)
