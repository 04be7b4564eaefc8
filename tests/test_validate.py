"""What a client is told of a bad body: the field, the kind of fault, the words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from edwin.errors import InvalidRequest, envelope
from edwin.validate import MAX_DEPTH, MAX_LISTED, Schemas, main, parse_json
from edwin.violations import dotted

REQUEST = "openai/chat_completion_request"
ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = Schemas()
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TEXT = {"type": "text", "text": "x"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def message(**fields: Any) -> dict[str, Any]:
    """Return a request with one message, which has *fields*."""
    return {"messages": [fields]}


def user(content: Any) -> dict[str, Any]:
    """Return a request with one user message."""
    return message(role="user", content=content)


def called(**fields: Any) -> dict[str, Any]:
    """Return a request whose tool call has *fields* in place of its own."""
    return message(role="assistant", tool_calls=[CALL | fields])


def tool(**fields: Any) -> dict[str, Any]:
    """Return a request whose only tool's function has *fields*."""
    return HELLO | {"tools": [{"type": "function", "function": fields}]}


def refused(name: str, document: Any) -> InvalidRequest:
    """Return the error that *document* is answered with."""
    with pytest.raises(InvalidRequest) as caught:
        SCHEMAS.check(name, document)
    return caught.value


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
LONG, MANY = "string_above_max_length", "array_above_max_length"
BAD: list[tuple[Any, str | None, str]] = [
    ([], None, TYPE),
    ("hi", None, TYPE),
    (None, None, TYPE),
    ({}, "messages", MISSING),
    ({"model": "edwin"}, "messages", MISSING),
    ({"messages": None}, "messages", TYPE),
    ({"messages": "hi"}, "messages", TYPE),
    ({"messages": {}}, "messages", TYPE),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": ["hi"]}, "messages[0]", TYPE),
    ({"messages": [None]}, "messages[0]", TYPE),
    (HELLO | {"model": None}, "model", TYPE),
    (HELLO | {"model": 4}, "model", TYPE),
    (HELLO | {"model": "x" * 513}, "model", LONG),
    (message(content="hi"), "messages[0].role", MISSING),
    (message(role=None, content="hi"), "messages[0].role", TYPE),
    (message(role=1, content="hi"), "messages[0].role", TYPE),
    (message(role="wizard", content="hi"), "messages[0].role", VALUE),
    (message(role="function", name="f", content=""), "messages[0].role", VALUE),
    (message(role="User", content="hi"), "messages[0].role", VALUE),
    (message(role="user"), "messages[0].content", MISSING),
    (message(role="system"), "messages[0].content", MISSING),
    (message(role="developer"), "messages[0].content", MISSING),
    (user(None), "messages[0].content", TYPE),
    (user({}), "messages[0].content", TYPE),
    (user(True), "messages[0].content", TYPE),
    (user([]), "messages[0].content", "empty_array"),
    (user(["hi"]), "messages[0].content[0]", TYPE),
    (user([{"text": "hi"}]), "messages[0].content[0].type", MISSING),
    (user([TEXT, {"type": "video"}]), "messages[0].content[1].type", VALUE),
    (user([{"type": 1}]), "messages[0].content[0].type", TYPE),
    (user([{"type": "refusal"}]), "messages[0].content[0].type", VALUE),
    (user([{"type": "text"}]), "messages[0].content[0].text", MISSING),
    (user([TEXT | {"text": None}]), "messages[0].content[0].text", TYPE),
    (user([{"type": "image_url"}]), "messages[0].content[0].image_url", MISSING),
    (
        user([{"type": "image_url", "image_url": "https://x"}]),
        "messages[0].content[0].image_url",
        TYPE,
    ),
    (
        user([{"type": "image_url", "image_url": {}}]),
        "messages[0].content[0].image_url.url",
        MISSING,
    ),
    (
        user([{"type": "image_url", "image_url": {"url": ""}}]),
        "messages[0].content[0].image_url.url",
        "empty_string",
    ),
    (
        user([{"type": "image_url", "image_url": {"url": "x", "detail": "max"}}]),
        "messages[0].content[0].image_url.detail",
        VALUE,
    ),
    (
        user([{"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}]),
        "messages[0].content[0].input_audio.format",
        VALUE,
    ),
    (user([{"type": "file"}]), "messages[0].content[0].file", MISSING),
    (
        user([{"type": "file", "file": {"file_id": 1}}]),
        "messages[0].content[0].file.file_id",
        TYPE,
    ),
    (
        user([TEXT | {"prompt_cache_breakpoint": {"mode": "all"}}]),
        "messages[0].content[0].prompt_cache_breakpoint.mode",
        VALUE,
    ),
    (
        message(role="system", content=[{"type": "image_url"}]),
        "messages[0].content[0].type",
        VALUE,
    ),
    (message(role="user", content="hi", name=1), "messages[0].name", TYPE),
    (message(role="assistant", content=[]), "messages[0].content", "empty_array"),
    (message(role="assistant", content=1), "messages[0].content", TYPE),
    (
        message(role="assistant", content=[{"type": "image_url"}]),
        "messages[0].content[0].type",
        VALUE,
    ),
    (
        message(role="assistant", content=[{"type": "refusal"}]),
        "messages[0].content[0].refusal",
        MISSING,
    ),
    (message(role="assistant", tool_calls={}), "messages[0].tool_calls", TYPE),
    (
        message(role="assistant", tool_calls=[CALL] * 129),
        "messages[0].tool_calls",
        MANY,
    ),
    (called(type="magic"), "messages[0].tool_calls[0].type", VALUE),
    (called(id=7), "messages[0].tool_calls[0].id", TYPE),
    (called(function="f"), "messages[0].tool_calls[0].function", TYPE),
    (
        called(function={"name": "f", "arguments": {}}),
        "messages[0].tool_calls[0].function.arguments",
        TYPE,
    ),
    (
        called(function={"arguments": "{}"}),
        "messages[0].tool_calls[0].function.name",
        MISSING,
    ),
    (called(type="custom"), "messages[0].tool_calls[0].custom", MISSING),
    (message(role="tool", content="x"), "messages[0].tool_call_id", MISSING),
    (message(role="tool", tool_call_id="c"), "messages[0].content", MISSING),
    (
        message(role="tool", tool_call_id="c", content=None),
        "messages[0].content",
        TYPE,
    ),
    (HELLO | {"stream": "yes"}, "stream", TYPE),
    (
        HELLO | {"stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
        TYPE,
    ),
    (HELLO | {"user": {"id": 1}}, "user", TYPE),
    (HELLO | {"user": "x" * 4097}, "user", LONG),
    (HELLO | {"temperature": 2.5}, "temperature", "decimal_above_max_value"),
    (HELLO | {"temperature": 3}, "temperature", "decimal_above_max_value"),
    (HELLO | {"top_p": -1}, "top_p", "decimal_below_min_value"),
    (HELLO | {"temperature": "hot"}, "temperature", TYPE),
    (HELLO | {"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    (HELLO | {"max_tokens": 1.5}, "max_tokens", TYPE),
    (HELLO | {"n": True}, "n", TYPE),
    (HELLO | {"n": 129}, "n", "integer_above_max_value"),
    (HELLO | {"stop": []}, "stop", "empty_array"),
    (HELLO | {"stop": ["x"] * 5}, "stop", MANY),
    (HELLO | {"stop": ["x", 1]}, "stop[1]", TYPE),
    (HELLO | {"logit_bias": {"42": 101}}, "logit_bias.42", "integer_above_max_value"),
    (HELLO | {"logit_bias": {"042": "x"}}, "logit_bias.042", TYPE),
    (HELLO | {"metadata": {"a b": 1}}, 'metadata["a b"]', TYPE),
    (HELLO | {"metadata": {"": 1}}, 'metadata[""]', TYPE),
    (HELLO | {"metadata": {"k" * 65: "v"}}, "metadata", LONG),
    (
        HELLO | {"metadata": {str(i): "" for i in range(17)}},
        "metadata",
        "object_above_max_properties",
    ),
    (
        HELLO | {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
        MISSING,
    ),
    (tool(), "tools[0].function.name", MISSING),
    (tool(name="a b"), "tools[0].function.name", VALUE),
    (tool(name="a b" * 22), "tools[0].function.name", LONG),
    (HELLO | {"seed": 2**63}, "seed", "integer_above_max_value"),
    (tool(name="f", parameters="{}"), "tools[0].function.parameters", TYPE),
    (HELLO | {"tools": [{"type": "function"}]}, "tools[0].function", MISSING),
    (HELLO | {"tool_choice": "any"}, "tool_choice", VALUE),
    (HELLO | {"tool_choice": []}, "tool_choice", TYPE),
    (
        HELLO | {"tool_choice": {"type": "function", "function": {}}},
        "tool_choice.function.name",
        MISSING,
    ),
    (HELLO | {"reasoning_effort": "ultra"}, "reasoning_effort", VALUE),
]


@pytest.mark.parametrize(("document", "param", "code"), BAD)
def test_validate_names_the_field(document: Any, param: str | None, code: str) -> None:
    """A bad request is a 400 that names the field and the kind of fault."""
    error = refused(REQUEST, document)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.param, error.code) == (param, code)
    SCHEMAS.check("openai/error", envelope(error))


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "Invalid type: expected an object, but got an array instead."),
        ({}, "Missing required parameter: 'messages'."),
        (
            {"messages": []},
            "Invalid 'messages': empty array. Expected an array with minimum "
            "length 1, but got an empty array instead.",
        ),
        (
            {"messages": 1.5},
            "Invalid type for 'messages': expected an array of objects, "
            "but got a decimal instead.",
        ),
        (
            user({}),
            "Invalid type for 'messages[0].content': expected one of a string or "
            "array of objects, but got an object instead.",
        ),
        (
            message(role="wizard"),
            "Invalid value: 'wizard'. Supported values are: 'developer', 'system', "
            "'user', 'assistant', and 'tool'.",
        ),
        (
            message(role="assistant", content=[{"type": "file"}]),
            "Invalid value: 'file'. Supported values are: 'text' and 'refusal'.",
        ),
        (
            user([{"type": "image_url", "image_url": {"url": ""}}]),
            "Invalid 'messages[0].content[0].image_url.url': empty string. Expected a "
            "string with minimum length 1, but got an empty string instead.",
        ),
        (
            HELLO | {"n": None, "stop": False},
            "Invalid type for 'stop': expected one of a string or array of strings, "
            "but got a boolean instead.",
        ),
        (
            HELLO | {"temperature": "1"},
            "Invalid type for 'temperature': expected a decimal, "
            "but got a string instead.",
        ),
        (
            HELLO | {"temperature": 2.5},
            "Invalid 'temperature': decimal above maximum value. Expected a value "
            "<= 2, but got 2.5 instead.",
        ),
        (
            HELLO | {"max_tokens": 0},
            "Invalid 'max_tokens': integer below minimum value. Expected a value "
            ">= 1, but got 0 instead.",
        ),
        (
            HELLO | {"user": "x" * 5000},
            "Invalid 'user': string too long. Expected a string with maximum length "
            "4096, but got a string with length 5000 instead.",
        ),
        (
            HELLO | {"stop": ["x"] * 9},
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            "but got an array with length 9 instead.",
        ),
        (
            tool(name="a b"),
            "Invalid 'tools[0].function.name': string does not match pattern. Expected "
            "a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        ),
        (
            HELLO | {"verbosity": "max"},
            "Invalid value: 'max'. Supported values are: 'low', 'medium', and 'high'.",
        ),
        (
            HELLO | {"metadata": {str(i): "" for i in range(17)}},
            "Invalid 'metadata': too many properties. Expected at most 16, "
            "but got 17 instead.",
        ),
        (
            HELLO | {"metadata": {"k" * 65: ""}},
            "Invalid 'metadata': property name too long. "
            "Expected names with maximum length 64.",
        ),
    ],
)
def test_validate_says_what_would_be_right(document: Any, text: str) -> None:
    """The message says what is wrong and what would be right, as OpenAI puts it."""
    assert refused(REQUEST, document).message == text


@pytest.mark.parametrize(
    ("frame", "param", "code"),
    [
        ({"type": "req"}, "id", MISSING),
        ({"type": "req", "id": "1"}, "method", MISSING),
        ({"type": "hello"}, "type", VALUE),
        ({"type": "req", "id": "1", "method": "fly", "params": {}}, "method", VALUE),
        ({"type": "req", "id": "", "method": "health", "params": {}}, "id", None),
        ({"type": "req", "id": "1", "method": "health"}, "params", MISSING),
        (
            {"type": "req", "id": "1", "method": "health", "params": {"x": 1}},
            "params.x",
            "unknown_parameter",
        ),
        (
            {"type": "req", "id": "1", "method": "health", "params": {}, "y": 1},
            "y",
            "unknown_parameter",
        ),
        (
            {
                "type": "req",
                "id": "1",
                "method": "connect",
                "params": {"auth": {"key": "secret"}},
            },
            "params.auth.key",
            "unknown_parameter",
        ),
        (
            {
                "type": "req",
                "id": "1",
                "method": "connect",
                "params": {"auth": {"token": "a", "password": "b"}},
            },
            "params.auth",
            "object_above_max_properties",
        ),
        (
            {"type": "req", "id": "1", "method": "connect", "params": {"auth": {}}},
            "params.auth",
            "object_below_min_properties",
        ),
        (
            {
                "type": "req",
                "id": "1",
                "method": "connect",
                "params": {"client": {"version": "1"}},
            },
            "params.client.name",
            MISSING,
        ),
    ],
)
def test_validate_names_the_key_of_a_frame(
    frame: Any, param: str, code: str | None
) -> None:
    """A frame with a key that is missing, unknown or wrong is refused by that key."""
    error = refused("ws/request", frame)
    assert error.param == param
    assert error.code == (code or "empty_string")
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"temperature": 9, "messages": [], "n": 0}, "temperature"),
        ({"n": 0, "messages": [], "temperature": 9}, "n"),
        ({"n": 0}, "n"),
        ({"user": "hi", "n": 1}, "messages"),
        ({"messages": [{}, {"role": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool"}], "n": 0}, "messages[0].tool_call_id"),
        (
            {"messages": [{"name": 1, "role": "user"}], "n": 0},
            "messages[0].name",
        ),
        ({"messages": [{"role": 5, "content": 5}]}, "messages[0].role"),
        (HELLO | {"tools": [{"type": "x"}] * 129}, "tools"),
        (
            message(role="assistant", tool_calls=[{"type": "x"}]),
            "messages[0].tool_calls[0].type",
        ),
        (
            message(role="assistant", tool_calls=[{}]),
            "messages[0].tool_calls[0].id",
        ),
        (HELLO | {"metadata": {"b": 1, "a": 1}}, "metadata.b"),
    ],
)
def test_validate_reports_the_first_fault(document: Any, param: str) -> None:
    """Of several faults the document's first is told; missing fields come last."""
    assert refused(REQUEST, document).param == param


def test_validate_reports_the_first_unknown_key() -> None:
    """Of several unknown keys the document's first is told."""
    frame = {"type": "req", "id": "1", "method": "health", "params": {"b": 1, "a": 1}}
    assert refused("ws/request", frame).param == "params.b"


@pytest.mark.parametrize("name", ["openai/nothing", "../setup", "openai"])
def test_validate_knows_its_schemas_only(name: str) -> None:
    """A schema that was never written cannot be asked for."""
    with pytest.raises(LookupError):
        Schemas().check(name, {})


def test_validate_warms_before_the_first_request() -> None:
    """A schema that was compiled at the start gives the same verdicts."""
    schemas = Schemas()
    schemas.warm(REQUEST, "ws/request")
    schemas.check(REQUEST, HELLO)
    with pytest.raises(InvalidRequest):
        schemas.check("ws/request", HELLO)


def test_validate_leaves_the_document_alone() -> None:
    """Checking changes nothing in the document, whatever the verdict."""
    for document in (HELLO | {"n": 0, "x": [1]}, HELLO | {"x": {"y": None}}):
        before = orjson.dumps(document)
        try:
            SCHEMAS.check(REQUEST, document)
        except InvalidRequest:
            assert document["n"] == 0
        assert orjson.dumps(document) == before


@pytest.mark.parametrize(
    "document",
    [
        message(role="w" * 10_000),
        message(role="\n\x00'\"" * 50),
        HELLO | {"tool_choice": "é" * 1000},
        HELLO | {"logit_bias": {"k" * 10_000: "x"}},
        HELLO | {"logit_bias": {"\n" * 1000: "x"}},
        HELLO | {"n": 1e300},
    ],
)
def test_validate_repeats_no_long_value(document: Any) -> None:
    """What the client sent is shortened in the answer, and on one line."""
    error = refused(REQUEST, document)
    assert error.param is not None
    assert len(error.param) < 300
    assert len(error.message) < 500
    assert error.message.isprintable()


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"messages": [1] * 1_000_000}, "messages[0]"),
        ({"messages": HELLO["messages"] * 2000 + [{}]}, "messages[2000].role"),
        (user([TEXT] * 1000 + [{}] * 500_000), "messages[0].content[1000].type"),
        (HELLO | {"metadata": dict.fromkeys(map(str, range(10**5)), 1)}, "metadata"),
    ],
)
def test_validate_answers_large_bodies_at_once(document: Any, param: str) -> None:
    """A body with a million faults takes no longer than one with a few."""
    started = time.perf_counter()
    assert refused(REQUEST, document).param == param
    # One by one, a million faults take 15 seconds.
    assert time.perf_counter() - started < 2


