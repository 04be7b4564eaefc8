"""A Python function that an agent's model can call.

    OPENAI_API_KEY=… edwin gateway --config examples/python_tool.yaml

What the model is told of it comes from the signature and the docstring.
"""

from __future__ import annotations

from typing import Literal

from edwin.tools import ToolContext, ToolFailed

TABLES = {"window": 2, "garden": 4}


def reserve_table(
    place: Literal["window", "garden"], people: int, context: ToolContext
) -> str:
    """Reserve a table for tonight.

    Args:
        place: Where the table stands.
        people: How many will sit at it.

    """
    if people > TABLES[place]:
        # The model reads this, and can offer something else.
        raise ToolFailed(f"the table at the {place} has {TABLES[place]} chairs")
    return f"reserved at the {place} for {people}, under {context.principal_id}"
