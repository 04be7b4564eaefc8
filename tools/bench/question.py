"""The requests, as they go over the wire; pure."""

from __future__ import annotations

import json
from typing import Any

from tools.bench.processes import TOKEN

QUESTION = "Hello, how are you today?"
_SENTENCE = "What I have to say about it is neither very short nor very long. "


def request(port: int, *, stream: bool, token: str = TOKEN, **fields: Any) -> str:
    """Return a chat completion's request as it goes over the wire.

    Args:
        port: Of the server, for the ``Host`` header.
        stream: Whether a stream is wanted.
        token: What the client says it may come in with.
        fields: Fields of the document that are added or replaced.

    """
    document: dict[str, Any] = {
        "model": "edwin",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": stream,
    }
    body = json.dumps(document | fields)
    return (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def conversation(messages: int) -> list[dict[str, str]]:
    """Return *messages* messages of about 350 bytes, the last one the user's."""
    return [
        {
            "role": "user" if (messages - place) % 2 else "assistant",
            "content": f"{place:04d}: {_SENTENCE * 5}",
        }
        for place in range(messages)
    ]
