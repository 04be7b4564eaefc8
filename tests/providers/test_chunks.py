"""Chunks of OpenAI and of those who imitate it, as deltas."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edwin.providers.chunks import AnswerDecoder, ErrorAnswer, MalformedAnswer
from edwin.types import (
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

LOGPROBS = {"content": [{"token": "a", "logprob": -1.0}]}
SCALARS = st.sampled_from([None, True, 0, 1, "", "a", "text", "thinking"])
VALUES = SCALARS | st.lists(SCALARS, max_size=1) | st.just({"content": 1})


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields) | VALUES


PARTS = objects(type=SCALARS, text=VALUES, thinking=st.lists(objects(text=VALUES)))
PIECES = objects(
    index=VALUES, id=VALUES, function=objects(name=VALUES, arguments=VALUES)
)
MESSAGES = objects(
    content=VALUES | st.lists(PARTS),
    reasoning=VALUES,
    reasoning_details=st.lists(PARTS) | VALUES,
    refusal=VALUES,
    tool_calls=st.lists(PIECES),
    function_call=VALUES,
)
CHOICES = objects(index=SCALARS, delta=MESSAGES, logprobs=VALUES, finish_reason=SCALARS)


def decoder() -> AnswerDecoder:
    ids = itertools.count(1)
    return AnswerDecoder(lambda: f"made-{next(ids)}")


def chunk(delta: Any = None, **choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, **choice}]}).encode()


def decode(*events: bytes) -> list[Any]:
    answer = decoder()
    deltas = [delta for event in events for delta in answer.feed(event)]
    return [*deltas, answer.finish()]


def tools(*pieces: dict[str, Any]) -> list[Any]:
    return decode(*(chunk({"tool_calls": [piece]}) for piece in pieces))[:-1]


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"role": "assistant", "content": ""}, []),
        ({"content": None}, []),
        ({}, []),
        (None, []),
        ({"content": "a"}, [TextDelta("a")]),
        ({"refusal": "no"}, [RefusalDelta("no")]),
        ({"reasoning_content": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning": "hm", "content": "a"}, [ReasoningDelta("hm"), TextDelta("a")]),
        ({"reasoning": {"odd": 1}, "content": "a"}, [TextDelta("a")]),
        (
            {"reasoning": None, "reasoning_details": [{"text": "h"}, {"summary": "m"}]},
            [ReasoningDelta("hm")],
        ),
        (
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
            [],
        ),
        ({"reasoning_details": "odd", "content": "a"}, [TextDelta("a")]),
        (
            {"content": [{"type": "thinking", "thinking": "hm"}]},
            [ReasoningDelta("hm")],
        ),
        ({"content": [{"type": "thinking", "thinking": []}]}, []),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                    {"type": "reference", "reference_ids": [1]},
                ]
            },
            [ReasoningDelta("hm"), TextDelta("a")],
        ),
    ],
)
def test_chunks_give_deltas(delta, expected):
    """Text, refusal and reasoning are told apart; what is empty is no delta."""
    assert decoder().feed(chunk(delta)) == expected


def test_chunks_keep_logprobs():
    """Log probabilities stay with their text, with half a character's none too."""
    assert decoder().feed(chunk({"content": "a"}, logprobs=LOGPROBS)) == [
        TextDelta("a", LOGPROBS)
    ]
    assert decoder().feed(chunk({"content": ""}, logprobs=LOGPROBS)) == [
        TextDelta("", LOGPROBS)
    ]
    assert decoder().feed(chunk({"content": ""}, logprobs={"content": []})) == []


def test_chunks_ignore_other_choices():
    """Only the first choice is the answer."""
    other = {"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}
    first = {"index": 0, "delta": {"content": "a"}}
    unnumbered = {"delta": {"content": "c"}, "finish_reason": "stop"}
    event = json.dumps({"choices": [other, first, unnumbered]}).encode()
    assert decode(event) == [TextDelta("a"), TextDelta("c"), TurnFinished("stop")]


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("anything", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        # Nothing was called.
        ("tool_calls", "stop"),
        ("tool_use", "stop"),
        ("function_call", "stop"),
    ],
)
def test_chunks_translate_finish_reasons(said, understood):
    """Other words for the end of an answer become one of OpenAI's five."""
    assert decode(chunk({}, finish_reason=said)) == [TurnFinished(understood)]