def test_validate_lists_what_a_document_of_the_limit_holds() -> None:
    """Up to a thousand values the order is exact."""
    count = (MAX_LISTED - 3) // 2
    document = {"messages": [{"n": 1}] * count, "n": 0, "stop": []}
    assert refused(REQUEST, document).param == "messages[0].role"
    assert len(SCHEMAS.errors(REQUEST, document)) == count + 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("messages",), "messages"),
        (("messages", 2, "content", 0, "type"), "messages[2].content[0].type"),
        (("metadata", "a.b"), 'metadata["a.b"]'),
        (("metadata", ""), 'metadata[""]'),
        (("metadata", '"\n'), 'metadata["\\"\\n"]'),
        (("metadata", "0"), "metadata.0"),
        (("k" * 65,), f'["{"k" * 39}\\u2026"]'),
    ],
)
def test_validate_writes_paths_with_dots(
    path: tuple[str | int, ...], text: str
) -> None:
    """A path reads messages[0].content; odd keys stand in brackets, shortened."""
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, null]}\r\n', {"a": [1, 2.5, None]}),
        (b'{"a":1,"b":0,"a":2}', {"a": 2, "b": 0}),
        ('{"a":"é\u2028\U0001f600"}'.encode(), {"a": "é\u2028\U0001f600"}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551616", 2.0**64),
        (b"-9223372036854775809", -(2.0**63)),
        (b"0." + b"1" * 5000, 0.1111111111111111),
        (b"[" * 128 + b"]" * 128, json.loads("[" * 128 + "]" * 128)),
        (b'"' + b"[{" * 5000 + b'"', "[{" * 5000),
        (b"[" + b"[]," * 500 + b"{}]", [*[[]] * 500, {}]),
    ],
)
def test_validate_reads_json(body: bytes, document: Any) -> None:
    """JSON is read as it is; the last of two equal keys counts."""
    assert parse_json(body) == document
    assert type(parse_json(body)) is type(document)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "empty"),
        (b"   ", "empty"),
        (b"{", ""),
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1,\n "b": }', "line 2"),
        (b"{} {}", "unexpected"),
        (b"{}\x00", "unexpected"),
        (b'{"a": NaN}', "unexpected"),
        (b'{"a": Infinity}', "unexpected"),
        (b'{"a": -Infinity}', ""),
        (b"1e400", "infinity"),
        (b"9" * 5000, "infinity"),
        (b"-" + b"9" * 5000, "infinity"),
        (b"01", ""),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'"\\ud83dx"', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'{"a": "\xe9"}', "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"a\nb"', ""),
        (b"[" * 129 + b"]" * 129, "128 levels"),
        (b'{"a":' * 129 + b"1" + b"}" * 129, "128 levels"),
        (b'[{"a":' * 65 + b"1" + b"}]" * 65, "128 levels"),
        (b"[" * 1024 + b"]" * 1024, "128 levels"),
        (b"[" * 100_000 + b"]" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
    ],
)
def test_validate_refuses_what_is_not_json(body: bytes, fault: str) -> None:
    """A body that is no JSON, or not JSON for everyone, is a 400 that says where."""
    with pytest.raises(InvalidRequest) as caught:
        parse_json(body)
    error = caught.value
    assert (error.status, error.param, error.code) == (400, None, None)
    opening = "We could not parse the JSON body of your request. In the request body: "
    assert error.message.startswith(opening)
    assert fault in error.message
    assert len(error.message) < 200


