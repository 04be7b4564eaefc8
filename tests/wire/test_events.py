"""A run's events on the wire: one shape for the page and the socket."""

from __future__ import annotations

import json
import typing

import pytest

from edwin.errors import InvalidRequest, RunCancelled
from edwin.types import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    RunFailed,
    RunFinished,
    RunQueued,
    RunStarted,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from edwin.validate import Schemas, oracle, retrieve
from edwin.wire import cursors, events

SCHEMAS = Schemas()
RUN = "run_0123456789abcdef0123456789abcdef"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CANCELLED = {
    "message": "stopped",
    "type": "server_error",
    "param": None,
    "code": "run_cancelled",
}
HELLO = {"role": "assistant", "content": "Hello"}
TOLD = [
    (RunQueued(2), "run.queued", {"position": 2}),
    (RunStarted(), "run.started", {}),
    (TextDelta("Hé", {"content": []}), "text.delta", {"text": "Hé"}),
    (RefusalDelta("No."), "refusal.delta", {"text": "No."}),
    (ReasoningDelta("Hm."), "reasoning.delta", {"text": "Hm."}),
    (
        ToolCallDelta(1, "c", "f", ""),
        "tool_call.delta",
        {"index": 1, "id": "c", "name": "f", "arguments": ""},
    ),
    (
        ToolCallDelta(1, None, None, "{}"),
        "tool_call.delta",
        {"index": 1, "id": None, "name": None, "arguments": "{}"},
    ),
    (
        ToolStarted("c", "f", '{"é":1}'),
        "tool.started",
        {"call_id": "c", "name": "f", "arguments": '{"é":1}'},
    ),
    (
        ToolFinished("c", "f", "no such file", "Error: no such file é"),
        "tool.finished",
        {
            "call_id": "c",
            "name": "f",
            "error": "no such file",
            "result": "Error: no such file é",
        },
    ),
    (
        ToolFinished("c", "f", None, "12:30"),
        "tool.finished",
        {"call_id": "c", "name": "f", "error": None, "result": "12:30"},
    ),
    (
        TurnFinished("stop", Usage(3, 2), HELLO),
        "turn.finished",
        {"finish_reason": "stop", "usage": COUNTS},
    ),
    (
        TurnFinished("tool_calls"),
        "turn.finished",
        {"finish_reason": "tool_calls", "usage": None},
    ),
    (
        RunFinished(HELLO, "stop", Usage(3, 2)),
        "run.finished",
        {"message": HELLO, "finish_reason": "stop", "usage": COUNTS},
    ),
    (
        RunFinished({"role": "assistant", "tool_calls": [CALL]}, "tool_calls", Usage()),
        "run.finished",
        {
            "message": {"role": "assistant", "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
            "usage": dict.fromkeys(COUNTS, 0),
        },
    ),
    (
        RunFinished({}, "stop", Usage(3, 2)),
        "run.finished",
        {"message": None, "finish_reason": "stop", "usage": COUNTS},
    ),
    (RunFailed(RunCancelled("stopped")), "run.failed", {"error": CANCELLED}),
]


@pytest.mark.parametrize(("event", "name", "payload"), TOLD, ids=lambda v: str(v)[:40])
def test_events_documents(event, name, payload):
    """Each event has one name and one payload, and fits both schemas."""
    document = events.document(event, run_id=RUN, number=7)
    assert document == {
        "type": "event",
        "event": name,
        "run": RUN,
        "seq": 7,
        "payload": payload,
    }
    for schema in ("runs/event", "ws/event"):
        SCHEMAS.check(schema, document)


def test_events_are_all_told():
    """There is a row above for every event of a run, and for every name."""
    assert {type(event) for event, _, _ in TOLD} == set(typing.get_args(Event))
    names = retrieve("edwin:runs/event")["properties"]["event"]["enum"]
    assert {name for _, name, _ in TOLD} | {"events.gap"} == set(names)


def test_events_gap():
    """What is missing is told, with the number of the last event that is."""
    document = events.gap(run_id=RUN, after=3, upto=40)
    assert (document["event"], document["seq"]) == ("events.gap", 40)
    assert document["payload"] == {"after": 3, "upto": 40}
    SCHEMAS.check("runs/event", document)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"payload": {}}, "payload.text"),
        ({"payload": {"text": 1}}, "payload.text"),
        ({"payload": {"text": "x", "more": 1}}, "payload.more"),
        ({"event": "text.other"}, "event"),
        ({"run": None}, "run"),
        ({"seq": 0}, "seq"),
    ],
)
def test_events_schema_refuses(change, where):
    """The schema knows the payload of each event by its name."""
    document = events.document(TextDelta("x"), run_id=RUN, number=1) | change
    assert not oracle("runs/event").is_valid(document)
    with pytest.raises(InvalidRequest) as refused:
        SCHEMAS.check("runs/event", document)
    assert refused.value.param == where


def test_events_lines():
    """On the page the id is the event's number, and one line holds the document."""
    text = "a\nb\u2028c"
    document = events.document(TextDelta(text), run_id=RUN, number=12)
    lines = events.line(document).decode().splitlines()
    assert lines[0] == "id: 12"
    assert json.loads(lines[1].removeprefix("data: ")) == document
    assert lines[2:] == [""]


@pytest.mark.parametrize("at", [0.0, 1780000000.0, 1780000000.1234567, 5e-324])
def test_cursors_give_back_the_place(at):
    """A cursor is the place it was made of, to the last bit, and safe in a URL."""
    for name in ("", RUN, "key with\0all/sorts+of?ü"):
        cursor = cursors.write(at, name)
        assert cursors.read(cursor) == (at, name)
        assert set(cursor) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        )


@pytest.mark.parametrize(
    "cursor",
    ["x", "ü", "=", "!!!!", "AAAA", "e30", "W10", "WzEuMF0", "WzEsMl0", "WzEsIngiXQ"],
)
def test_cursors_refuse_what_is_none(cursor):
    """Anything else is refused, and says where."""
    with pytest.raises(InvalidRequest) as refused:
        cursors.read(cursor)
    assert (refused.value.param, refused.value.code) == ("after", "invalid_value")
