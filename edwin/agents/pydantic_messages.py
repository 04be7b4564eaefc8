"""Edwin's messages as the history of a run of Pydantic AI: roles stay roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)

from edwin.errors import InvalidRequest
from edwin.types import Message


def history(messages: Sequence[Message]) -> list[ModelMessage]:
    """Return *messages* for a run that has no prompt but its history.

    Raises:
        InvalidRequest: If a file in them is one that the provider has.

    """
    past: list[ModelMessage] = []
    asked: list[ModelRequestPart] = []
    names: dict[str, str] = {}
    for message in messages:
        if message["role"] != "assistant":
            asked.append(_asked(message, names))
            continue
        if asked:
            past.append(ModelRequest(asked))
            asked = []
        past.append(ModelResponse(_answered(message, names)))
    # Without a request at the end Pydantic AI takes the last answer for its own; an
    # empty one adds nothing to what the model reads.
    past.append(ModelRequest(asked))
    return past


def _asked(message: Message, names: dict[str, str]) -> ModelRequestPart:
    role, content = message["role"], message.get("content")
    if role == "user":
        if isinstance(content, list):
            return UserPromptPart([_content(part) for part in content])
        return UserPromptPart(content or "")
    if role == "tool":
        call_id = message["tool_call_id"]
        return ToolReturnPart(names.get(call_id, "tool"), _text(content), call_id)
    return SystemPromptPart(_text(content))


def _answered(message: Message, names: dict[str, str]) -> list[ModelResponsePart]:
    parts: list[ModelResponsePart] = []
    text = _text(message.get("content")) or message.get("refusal")
    if text:
        parts.append(TextPart(text))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        names[call["id"]] = function["name"]
        parts.append(ToolCallPart(function["name"], function["arguments"], call["id"]))
    return parts


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(
            part.get("text") or part.get("refusal") or "" for part in content
        )
    return content or ""


def _content(part: dict[str, Any]) -> UserContent:
    kind = part["type"]
    if kind == "text":
        return str(part["text"])
    if kind == "image_url":
        return _image(part["image_url"])
    if kind == "input_audio":
        audio = part["input_audio"]
        return _binary(f"data:audio/{audio['format']};base64,{audio['data']}")
    data = part["file"].get("file_data")
    if not data:
        raise InvalidRequest(
            "Invalid value: this agent takes files by their content; send 'file_data'.",
            param="messages",
            code="invalid_value",
        )
    return _binary(data)


def _image(image: dict[str, Any]) -> UserContent:
    detail = {"detail": image["detail"]} if image.get("detail") else None
    url = image["url"]
    if url.startswith("data:"):
        return _binary(url, detail)
    return ImageUrl(url, vendor_metadata=detail)


def _binary(url: str, details: dict[str, Any] | None = None) -> BinaryContent:
    content = BinaryContent.from_data_uri(url)
    content.vendor_metadata = details
    return content
