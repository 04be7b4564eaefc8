"""When an answer is given up on."""

from __future__ import annotations

import asyncio

import pytest

from edwin.providers.patience import Patience


def patience(deadline_s: float, silence_s: float) -> tuple[Patience, asyncio.Event]:
    gave_up = asyncio.Event()
    deadline = asyncio.get_running_loop().time() + deadline_s
    return Patience(gave_up.set, deadline, silence_s), gave_up


@pytest.mark.gen_test
async def test_patience_ends_at_the_deadline():
    """Before the answer begins only the deadline counts, not how one waits for it."""
    waiting, gave_up = patience(0.05, 60)
    waiting.wait()
    waiting.rest()
    async with asyncio.timeout(2):
        await gave_up.wait()
    assert waiting.exhausted


@pytest.mark.gen_test
@pytest.mark.parametrize("deadline_s", [0.01, 60])
async def test_patience_ends_after_a_silence(deadline_s):
    """Once the answer began, a silence counts, and the deadline no longer."""
    waiting, gave_up = patience(deadline_s, 0.1)
    waiting.begin()
    loop = asyncio.get_running_loop()
    for _ in range(4):
        waiting.wait()
        await asyncio.sleep(0.04)
        waiting.rest()
    assert not gave_up.is_set()
    began = loop.time()
    waiting.wait()
    async with asyncio.timeout(2):
        await gave_up.wait()
    assert loop.time() - began > 0.09


@pytest.mark.gen_test
async def test_patience_does_not_count_rest():
    """Time in which nobody waits for the provider is not its silence."""
    waiting, gave_up = patience(60, 0.02)
    waiting.begin()
    await asyncio.sleep(0.1)
    assert not gave_up.is_set()
    waiting.stop()


@pytest.mark.gen_test
async def test_patience_can_be_stopped():
    """Nothing is given up on after the end."""
    waiting, gave_up = patience(0.02, 0.02)
    waiting.stop()
    await asyncio.sleep(0.06)
    assert not gave_up.is_set() and not waiting.exhausted
