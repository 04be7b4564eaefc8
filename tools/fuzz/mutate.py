"""What can be wrong with a document, and with its bytes; all chosen by the dice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

JUNK = [
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", "\0", "\u2028", "x" * 5000),
    *([], {}, [[]], [None], {"": ""}, {"type": "text"}, {"role": "user"}, [{}]),
    *({"type": "nonsense"}, {"content": {}}, {"tool_calls": [{}]}, ["a"] * 200),
]
NAMES = ["tool_calls", "text", "name", "refusal", "type", "x"]
# Values of parameters and headers.
TEXTS = [
    *("", " ", "0", "1", "-1", "1e9", "99999999999999999999", "x", "main", "kitchen"),
    *("true", "TRUE", "null", "[]", "agent:main:x", "agent:beta:x", "../..", "%2e%2e"),
    *("\x7f", "ä", "\u2028", "a b", "a,b", '"', "x" * 600, "run_" + "0" * 32),
]
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def _chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "edwin", "messages": list(messages), **fields}


CHATS = [
    _chat({"role": "user", "content": "hello"}),
    _chat(
        {"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "d"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        user="ann",
    ),
    _chat(
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


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def mutated(dice: random.Random, document: Any) -> bytes:
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
            target[dice.choice(NAMES)] = dice.choice(JUNK)
        # What is in it twice is two things from here on.
        document = json.loads(json.dumps(document))
    data = json.dumps(document).encode()
    if dice.random() < 0.1:
        cut = dice.randrange(len(data))
        data = data[:cut] + dice.choice([b"", b"\xff", b"\0", b"]", b'"', b"\\ud800"])
    return data
