"""How a run ended, written down and read again."""

from __future__ import annotations

import pytest

from edwin.errors import ProviderStreamError, RunCancelled, envelope
from edwin.runs import outcome
from edwin.types import (
    RefusalDelta,
    RunFailed,
    RunFinished,
    TextDelta,
    ToolCallDelta,
    Usage,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "events"),
    [
        ({"role": "assistant", "content": "hi"}, [TextDelta("hi")]),
        ({"role": "assistant", "content": ""}, []),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            [RefusalDelta("no")],
        ),
        (
            {"role": "assistant", "content": "look", "tool_calls": [CALL, CALL]},
            [
                TextDelta("look"),
                ToolCallDelta(0, "c1", "f", "{}"),
                ToolCallDelta(1, "c1", "f", "{}"),
            ],
        ),
    ],
    ids=["text", "empty", "refusal", "calls"],
)
def test_outcome_of_an_answer(message, events):
    """An answer comes back as it was, and as few events as give it."""
    end = RunFinished(message, "stop", Usage(3, 4))
    again = outcome.read(outcome.write(end), Usage(3, 4))
    assert again == end
    assert outcome.events(again) == [*events, end]


def test_outcome_keeps_logprobs():
    """Log probabilities come back with the text."""
    probs = {"content": [{"token": "hi", "logprob": -0.5}]}
    end = RunFinished({"role": "assistant", "content": "hi"}, "stop", Usage(), probs)
    again = outcome.read(outcome.write(end), Usage())
    assert outcome.events(again)[0] == TextDelta("hi", probs)


@pytest.mark.parametrize(
    "error",
    [ProviderStreamError("broke off"), RunCancelled("stopped")],
    ids=lambda error: type(error).__name__,
)
def test_outcome_of_a_failure(error):
    """An error comes back with status and envelope, and is not to be repeated."""
    again = outcome.read(outcome.write(RunFailed(error)), Usage())
    assert isinstance(again, RunFailed)
    assert (again.error.status, envelope(again.error)) == (
        error.status,
        envelope(error),
    )
    assert again.error.headers["x-should-retry"] == "false"
    # Other errors of the same class are as they were.
    assert type(error)("x").headers == {}
