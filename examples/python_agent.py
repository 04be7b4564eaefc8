"""An agent without a model: it answers from a list, as a switchboard would.

    edwin gateway --config examples/python_agent.yaml

Whoever asks for a person gets a number; whoever asks for nobody known gets the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from edwin.agents import AgentContext

NUMBERS = {"Ada": "1815", "Grace": "1906", "Alan": "1912"}


async def switchboard(
    messages: list[dict[str, Any]], context: AgentContext
) -> AsyncIterator[str]:
    """Answer the last message, word by word."""
    asked = text(messages[-1])
    found = {name: number for name, number in NUMBERS.items() if name in asked}
    if not found:
        yield f"I know {', '.join(NUMBERS)}. Whom would you like to speak to?"
    for name, number in found.items():
        yield f"{name} has "
        await asyncio.sleep(0)  # where another agent would wait for something
        yield f"the number {number}. "


def text(message: dict[str, Any]) -> str:
    """Return the text of *message*, whose content may come in parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
