"""What a client asks and the provider answers, so that both know what is right; pure.

A prompt says its own name and how it is to be answered; the answer says whose it is,
and after which prompt the model read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOBODY = "-"
"""What an answer comes after when the model read one prompt alone."""


class Prompt(NamedTuple):
    """One user message.

    Attributes:
        name: No other prompt has it; without blanks.
        deltas: In how many pieces it is answered.
        gap_ms: Milliseconds between two of them.

    """

    name: str
    deltas: int = 8
    gap_ms: int = 0

    @property
    def text(self) -> str:
        """The message's content."""
        return f"{self.name} {self.deltas} {self.gap_ms}"

    def pieces(self, before: str) -> list[str]:
        """Return the answer, piece by piece, to a model that read *before* first."""
        head = f"{self.name} after {before}:"
        return [head, *(f" piece-{number:04d}" for number in range(1, self.deltas))]

    def answer(self, before: str) -> str:
        """Return the whole answer to a model that read *before* first."""
        return "".join(self.pieces(before))


def read(text: str) -> Prompt:
    """Return the prompt that *text* is."""
    name, deltas, gap_ms = text.split()
    return Prompt(name, int(deltas), int(gap_ms))


def asked(messages: Sequence[Mapping[str, Any]]) -> tuple[Prompt, str]:
    """Return what a model that reads *messages* is asked, and what before that."""
    prompts = [read(m["content"]) for m in messages if m["role"] == "user"]
    return prompts[-1], prompts[-2].name if len(prompts) > 1 else NOBODY
