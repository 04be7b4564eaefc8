"""Two thousand bad requests: always the envelope, never an error of ours."""

from __future__ import annotations

import json
import random

import aiohttp
import pytest

from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas
from tests.conftest import Client, chat
from tests.wire.test_fields import VALUES
from tools.fuzz.mutate import CHATS, mutated

SCHEMAS = Schemas()
COUNT = 2_000
BASES = [
    *CHATS,
    chat("hello", **{k: v for k, v in VALUES.items() if k not in ("n", "functions")}),
]


@pytest.mark.gen_test(timeout=120)
async def test_bad_requests_get_the_envelope(client, error_log):
    """Whatever is wrong with a request, its answer says so, and the next is fine."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    url = client.served.url + "/v1/chat/completions"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    statuses = set()
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(COUNT):
            body = mutated(dice, dice.choice(BASES))
            async with session.post(url, data=body) as response:
                answer = await response.read()
            statuses.add(response.status)
            assert response.status < 500, (seed, number, body[:2000], answer)
            if response.status != 200:
                SCHEMAS.check("openai/error", json.loads(answer))
            elif not answer.startswith(b"data:"):
                SCHEMAS.check("openai/chat_completion", json.loads(answer))
    assert {200, 400, 404} <= statuses
    assert (await Client(client.served).chat("good")).text == "good"
    assert error_log == []