def test_chunks_finish_with_tool_calls():
    """An answer that calls tools ends with ``tool_calls``, but not when cut short."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    calling = chunk({"tool_calls": [call]})
    for said in ("stop", "tool_calls", "tool_use", "function_call"):
        end = decode(calling, chunk({}, finish_reason=said))[-1]
        assert end.finish_reason == "tool_calls"
    length = chunk({}, finish_reason="length")
    assert decode(calling, length)[-1].finish_reason == "length"
    assert decode(calling, b"[DONE]")[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("end", [b"[DONE]", chunk({}, finish_reason="stop")])
@pytest.mark.parametrize("arguments", [None, ""])
def test_chunks_give_a_tool_call_arguments(arguments, end):
    """A call that ends without arguments gets ``{}``, once; one cut off does not."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}
    calling = chunk({"tool_calls": [call]})
    begun = ToolCallDelta(0, "c", "f", "")
    filled = [begun, ToolCallDelta(0, None, None, "{}"), TurnFinished("tool_calls")]
    assert decode(calling, end) == filled
    assert decode(calling, chunk({}, finish_reason="stop"), end) == filled
    length = chunk({}, finish_reason="length")
    assert decode(calling, length) == [begun, TurnFinished("length")]


@pytest.mark.parametrize(
    ("events", "complete"),
    [
        ([chunk({"content": "a"})], False),
        ([chunk({"content": "a"}), b"[DONE]"], True),
        ([chunk({}, finish_reason="stop")], True),
        ([chunk({"content": ""}), b"[DONE]"], False),
        ([b"[DONE]"], False),
    ],
)
def test_chunks_know_when_an_answer_is_complete(events, complete):
    """A finish reason completes an answer, and so does ``[DONE]`` after a delta."""
    answer = decoder()
    for event in events:
        answer.feed(event)
    assert answer.complete is complete


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 5,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(7, 5, 3, 2),
        ),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, Usage(7)),
        ({"prompt_tokens": 7, "completion_tokens": "many"}, Usage(7)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": -1}, None),
        # Thinking that only the total has.
        (
            {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 40},
            Usage(7, 33),
        ),
        ("none", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("choices", [[], [{"delta": {"content": "a"}}]])
def test_chunks_read_usage(usage, expected, choices):
    """Usage is read from whatever chunk has it; zeros count as none."""
    event = json.dumps({"choices": choices, "usage": usage}).encode()
    assert decode(event, chunk({}, finish_reason="stop"))[-1].usage == expected


def test_chunks_take_the_last_usage():
    """Where each chunk has a usage, the last one is the answer's."""
    events = (
        json.dumps({"choices": [], "usage": {"completion_tokens": n}}).encode()
        for n in (1, 2, 3)
    )
    assert decode(*events)[-1].usage == Usage(0, 3)


def test_chunks_stream_tool_calls():
    """Id and name come with a call's first piece, its arguments in the following."""
    assert tools(
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
    ) == [
        ToolCallDelta(0, "a", "f", ""),
        ToolCallDelta(0, None, None, '{"x"'),
        ToolCallDelta(0, None, None, ": 1}"),
        ToolCallDelta(1, "b", "g", "{}"),
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                {"id": "a", "function": {"name": "f", "arguments": "{"}},
                {"function": {"arguments": "}"}},
                {"id": "b", "function": {"name": "g", "arguments": "[]"}},
            ],
            id="no index",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "a", "function": {"arguments": "}"}},
                {"index": 0, "id": "b", "function": {"name": "g", "arguments": "[]"}},
            ],
            id="every index 0",
        ),
        pytest.param(
            [
                {"index": 1, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 1, "id": "x", "function": {"name": None, "arguments": "}"}},
                {"index": 2, "id": "b", "function": {"name": "g", "arguments": "[]"}},
            ],
            id="from 1, and a new id in each piece",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}},
                {"index": 1, "id": "b", "function": {"name": "g", "arguments": []}},
            ],
            id="the name in each piece, arguments that are no string",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"function": {"arguments": "}"}},
                {"extra_content": {"google": {}}},
                {"index": 0, "id": "b", "function": {"name": "g", "arguments": "[]"}},
            ],
            id="no index in later pieces, metadata in between",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "", "function": {"name": "", "arguments": "}"}},
                {"index": 0, "id": "b", "function": {"name": "g", "arguments": "[]"}},
            ],
            id="empty id and name in later pieces",
        ),
    ],
)
def test_chunks_tell_tool_calls_apart(pieces):
    """However a provider numbers its calls, they come out as 0, 1, 2."""
    assert tools(*pieces) == [
        ToolCallDelta(0, "a", "f", "{"),
        ToolCallDelta(0, None, None, "}"),
        ToolCallDelta(1, "b", "g", "[]"),
    ]


