"""What the model is to read, for every way in which clients send conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edwin.errors import InvalidRequest
from edwin.sessions.canonical import digest
from edwin.sessions.reconcile import alone, plan
from edwin.types import Entry, Message, Transcript

Run = tuple[Sequence[Message], Sequence[Message]]


def u(text: str) -> Message:
    return {"role": "user", "content": text}


def a(text: str, *calls: str) -> Message:
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for id in calls
        ]
    return message


def t(id: str, text: str = "done") -> Message:
    return {"role": "tool", "tool_call_id": id, "content": text}


def s(text: str) -> Message:
    return {"role": "system", "content": text}


def stored(*runs: Run, state: str = "finished", delivered: bool = True) -> Transcript:
    """Return the transcript of *runs*, each (what the client sent, what came out)."""
    entries: list[Entry] = []
    for number, (sent, made) in enumerate(runs):
        for message, own in [*((m, False) for m in sent), *((m, True) for m in made)]:
            entries.append(
                Entry(len(entries) + 1, f"r{number}", message, own, digest(message))
            )
    return Transcript(tuple(entries), len(entries), state, delivered)


def brief(message: Message) -> str:
    calls = ",".join(call["id"] for call in message.get("tool_calls", ()))
    mark = message.get("tool_call_id") or message["content"] or ""
    return f"{message['role'][0]}:{mark}" + (f"({calls})" if calls else "")


def outcome(transcript: Transcript, messages: Sequence[Message], **options: Any):
    """Return (context, appended, superseded numbers)."""
    decided = plan(transcript, messages, **options)
    history = [entry.message for entry in decided.history]
    context = [*decided.lead, *history, *decided.messages]
    return (
        [brief(m) for m in context],
        [brief(m) for m in decided.append],
        list(decided.supersede),
    )


go, ok, hi = u("go"), a("ok"), a("hi")
ONE = ([u("1")], [ok])
TWO = ([u("2")], [ok])

TABLE = {
    "the first turn": (stored(), [go], ["u:go"], ["u:go"], []),
    "newest only": (
        stored(ONE),
        [u("2")],
        ["u:1", "a:ok", "u:2"],
        ["u:2"],
        [],
    ),
    "resend all": (
        stored(ONE),
        [u("1"), ok, u("2")],
        ["u:1", "a:ok", "u:2"],
        ["u:2"],
        [],
    ),
    "edit": (
        stored(ONE, TWO),
        [u("1"), ok, u("2b")],
        ["u:1", "a:ok", "u:2b"],
        ["u:2b"],
        [3, 4],
    ),
    "regenerate": (
        stored(ONE, TWO),
        [u("1"), ok, u("2")],
        ["u:1", "a:ok", "u:2"],
        [],
        [4],
    ),
    "regenerate the first turn is the known limit": (
        stored(ONE),
        [u("1")],
        ["u:1", "a:ok", "u:1"],
        ["u:1"],
        [],
    ),
    "dropped old history": (
        stored(ONE, TWO),
        [u("2"), ok, u("3")],
        ["u:2", "a:ok", "u:3"],
        ["u:3"],
        [],
    ),
    "sliding window that begins with an answer": (
        stored(ONE, TWO),
        [ok, u("2"), ok, u("3")],
        ["a:ok", "u:2", "a:ok", "u:3"],
        ["u:3"],
        [],
    ),
    "the last answer and a new message": (
        stored(ONE, TWO),
        [ok, u("3")],
        ["u:1", "a:ok", "u:2", "a:ok", "u:3"],
        ["u:3"],
        [],
    ),
    "prefill": (
        stored(),
        [go, a("Sure, ")],
        ["u:go", "a:Sure, "],
        ["u:go", "a:Sure, "],
        [],
    ),
    "system only": (
        stored(ONE),
        [s("be brief")],
        ["s:be brief", "u:1", "a:ok"],
        [],
        [],
    ),
    "system ahead, newest only": (
        stored(ONE),
        [s("be brief"), u("2"), s("now")],
        ["s:be brief", "u:1", "a:ok", "u:2", "s:now"],
        ["u:2"],
        [],
    ),
    "system where it stands, history carried": (
        stored(ONE),
        [s("x"), u("1"), ok, s("y"), u("2")],
        ["s:x", "u:1", "a:ok", "s:y", "u:2"],
        ["u:2"],
        [],
    ),
    "lone tool result": (
        stored(([go], [a("", "c1")])),
        [t("c1")],
        ["u:go", "a:(c1)", "t:c1"],
        ["t:c1"],
        [],
    ),
    "one tool result of two, the other came before": (
        stored(([go], [a("", "c1", "c2")]), ([t("c1")], []), state="cancelled"),
        [t("c2")],
        ["u:go", "a:(c1,c2)", "t:c1", "t:c2"],
        ["t:c2"],
        [],
    ),
    "abandoned tool call": (
        stored(([go], [a("", "c1")])),
        [u("never mind")],
        ["u:go", "a:(c1)", "u:never mind"],
        ["u:never mind"],
        [],
    ),
    "retry after a cancelled run": (
        stored(ONE, ([go], [a("par")]), state="cancelled"),
        [go],
        ["u:1", "a:ok", "u:go"],
        ["u:go"],
        [3, 4],
    ),
    "retry after a cancelled run with tool results": (
        stored(
            ([u("1")], [a("", "c1", "c2")]), ([t("c1"), t("c2")], []), state="cancelled"
        ),
        [t("c1"), t("c2")],
        ["u:1", "a:(c1,c2)", "t:c1", "t:c2"],
        ["t:c1", "t:c2"],
        [3, 4],
    ),
    "a stopped turn, all resent": (
        stored(([go], [ok]), ([go], []), state="cancelled"),
        [go, ok, go],
        ["u:go", "a:ok", "u:go"],
        [],
        [],
    ),
    "an answer the client says first": (
        stored(([hi, u("1")], [hi])),
        [hi, u("1"), hi, u("2")],
        ["a:hi", "u:1", "a:hi", "u:2"],
        ["u:2"],
        [],
    ),
    "two stopped turns, resent": (
        stored(([u("1")], []), ([u("2")], []), state="cancelled"),
        [u("1"), u("2"), u("3")],
        ["u:1", "u:2", "u:3"],
        ["u:3"],
        [],
    ),
    "the same turn twice, the second edited": (
        stored(([go], [ok]), ([go], [ok])),
        [go, ok, u("new")],
        ["u:go", "a:ok", "u:new"],
        ["u:new"],
        [3, 4],
    ),
    "nothing in common": (
        stored(ONE),
        [u("x"), a("y"), u("z")],
        ["u:x", "a:y", "u:z"],
        ["u:x", "a:y", "u:z"],
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_reconcile_table(name):
    """Every way of sending a conversation gives the context it should."""
    transcript, messages, context, appended, superseded = TABLE[name]
    assert outcome(transcript, messages) == (context, appended, superseded)


def test_reconcile_retry_of_a_lost_answer():
    """A call repeated because its answer was lost replaces it."""
    lost = stored(ONE, TWO, delivered=False)
    expected = (["u:1", "a:ok", "u:2"], ["u:2"], [3, 4])
    assert outcome(lost, [u("2")], retry=True) == expected


@pytest.mark.parametrize(("retry", "delivered"), [(False, False), (True, True)])
def test_reconcile_repetition_is_not_a_retry(retry, delivered):
    """Saying the same again is a new message, unless the client's SDK retries."""
    transcript = stored(ONE, delivered=delivered)
    context, appended, superseded = outcome(transcript, [u("1")], retry=retry)
    assert (context, appended, superseded) == (["u:1", "a:ok", "u:1"], ["u:1"], [])


