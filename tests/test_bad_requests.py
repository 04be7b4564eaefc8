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

SCHEMAS = Schemas()
COUNT = 2_000
JUNK = [
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", "\0", "\u2028", "x" * 5000),
    *([], {}, [[]], [None], {"": ""}, {"type": "text"}, {"role": "user"}, [{}]),
    *({"type": "nonsense"}, {"content": {}}, {"tool_calls": [{}]}, ["a"] * 200),
]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BASES = [
    chat("hello"),
    chat("hello", **{k: v for k, v in VALUES.items() if k not in ("n", "functions")}),
    chat(
        {"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "d"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        user="ann",
    ),
    chat(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
                {"type": "file", "file": {"file_data": "data:,", "filename": "x"}},
                {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
            ],
        }
    ),
]


def places(value, path=()):
    """Yield the path of every value in a document."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def mutated(dice: random.Random, document) -> bytes:
    """Return *document* with a few things wrong, or its bytes broken."""
    document = json.loads(json.dumps(document))
    for _ in range(dice.randint(1, 3)):
        path = dice.choice(list(places(document)))
        if not path:
            continue
        target = document
        for step in path[:-1]:
            target = target[step]
        kind = dice.choice(["drop", "retype", "retype", "add", "nest", "repeat"])
        if kind == "drop":
            del target[path[-1]]
        elif kind == "retype":
            target[path[-1]] = dice.choice(JUNK)
        elif kind == "nest":
            target[path[-1]] = [target[path[-1]]]
        elif kind == "repeat" and isinstance(target, list):
            target.extend([target[path[-1]]] * dice.randint(1, 150))
        elif isinstance(target, dict):
            name = dice.choice(["tool_calls", "text", "name", "refusal", "type", "x"])
            target[name] = dice.choice(JUNK)
        # What is in it twice is two things from here on.
        document = json.loads(json.dumps(document))
    data = json.dumps(document).encode()
    if dice.random() < 0.1:
        cut = dice.randrange(len(data))
        data = data[:cut] + dice.choice([b"", b"\xff", b"\0", b"]", b'"', b"\\ud800"])
    return data


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
