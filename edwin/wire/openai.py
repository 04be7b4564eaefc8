"""The OpenAI wire: request documents in, bodies and chunks out; no loop, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from edwin.errors import EdwinError, InvalidRequest, envelope
from edwin.types import (
    ChatRequest,
    Event,
    Message,
    RefusalDelta,
    RunFinished,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from edwin.wire.fields import FIELDS
from edwin.wire.images import ImageCheck
from edwin.wire.sse import DONE, event, json_line

_MESSAGE_KEYS = {
    "assistant": frozenset(("role", "content", "name", "refusal", "tool_calls")),
    "tool": frozenset(("role", "content", "name", "tool_call_id")),
}
_OTHER_KEYS = frozenset(("role", "content", "name"))
# 1.0 is an integer in JSON Schema, but not for every server.
_INTEGERS = frozenset(("max_completion_tokens", "max_tokens", "seed", "top_logprobs"))
_PLAIN_KEYS = frozenset(("role", "content"))


def parse_chat(document: Mapping[str, Any], **asked: Any) -> ChatRequest:
    """Return what the validated *document* of a chat completion asks for.

    Args:
        document: The request's body.
        asked: Fields of the request that came some other way, such as in headers.

    Raises:
        InvalidRequest: If it asks for what Edwin does not do; ``param`` names it.

    """
    params: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in document.items():
        if value is None:
            continue
        use = FIELDS.get(name)
        if use == "forwarded":
            params[name] = int(value) if name in _INTEGERS else value
        elif use == "refused":
            _refuse(name, value)
        elif use != "honoured" or name == "user":
            extra[name] = value
    _check_tools(params)
    images = ImageCheck()
    if not params.get("tools"):
        params.pop("tools", None)
    return ChatRequest(
        messages=[_message(i, m, images) for i, m in enumerate(document["messages"])],
        model=document.get("model"),
        image_links=images.links,
        user=document.get("user"),
        params=params,
        extra=extra,
        **asked,
    )


def _refuse(name: str, value: Any) -> None:
    if (name == "n" and value == 1) or (name == "modalities" and value == ["text"]):
        return
    advice = {
        "n": "Edwin gives one choice; send n: 1 and repeat the call",
        "functions": "send 'tools' instead",
        "function_call": "send 'tool_choice' instead",
    }.get(name, "Edwin answers with text only")
    raise InvalidRequest(
        f"Unsupported value: '{name}': {advice}.", param=name, code="unsupported_value"
    )


def _check_tools(params: Mapping[str, Any]) -> None:
    for i, tool in enumerate(params.get("tools") or ()):
        if tool["type"] != "function":
            raise InvalidRequest(
                "Unsupported value: Edwin passes on function tools only.",
                param=f"tools[{i}].type",
                code="unsupported_value",
            )


def _message(place: int, message: dict[str, Any], images: ImageCheck) -> Message:
    """Return *message* with the keys that mean something; most are left as they are."""
    if message["role"] == "assistant":
        images.turn()
    if isinstance(message.get("content"), list):
        _check_parts(place, message["content"], images)
    if message.keys() <= _PLAIN_KEYS:
        return cast("Message", message)
    keys = _MESSAGE_KEYS.get(message["role"], _OTHER_KEYS)
    kept = {k: v for k, v in message.items() if k in keys and v is not None}
    if message["role"] == "assistant":
        _check_assistant(place, message)
        kept.setdefault("content", None)
        if not kept.get("tool_calls"):
            kept.pop("tool_calls", None)
    return cast("Message", kept)


def _check_assistant(place: int, message: Mapping[str, Any]) -> None:
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise InvalidRequest(
                f"Unsupported parameter: Edwin keeps no '{name}' in its messages.",
                param=f"messages[{place}].{name}",
                code="unsupported_parameter",
            )
    for i, call in enumerate(message.get("tool_calls") or ()):
        if call["type"] != "function":
            raise InvalidRequest(
                "Unsupported value: Edwin passes on function tools only.",
                param=f"messages[{place}].tool_calls[{i}].type",
                code="unsupported_value",
            )


def _check_parts(
    place: int, parts: Sequence[Mapping[str, Any]], images: ImageCheck
) -> None:
    for i, part in enumerate(parts):
        path = f"messages[{place}].content[{i}]"
        if part["type"] == "image_url":
            images.part(part, path)
        elif part["type"] == "input_audio":
            raise InvalidRequest(
                "Unsupported value: Edwin takes no audio parts.",
                param=f"{path}.type",
                code="unsupported_value",
            )


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the ``usage`` object of *usage*."""
    result: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        result["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        result["completion_tokens_details"] = {
            "reasoning_tokens": usage.reasoning_tokens
        }
    if usage.estimated:
        result["estimated"] = True
    return result


