"""An answer that never ends."""

from __future__ import annotations

import pytest

from edwin.errors import ProviderStreamError
from edwin.executor.turn import MAX_CHARACTERS, TurnBuilder
from edwin.types import ReasoningDelta, TextDelta, ToolCallDelta


@pytest.mark.parametrize(
    "delta",
    [TextDelta, ReasoningDelta, lambda text: ToolCallDelta(0, "c", "f", text)],
    ids=["text", "reasoning", "call"],
)
def test_turn_that_never_ends(delta):
    """A provider that goes on past what any model writes is cut off."""
    turn = TurnBuilder()
    piece = "x" * (MAX_CHARACTERS // 4)
    for _ in range(4):
        turn.add(delta(piece))
    with pytest.raises(ProviderStreamError, match="characters"):
        turn.add(delta("x"))
