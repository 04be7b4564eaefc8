"""When two messages are the same one, and what a client saw of a run; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edwin.types import Entry, Message, ToolCall


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as the client saw it, and the entries behind it.

    A run's own tool calls and results are invisible: its texts are the one assistant
    message that went out.  Entries that left nothing to see stand behind the message
    before them.
    """

    digest: bytes
    entries: tuple[Entry, ...]


def digest(message: Message) -> bytes:
    """Return the SHA-256 by which messages are compared.

    A text and its one-part array are the same, so are null, absent and empty
    content, and arguments that are the same JSON.  Images count by their bytes.
    """
    parts = _parts(message.get("content"))
    if refusal := message.get("refusal"):
        parts.append(["refusal", refusal])
    calls = [
        (call["id"], call["function"]["name"], _arguments(call))
        for call in message.get("tool_calls") or ()
    ]
    return hashlib.sha256(
        orjson.dumps(
            (
                message["role"],
                message.get("name"),
                parts,
                message.get("tool_call_id"),
                calls,
            )
        )
    ).digest()


def _parts(content: str | Sequence[dict[str, Any]] | None) -> list[list[Any]]:
    if isinstance(content, str):
        return [["text", content]] if content else []
    return [_part(part) for part in content or ()]


def _part(part: dict[str, Any]) -> list[Any]:
    match part:
        case {"type": "text", "text": text}:
            return ["text", text]
        case {"type": "refusal", "refusal": text}:
            return ["refusal", text]
        case {"type": "image_url", "image_url": {"url": url, **rest}}:
            mark = hashlib.sha256(url.encode()).hexdigest()
            return ["image", mark, rest.get("detail") or "auto"]
    return ["other", orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode()]


def _arguments(call: ToolCall) -> str:
    text = call["function"]["arguments"]
    try:
        value = orjson.loads(text)
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # No JSON, or nested deeper than orjson writes.
        return text


def call_ids(messages: Iterable[Message]) -> set[str]:
    """Return the ids of every tool call in *messages*."""
    return {
        call["id"] for message in messages for call in message.get("tool_calls") or ()
    }


def text_of(message: Message) -> str:
    """Return the text of *message*, its text parts put together."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def seen(entries: Sequence[Entry]) -> list[Seen]:
    """Return *entries* as the client saw them."""
    result: list[Seen] = []
    start = 0
    while start < len(entries):
        first = entries[start]
        end = start + 1
        if first.own:
            while (
                end < len(entries)
                and entries[end].own
                and entries[end].run_id == first.run_id
            ):
                end += 1
        group = tuple(entries[start:end])
        mark = first.digest if len(group) == 1 else _folded(group)
        if mark is None and result:
            result[-1] = Seen(result[-1].digest, result[-1].entries + group)
        else:
            result.append(Seen(mark or b"", group))
        start = end
    return result


def _folded(group: tuple[Entry, ...]) -> bytes | None:
    """Return the digest of a run's entries as one answer; None if it shows nothing."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    asked: dict[str, ToolCall] = {}
    refusal: str | None = None
    for message in (entry.message for entry in group):
        if message["role"] == "tool":
            asked.pop(message["tool_call_id"], None)
        else:
            # Ids are not unique for ever: a result belongs to the latest call.
            calls += asked.values()
            asked = {call["id"]: call for call in message.get("tool_calls") or ()}
            texts.append(text_of(message))
            refusal = message.get("refusal")
    calls += asked.values()
    if not calls and not refusal and not any(texts):
        return None
    return digest(
        {
            "role": "assistant",
            "content": "".join(texts),
            "refusal": refusal,
            "tool_calls": calls,
        }
    )