def test_validate_says_what_could_not_be_read() -> None:
    """What was to be JSON is named in the message."""
    with pytest.raises(InvalidRequest, match="In the frame: "):
        parse_json(b"?", what="the frame")


def test_validate_reads_only_what_can_be_written_again() -> None:
    """The deepest document fits into a larger one that is written."""
    document = parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for _ in range(100):
        document = {"x": document}
    assert orjson.dumps(document).count(b"[") == MAX_DEPTH


def test_validate_checks_a_file_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints each fault with its path, in the order of the file."""
    file = tmp_path / "request.json"
    file.write_text('{"n": 0, "messages": [{"role": "wizard"}, {"content": "x"}]}')
    assert main([REQUEST, str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "n",
        "messages[0].role",
        "messages[1]",
    ]
    assert all(line.partition(": ")[2] for line in lines)
    file.write_bytes(orjson.dumps(HELLO))
    assert main([REQUEST, str(file)]) == 0
    file.write_text('"' + "x" * 5000 + '"')
    assert main(["ws/request", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("(document): ")
    assert len(out) < 300
    assert not err


@pytest.mark.parametrize(
    ("schema", "file", "words"),
    [
        ("openai/nothing", "good.json", "no schema 'openai/nothing'; there are"),
        ("bad.json", "good.json", "bad.json: unexpected"),
        ("wrong.json", "good.json", "it is no schema: properties.x.type: "),
        ("lost.json", "good.json", "lost.json refers to nothing: "),
        (REQUEST, "absent.json", "absent.json: No such file or directory"),
        (REQUEST, ".", ".: Is a directory"),
        (REQUEST, "bad.json", "bad.json: unexpected"),
    ],
)
def test_validate_says_why_a_file_cannot_be_checked(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    schema: str,
    file: str,
    words: str,
) -> None:
    """A file or schema that cannot be read is one plain line and exit 2."""
    monkeypatch.chdir(tmp_path)
    Path("good.json").write_text("{}")
    Path("bad.json").write_text("?")
    Path("wrong.json").write_text('{"properties": {"x": {"type": "wizard"}}}')
    Path("lost.json").write_text('{"$ref": "https://127.0.0.1:1/schema.json"}')
    assert main([schema, file]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err
    assert err.count("\n") == 1


def test_validate_checks_with_a_schema_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The schema may be a file, which may refer to the shipped ones."""
    schema, file = tmp_path / "two.json", tmp_path / "file.json"
    schema.write_text(
        '{"type": "array", "minItems": 2, "items": {"$ref": "edwin:openai/error"}}'
    )
    file.write_bytes(orjson.dumps([{"error": {"message": "\n"}}]))
    assert main([str(schema), str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["(document)"] + [
        "[0].error"
    ] * 3
    file.write_bytes(orjson.dumps([]))
    schema.write_text("{}")
    assert main([str(schema), str(file)]) == 0


def test_validate_checks_standard_input() -> None:
    """python -m edwin.validate reads standard input for the file name -."""
    command = [sys.executable, "-W", "error", "-m", "edwin.validate", REQUEST, "-"]
    for body, status, out in (
        (orjson.dumps(HELLO), 0, b""),
        (b'{"messages": []}', 1, b"messages: "),
        (b"{", 2, b""),
    ):
        done = subprocess.run(command, input=body, capture_output=True, cwd=ROOT)
        assert done.returncode == status
        assert done.stdout.startswith(out)
        assert b"Traceback" not in done.stderr


def test_validate_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    """The command without arguments says how it is used and exits 2."""
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m edwin.validate ")
