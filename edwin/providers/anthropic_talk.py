"""Puts a conversation into the form of Anthropic's Messages API; pure.

Used by ``anthropic_request``.  That API is stricter than OpenAI's: instructions stand
apart, user and assistant take turns, no text is blank, and every tool that was called
is answered at the beginning of the next user message.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

from edwin.errors import InvalidRequest
from edwin.types import Message, ToolCall

Block: TypeAlias = dict[str, Any]
Thoughts: TypeAlias = Callable[[str], Sequence[Block]]
"""Gives the thinking blocks that stood before a tool call, by the call's id."""

THINKING = ("thinking", "redacted_thinking")
"""Types of the blocks that a model's thinking comes in."""

CONTINUED = "(The conversation goes on.)"
"""What the user says first where a conversation begins with the assistant."""

_INSTRUCTIONS = ("system", "developer")
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Conversation(NamedTuple):
    """What is said, as the API takes it.

    Attributes:
        system: Text blocks of the instructions.
        messages: The turns, the user's first.

    """

    system: list[Block]
    messages: list[dict[str, Any]]


def conversation(messages: Sequence[Message], thoughts: Thoughts) -> Conversation:
    """Return *messages* as instructions and turns.

    Instructions that come after the first other message are said by the user.  A call
    without an answer is left out; an answer without its call is said by the user.

    Args:
        messages: In OpenAI's form.
        thoughts: Gives what goes back before each tool call.

    Raises:
        InvalidRequest: If nothing is said, or a part cannot be said in this API.

    """
    first = next(
        (i for i, m in enumerate(messages) if m["role"] not in _INSTRUCTIONS),
        len(messages),
    )
    system = [b for i, m in enumerate(messages[:first]) for b in _said(m, i)]
    turns = _Turns(thoughts)
    for place in range(first, len(messages)):
        turns.take(messages, place)
    found = turns.messages
    if not found:
        # Instructions alone are what the user has to say, then.
        system, said = [], system
        if not said:
            raise InvalidRequest(
                "the conversation is empty; send a message with some text",
                param="messages",
            )
        found = [{"role": "user", "content": said}]
    if found[0]["role"] == "assistant":
        found.insert(0, {"role": "user", "content": [_text(CONTINUED)]})
    for message in found:
        message["content"].sort(key=lambda block: block["type"] != "tool_result")
    last = found[-1]["content"][-1]
    if found[-1]["role"] == "assistant" and last["type"] == "text":
        # The model goes on from there, and may not begin after a blank.
        last["text"] = last["text"].rstrip()
    return Conversation(system, found)