def test_reconcile_own_tools_between_the_clients_turns():
    """What Edwin's own tools did comes back into a history that the client resends."""
    transcript = stored(([u("1")], [a("Let me see. ", "o1"), t("o1"), a("It is 4.")]))
    context, appended, superseded = outcome(
        transcript, [u("1"), a("Let me see. It is 4."), u("2")]
    )
    assert context == ["u:1", "a:Let me see. (o1)", "t:o1", "a:It is 4.", "u:2"]
    assert (appended, superseded) == (["u:2"], [])


def test_reconcile_own_and_client_calls_in_one_turn():
    """A client's tool results follow the turn in which Edwin's own tools ran too."""
    transcript = stored(([u("1")], [a("", "own", "c1"), t("own")]))
    sent = [u("1"), a("", "c1"), t("c1")]
    context, appended, _ = outcome(transcript, sent)
    assert context == ["u:1", "a:(own,c1)", "t:own", "t:c1"]
    assert appended == ["t:c1"]
    assert outcome(transcript, [t("c1")])[0] == context


def test_reconcile_own_tools_of_a_silent_cancelled_run():
    """Tool activity that left nothing to see does not hide the message before it."""
    transcript = stored(([u("1")], [a("", "o1"), t("o1")]), state="cancelled")
    context, appended, _ = outcome(transcript, [u("1"), u("2")])
    assert context == ["u:1", "a:(o1)", "t:o1", "u:2"]
    assert appended == ["u:2"]


@pytest.mark.parametrize(
    ("transcript", "messages", "param"),
    [
        (stored(), [t("c1")], "messages[0].tool_call_id"),
        (stored(ONE), [s("x"), t("c1")], "messages[1].tool_call_id"),
        (stored(([go], [a("", "c1")]), ONE), [t("c1")], "messages[0].tool_call_id"),
        (
            stored(([go], [a("", "c1")])),
            [t("c1"), t("c2")],
            "messages[1].tool_call_id",
        ),
        (stored(), [go, a("", "c1"), t("c2")], "messages[2].tool_call_id"),
        (stored(ONE), [u("2"), t("c9")], "messages[1].tool_call_id"),
        (
            stored(([go], [a("", "c1")])),
            [t("c1"), a("fine"), u("2")],
            "messages[0].tool_call_id",
        ),
    ],
)
def test_reconcile_refuses_an_answer_to_no_call(transcript, messages, param):
    """A tool message that answers no call before it is the request's fault."""
    with pytest.raises(InvalidRequest) as caught:
        plan(transcript, messages)
    assert caught.value.param == param


def test_reconcile_alone_refuses_an_answer_to_no_call():
    """So it is in a request without a session."""
    alone([go, a("", "c1"), t("c1")])
    with pytest.raises(InvalidRequest) as caught:
        alone([go, t("c1")])
    assert caught.value.param == "messages[1].tool_call_id"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (u("x"), {"role": "user", "content": [{"type": "text", "text": "x"}]}),
        (a(""), {"role": "assistant", "content": None}),
        (a("x"), {"role": "assistant", "content": "x", "refusal": None}),
        (
            a("", "c1"),
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{ }"},
                    }
                ],
            },
        ),
    ],
)
def test_reconcile_equal_messages(one, other):
    """The same content in another shape is the same message."""
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (u("x"), u("x ")),
        (u("x"), a("x")),
        (t("1", "x"), t("2", "x")),
        (a("", "c1"), a("", "c2")),
        (u("x"), {"role": "user", "content": "x", "name": "y"}),
    ],
)
def test_reconcile_different_messages(one, other):
    """Role, text, name, call ids and arguments tell messages apart."""
    assert digest(one) != digest(other)