def test_chunks_give_tool_calls_an_id():
    """A call that comes without an id gets one; a name without one is a new call."""
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    found = [
        ToolCallDelta(0, "made-1", "f", '{"x":1}'),
        ToolCallDelta(1, "made-2", "f", '{"x":1}'),
    ]
    assert tools(call, call) == found
    assert tools(call | {"index": 0}, call | {"index": 0}) == found


@pytest.mark.parametrize("id", [None, "a"])
def test_chunks_take_a_name_said_again_for_the_same_call(id):
    """Until its arguments are whole, a name that comes again begins no call."""
    piece = {"index": 0, "id": id}
    found = tools(
        piece | {"function": {"name": "f", "arguments": '{"x"'}},
        piece | {"function": {"name": "f", "arguments": ":{}}"}},
        piece | {"function": {"name": "f", "arguments": ""}},
        piece | {"function": {"name": "f", "arguments": "{}"}},
    )
    assert [(delta.index, delta.arguments) for delta in found] == [
        (0, '{"x"'),
        (0, ":{}}"),
        (1, "{}"),
    ]


def test_chunks_do_not_take_a_brace_for_an_end():
    """What looks like whole arguments may go on, and what looks like new ones."""
    pieces = ['{"s":', '{"t": "}', '{"}', "}"]
    found = tools(*({"function": {"name": "f", "arguments": p}} for p in pieces))
    assert [(delta.index, delta.arguments) for delta in found] == [
        (0, piece) for piece in pieces
    ]


@pytest.mark.parametrize("key", ["delta", "message"])
def test_chunks_read_the_form_before_tool_calls(key):
    """A ``function_call`` is a tool call, unless the same is there as one."""
    legacy = {"name": "f", "arguments": "{}"}
    call = {"index": 0, "id": "a", "function": legacy}
    for calls, id in (([], "made-1"), ([call], "a")):
        message = {"function_call": legacy, "tool_calls": calls}
        event = json.dumps({"choices": [{key: message, "finish_reason": "stop"}]})
        assert decode(event.encode()) == [
            ToolCallDelta(0, id, "f", "{}"),
            TurnFinished("tool_calls"),
        ]


def test_chunks_hold_a_tool_call_until_its_name():
    """A call whose name comes late begins with it, and loses nothing."""
    assert tools(
        {"index": 0, "id": "a", "function": {"arguments": '{"x"'}},
        {"index": 0, "function": {"name": "f", "arguments": ":1}"}},
    ) == [ToolCallDelta(0, "a", "f", '{"x":1}')]


def test_chunks_refuse_a_tool_call_without_a_name():
    """A call that never gets a name makes the answer unreadable."""
    with pytest.raises(MalformedAnswer, match="no name"):
        tools({"index": 0, "id": "a", "function": {"arguments": "{}"}})