def may_think(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a call with *turns* may have thinking with a budget.

    An answer that is under way, because tools were called in it, has to have begun
    with thinking, and that has to be known still.

    Args:
        turns: As :func:`conversation` returns them.

    """
    start = len(turns)
    while start and _goes_on(turns[start - 1]):
        start -= 1
    if start == len(turns):
        return True
    kind: str = turns[start]["content"][0]["type"]
    return kind in THINKING


def _goes_on(turn: Mapping[str, Any]) -> bool:
    """Return whether *turn* belongs to an answer that began before it, or with it."""
    kind: str = turn["content"][0]["type"]
    return kind == "tool_result" or bool(turn["role"] == "assistant")


class _Turns:
    """Collects the turns.

    Args:
        thoughts: Gives what goes back before each tool call.

    Attributes:
        messages: What there is so far.

    """

    def __init__(self, thoughts: Thoughts) -> None:
        self.messages: list[dict[str, Any]] = []
        self._thoughts = thoughts
        self._used: set[str] = set()
        # What the calls that may be answered now are called, by the ids they came with.
        self._open: dict[str, str] = {}

    def take(self, messages: Sequence[Message], place: int) -> None:
        """Take in the message at *place*."""
        message = messages[place]
        role = message["role"]
        if role == "tool":
            self._add("user", self._result(message, place))
        elif role == "assistant":
            blocks = list(_said(message, place))
            self._open = {}
            calls = message.get("tool_calls") or ()
            if calls:
                answered = set(_answered(messages, place))
                for call in calls:
                    if _call_id(call) in answered:
                        blocks += self._call(call, first=not self._open, said=blocks)
            self._add("assistant", blocks)
        else:
            self._add("user", list(_said(message, place)))

    def _add(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _call(self, call: ToolCall, *, first: bool, said: list[Block]) -> list[Block]:
        given = _call_id(call)
        if given in self._open:
            return []
        name = self._open[given] = self._free(given)
        thoughts = [dict(block) for block in self._thoughts(given)]
        if first:
            # What was thought first stood before the text.
            said[:0], thoughts = thoughts, []
        function = call["function"]
        use = {"type": "tool_use", "id": name, "name": function["name"]}
        return [*thoughts, use | {"input": _input(function["arguments"])}]

    def _free(self, given: str) -> str:
        """Return an id that the API takes, and that no other call has."""
        base = given
        if not _ID.fullmatch(given):
            digest = hashlib.sha256(given.encode("utf-8", "surrogatepass"))
            base = f"call_{digest.hexdigest()[:24]}"
        name, count = base, 1
        while name in self._used:
            count += 1
            name = f"{base[:100]}_{count}"
        self._used.add(name)
        return name

    def _result(self, message: Message, place: int) -> list[Block]:
        blocks = list(_said(message, place))
        name = self._open.pop(message["tool_call_id"], None)
        if name is None:
            return blocks
        result: Block = {"type": "tool_result", "tool_use_id": name}
        return [result | {"content": blocks} if blocks else result]


def _answered(messages: Sequence[Message], place: int) -> Iterator[str]:
    """Yield the ids that are answered before the assistant's next message."""
    for message in messages[place + 1 :]:
        if message["role"] == "assistant":
            return
        if message["role"] == "tool":
            yield message["tool_call_id"]


def _call_id(call: ToolCall) -> str:
    return call["id"]


def _input(arguments: str) -> Any:
    """Return the object that *arguments* is, which orjson writes as it stands."""
    try:
        found = orjson.loads(arguments or "{}")
    except ValueError:
        found = None
    return orjson.Fragment(arguments) if found and isinstance(found, dict) else {}


def _said(message: Message, place: int) -> Iterator[Block]:
    """Yield the blocks of a message's content; what is blank gives none."""
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for i, part in enumerate(content or ()):
        block = _part(part, f"messages[{place}].content[{i}]")
        if block["type"] != "text" or block["text"].strip():
            yield block
    refusal = message.get("refusal")
    if refusal and refusal.strip():
        yield _text(refusal)


def _part(part: Mapping[str, Any], path: str) -> Block:
    kind = part["type"]
    if kind in ("text", "refusal"):
        return _text(part[kind])
    if kind == "image_url":
        return {"type": "image", "source": _source(part["image_url"]["url"])}
    if kind == "file":
        return _file(part["file"], f"{path}.file")
    raise _unsayable(f"{path}.type", f"takes no {kind} parts")


def _source(url: str) -> Block:
    if url[:5].lower() != "data:":
        return {"type": "url", "url": url}
    head, _, data = url.partition(",")
    kind = head[5:].partition(";")[0].lower()
    return {"type": "base64", "media_type": kind, "data": data}


def _file(file: Mapping[str, Any], path: str) -> Block:
    """Return a document: a PDF, which the API reads."""
    source = _source(file.get("file_data") or "")
    if source.get("media_type") != "application/pdf" or not source["data"]:
        raise _unsayable(
            path, "takes PDF files alone, as file_data: data:application/pdf;base64,…"
        )
    name = file.get("filename")
    return {"type": "document", "source": source} | ({"title": name} if name else {})


def _unsayable(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: the agent's provider {why}.",
        param=param,
        code="unsupported_value",
    )


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
