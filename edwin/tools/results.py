"""What a tool gives, as the text that the model reads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from typing import Final

from edwin.tools.base import ToolFailed

MAX_RESULT_BYTES: Final = 1024 * 1024
"""More than most models can read; one that is larger is a failure, and never cut."""


def result_text(value: object) -> str:
    """Return *value*, what a function gave, as text.

    Text stays as it is; everything else is JSON: dataclasses, Pydantic's models, dates
    and their like as Pydantic writes them, and what it does not know as ``str`` says.

    Raises:
        ToolFailed: If it can only be iterated, or is too large.

    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return fitting(value)
    if isinstance(value, Iterator | AsyncIterator):
        raise ToolFailed(
            f"the result is a {type(value).__name__}, which has no text; "
            "the tool has to give all of it at once"
        )
    from pydantic_core import to_json

    try:
        text = to_json(value, fallback=str).decode()
    except ValueError:
        # It holds itself, or bytes or text that are no Unicode.
        text = str(value)
    return fitting(text)


def fitting(text: str) -> str:
    """Return *text* such that every provider takes it as a tool's result.

    It is valid Unicode, and not blank: blank text is given in quotes.

    Raises:
        ToolFailed: If it has more than ``MAX_RESULT_BYTES``.

    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        # Two halves that belong together become one character.
        halves = text.encode("utf-16", "surrogatepass")
        text = halves.decode("utf-16", "replace")
        size = len(text.encode())
    if size > MAX_RESULT_BYTES:
        raise ToolFailed(
            f"the result has {size} bytes, more than the {MAX_RESULT_BYTES} that a "
            "result may have; ask for less"
        )
    return text if text.strip() else json.dumps(text)
