"""How long a message is for a model, estimated where no provider has counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edwin.types import Message

IMAGE_TOKENS = 1000
BYTES_PER_TOKEN = 4


def text_tokens(text: str) -> int:
    """Return the estimated tokens of *text*: UTF-8 bytes / 4, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def estimate_tokens(message: Message) -> int:
    """Return the estimated tokens of *message*: its text and calls, 1,000 an image."""
    content = message.get("content")
    if isinstance(content, str):
        count = text_tokens(content)
    else:
        count = sum(_part_tokens(part) for part in content or ())
    for call in message.get("tool_calls") or ():
        count += text_tokens(call["function"]["name"] + call["function"]["arguments"])
    return count


def total_tokens(messages: Iterable[Message]) -> int:
    """Return the estimated tokens of all *messages*."""
    return sum(map(estimate_tokens, messages))


def _part_tokens(part: dict[str, Any]) -> int:
    kind = part["type"]
    return text_tokens(part[kind]) if kind in ("text", "refusal") else IMAGE_TOKENS