def test_chunks_read_a_whole_answer():
    """A whole chat completion gives the same deltas in one go."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hi", "refusal": None}
    choice = {
        "index": 0,
        "message": message | {"tool_calls": [call, call | {"id": "b"}]},
        "logprobs": LOGPROBS,
        "finish_reason": "tool_calls",
    }
    document = {"object": "chat.completion", "choices": [choice]}
    document["usage"] = {"prompt_tokens": 1, "completion_tokens": 2}
    assert decode(json.dumps(document).encode()) == [
        TextDelta("hi", LOGPROBS),
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "f", "{}"),
        TurnFinished("tool_calls", Usage(1, 2)),
    ]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (
            {"error": {"code": 502}, "choices": [{"finish_reason": "error"}]},
            {"code": 502},
        ),
        ({"error": "sorry"}, "sorry"),
        ({"object": "error", "code": 1}, {"object": "error", "code": 1}),
        ({"error": {"error": {"code": 502}}}, {"code": 502}),
        ({"type": "error", "message": "m"}, {"type": "error", "message": "m"}),
        (
            {"error_type": "t", "error_message": "m"},
            {"type": "t", "message": "m"},
        ),
        (
            {"choices": [{"finish_reason": "error", "error": {"code": 5}}]},
            {"code": 5},
        ),
        (
            {"choices": [{"delta": {}, "finish_reason": "ABORT"}]},
            {"code": 502, "message": "the finish reason is ABORT"},
        ),
    ],
)
def test_chunks_recognise_errors(event, error):
    """An error object in place of a chunk, or in one, is an error."""
    with pytest.raises(ErrorAnswer) as caught:
        decoder().feed(json.dumps(event).encode())
    assert caught.value.error == error


@pytest.mark.parametrize(
    "event", [{}, {"error": None}, {"choices": None}, {"type": "x"}]
)
def test_chunks_skip_what_says_nothing(event):
    """An object without choices is passed over."""
    assert decoder().feed(json.dumps(event).encode()) == []


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b"nonsense",
        b"\xff",
        b"42",
        b"[]",
        b'{"choices": "abc"}',
        b'{"choices": [1]}',
        chunk("text"),
        chunk({"content": 5}),
        chunk({"content": {"text": "a"}}),
        chunk({"tool_calls": [5]}),
        chunk({"tool_calls": [{"index": [], "function": {"name": "f"}}]}),
        chunk({"tool_calls": [{"function": {"name": 5}}]}),
        chunk({}, finish_reason=5),
    ],
)
def test_chunks_refuse_other_shapes(event):
    """What is no chunk is refused, however it is malformed."""
    with pytest.raises(MalformedAnswer):
        decoder().feed(event)


def test_chunks_show_what_cannot_be_read():
    """The log gets the words that came instead of a chunk, a few of them."""
    with pytest.raises(MalformedAnswer, match=r"Internal Server Error x+$") as caught:
        decoder().feed(b"Internal Server Error " + b"x" * 10_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("document", [{"message": {"content": "a"}}, {"response": ""}])
def test_chunks_know_an_answer_of_ollamas_own_api(document):
    """Ollama's other API is told by its ``done``."""
    with pytest.raises(ErrorAnswer) as caught:
        decoder().feed(json.dumps({"model": "m", "done": False} | document).encode())
    assert caught.value.error["code"] == "ollama_native_api"


@pytest.mark.parametrize("event", [b"", b"  ", b"\n"])
def test_chunks_skip_blanks(event):
    """An event of blanks says nothing, and blanks around [DONE] change nothing."""
    answer = decoder()
    assert answer.feed(event) == []
    assert not answer.done
    assert answer.feed(b" [DONE]" + event) == []
    assert answer.done


@given(st.lists(CHOICES, max_size=3))
def test_chunks_survive_any_json(choices):
    """No JSON makes the decoder fail in another way, or give a wrong type."""
    answer = decoder()
    deltas = []
    try:
        for choice in choices:
            deltas += answer.feed(json.dumps({"choices": [choice]}).encode())
        end = answer.finish()
    except (MalformedAnswer, ErrorAnswer):
        return
    assert isinstance(end.finish_reason, str)
    for delta in deltas:
        for field in dataclasses.fields(delta):
            types = get_type_hints(type(delta))[field.name]
            types = dict | None if field.name == "logprobs" else types
            assert isinstance(getattr(delta, field.name), types)
