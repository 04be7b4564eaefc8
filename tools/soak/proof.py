"""What a crash may not do to a session: lose, repeat or reorder; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.soak.script import NOBODY, Prompt, read


@dataclass
class Turn:
    """One call of a client, sent again until something came of it.

    Attributes:
        prompt: What it asks; its name is the idempotency key too.
        group: Turns of one group were sent side by side; a group begins when the one
            before it has ended.
        kind: ``whole``, ``streamed`` or ``detached``.
        accepted: Whether the client got a head: 200 or 202.
        text: The answer that the client saw whole, or None.
        interrupted: How often it was told that the run was lost.

    """

    prompt: Prompt
    group: int
    kind: str
    accepted: bool = False
    text: str | None = None
    interrupted: int = 0

    @property
    def name(self) -> str:
        """The name of its prompt."""
        return self.prompt.name


def faults(
    turns: Sequence[Turn], lines: Sequence[Mapping[str, Any]], calls: Counter[str]
) -> Iterator[str]:
    """Yield what is wrong with a session after crashes, in words.

    Args:
        turns: What its client sent, in order.
        lines: All of its messages, as the session API shows them, superseded ones too.
        calls: How often the provider got each prompt.

    """
    seqs = [line["seq"] for line in lines]
    if seqs != sorted(set(seqs)):
        yield f"the transcript's numbers do not rise: {seqs}"
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if not line["own"]:
            name = read(line["message"]["content"]).name
            asked.setdefault(name, []).append(line)
    for turn in turns:
        yield from alone_faults(turn, calls[turn.name])
        yield from _message_faults(turn, asked.get(turn.name, []))
        if turn.text is not None:
            yield from _answer_faults(turn, asked.get(turn.name, []), lines)
    for name in asked.keys() - {turn.name for turn in turns}:
        yield f"{name} is in the transcript, and nobody sent it here"
    yield from _order_faults(turns, asked)


def alone_faults(turn: Turn, calls: int) -> Iterator[str]:
    """Yield what is wrong with a turn, whether it was part of a session or not.

    Args:
        turn: What the client sent.
        calls: How often the provider got it.

    """
    if calls > 1:
        yield f"{turn.name} was generated {calls} times"
    if turn.text is not None and not calls:
        yield f"{turn.name} was answered, and the provider never saw it"
    if turn.text is not None and turn.interrupted:
        yield f"{turn.name} was answered, and said to be lost"


def _message_faults(turn: Turn, asked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if turn.accepted and not asked:
        yield f"{turn.name} was accepted, and is not in the transcript"
    if len(asked) > 1:
        yield f"{turn.name} is in the transcript {len(asked)} times"


def _answer_faults(
    turn: Turn, asked: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    same = [
        line
        for line in lines
        if line["own"] and line["message"].get("content") == turn.text
    ]
    if len(same) != 1:
        yield f"the answer to {turn.name} is in the transcript {len(same)} times"
        return
    (answer,) = same
    if not answer["current"]:
        yield f"the answer to {turn.name} is no part of the transcript any more"
    for line in asked:
        if line["run_id"] != answer["run_id"] or line["seq"] > answer["seq"]:
            yield f"the answer to {turn.name} does not stand behind it"
        if not line["current"]:
            yield f"{turn.name} was answered, and is no part of the transcript"


def _order_faults(
    turns: Sequence[Turn], asked: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    answered = [turn for turn in turns if turn.text is not None]
    groups = {turn.name: turn.group for turn in turns}
    last = (0, -1)
    for turn in sorted(
        (turn for turn in answered if asked.get(turn.name)),
        key=lambda turn: int(asked[turn.name][0]["seq"]),
    ):
        place = turn.group, int(asked[turn.name][0]["seq"])
        if place[0] < last[0]:
            yield f"{turn.name} stands behind what was asked later"
        last = place
    for turn in answered:
        assert turn.text is not None
        before = turn.text.split(" after ", 1)[1].partition(":")[0]
        read_until = -1 if before == NOBODY else groups.get(before, -2)
        known = max((t.group for t in answered if t.group < turn.group), default=-1)
        if not known <= read_until <= turn.group:
            yield f"the model read {before} before {turn.name}, out of its turn"
