"""``server-timing``: where the time of an answer went."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.conftest import Client

ON = {"gateway": {"http": {"serverTiming": True, "headDelayMs": 20}}}


def times(header: str) -> dict[str, int]:
    """Return the milliseconds of a ``server-timing`` header, by name, in its order."""
    entries = header.split(", ")
    found = [re.fullmatch(r"(\w+);dur=(\d+)", entry) for entry in entries]
    return {match[1]: int(match[2]) for match in found if match}


@pytest.mark.gen_test
async def test_server_timing_of_a_whole_answer(make_gateway):
    """A whole answer says how long it waited, how long to its beginning and its end."""
    served = await make_gateway(ON)
    served.upstream.reply(deltas=["One", "two"], gap_s=0.1)
    answer = await Client(served).chat("Hello")
    took = times(answer.headers["server-timing"])
    assert list(took) == ["queue", "first", "total"]
    assert took["queue"] <= took["first"] < 90 <= took["total"] < 5000


@pytest.mark.gen_test
async def test_server_timing_of_a_stream(make_gateway):
    """A stream's head says what is known by then."""
    served = await make_gateway(ON)
    served.upstream.reply(deltas=["One", "two"], gap_s=0.1)
    served.upstream.hang(then=["One"])
    begun = await Client(served).chat("Hello", stream=True)
    assert list(times(begun.headers["server-timing"])) == ["queue", "first"]
    client = Client(served)

    async def release() -> None:
        await served.upstream.arrival(2)
        await asyncio.sleep(0.2)
        served.upstream.release()

    releasing = asyncio.create_task(release())
    late = await client.chat("Hello", stream=True)
    await releasing
    assert list(times(late.headers["server-timing"])) == ["queue"]


@pytest.mark.gen_test
async def test_server_timing_of_an_error(make_gateway):
    """An error says it too, where there was a run."""
    served = await make_gateway(ON)
    served.upstream.fail(500)
    failed = await Client(served).chat("Hello")
    assert list(times(failed.headers["server-timing"])) == ["queue", "total"]
    refused = await Client(served).chat("Hello", model="nobody")
    assert "server-timing" not in refused.headers


@pytest.mark.gen_test
async def test_server_timing_is_off_by_default(client):
    """Without the setting there is no such header."""
    assert "server-timing" not in (await client.chat("Hello")).headers