def completion_id(run_id: str) -> str:
    """Return the id that the completion of run *run_id* has on the wire."""
    return "chatcmpl-" + run_id.removeprefix("run_")


def completion(
    end: RunFinished, *, run_id: str, created: int, model: str
) -> dict[str, Any]:
    """Return the whole answer's body.

    Args:
        end: The run's end.
        run_id: Id of the run.
        created: Unix seconds.
        model: What the request called the model.

    """
    message: dict[str, Any] = {
        "role": "assistant",
        "content": end.message.get("content"),
        "refusal": end.message.get("refusal"),
    }
    if calls := end.message.get("tool_calls"):
        message["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": message,
        "logprobs": end.logprobs,
        "finish_reason": end.finish_reason,
    }
    return {
        "id": completion_id(run_id),
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage_object(end.usage),
    }


class ChunkEncoder:
    """Encodes a run's events as the chunks of one streamed answer.

    What is the same in every chunk is encoded once.

    Args:
        run_id: Id of the run.
        created: Unix seconds, the same in every chunk.
        model: What the request called the model.
        include_usage: Whether the request wants the usage chunk.

    """

    def __init__(
        self, *, run_id: str, created: int, model: str, include_usage: bool
    ) -> None:
        head = json_line(
            {
                "id": completion_id(run_id),
                "object": "chat.completion.chunk",
                "created": created,
                "model": model,
            }
        )
        usage = b',"usage":null' if include_usage else b""
        self._include_usage = include_usage
        self._start = b"data: " + head[:-1]
        self._before = self._start + b',"choices":[{"index":0,"delta":'
        self._after = b',"finish_reason":null}]' + usage + b"}\n\n"
        self._text_before = self._before + b'{"content":'
        self._text_after = b"}" + self._after

    def head(self) -> bytes:
        """Return the first chunk, which says the role."""
        return self._before + b'{"role":"assistant","content":""}' + self._after

    def chunks(self, events: Iterable[Event]) -> bytes:
        """Return the chunks of *events*; those that a client does not see give none."""
        parts: list[bytes] = []
        for item in events:
            if isinstance(item, TextDelta):
                text = json_line(item.text)
                if item.logprobs:
                    parts += self._before, b'{"content":', text, b'},"logprobs":'
                    parts += json_line(item.logprobs), self._after
                else:
                    parts += self._text_before, text, self._text_after
            elif isinstance(item, ToolCallDelta):
                delta = {"tool_calls": [_call_piece(item)]}
                parts += self._before, json_line(delta), self._after
            elif isinstance(item, RefusalDelta):
                parts += self._before, json_line({"refusal": item.text}), self._after
        return b"".join(parts)

    def end(self, end: RunFinished) -> bytes:
        """Return the last chunks and ``[DONE]``."""
        usage = b',"usage":null' if self._include_usage else b""
        reason = json_line(end.finish_reason)
        last = self._before + b'{},"finish_reason":' + reason + b"}]" + usage + b"}\n\n"
        if not self._include_usage:
            return last + DONE
        counts = json_line(usage_object(end.usage))
        return last + self._start + b',"choices":[],"usage":' + counts + b"}\n\n" + DONE


def _call_piece(delta: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": delta.arguments}
    piece: dict[str, Any] = {"index": delta.index, "function": function}
    if delta.id is not None:
        piece |= {"id": delta.id, "type": "function"}
    if delta.name is not None:
        function["name"] = delta.name
    return piece


def error_event(error: EdwinError) -> bytes:
    """Return the event that ends a stream that failed."""
    return event(envelope(error))


def model_object(name: str, *, created: int) -> dict[str, Any]:
    """Return the entry of model *name* in ``GET /v1/models``."""
    return {"id": name, "object": "model", "created": created, "owned_by": "edwin"}


def model_list(names: Iterable[str], *, created: int) -> dict[str, Any]:
    """Return the body of ``GET /v1/models``."""
    return {
        "object": "list",
        "data": [model_object(name, created=created) for name in names],
    }
