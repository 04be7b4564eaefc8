"""What the shipped schemas promise: examples, official limits, one verdict of two."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.errors import InvalidRequest
from edwin.validate import MAX_LISTED, Schemas, names, oracle, parse_json, retrieve
from edwin.violations import dotted
from tests.mutations import mutated, places

REQUEST = "openai/chat_completion_request"
WIRE = [name for name in names() if not name.startswith("config/")]
FROM_CLIENTS = [
    REQUEST,
    "sessions/reset",
    "tokens/create",
    "ws/connect_params",
    "ws/request",
]
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}

SCHEMAS = Schemas()
ORACLES = {name: oracle(name) for name in WIRE}
EXAMPLES = {name: retrieve(f"edwin:{name}")["examples"] for name in WIRE}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in *schema*, examples left out."""
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key != "examples":
                yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def accepts(document: Any) -> bool:
    """Return the verdict on a request, after both validators have given the same."""
    theirs = ORACLES[REQUEST].is_valid(document)
    assert (not SCHEMAS.errors(REQUEST, document)) == theirs
    return bool(theirs)


def test_schemas_are_the_ones_of_the_wire() -> None:
    """The bodies, the events and the WebSocket frames have a schema each."""
    assert WIRE == [
        "doctor/report",
        "openai/chat_completion",
        "openai/chat_completion_chunk",
        "openai/chat_completion_request",
        "openai/error",
        "openai/model",
        "openai/model_list",
        "runs/event",
        "runs/run",
        "runs/run_list",
        "sessions/deleted",
        "sessions/reset",
        "sessions/session",
        "sessions/session_list",
        "sessions/transcript",
        "sessions/was_reset",
        "tokens/create",
        "tokens/revoked",
        "tokens/token",
        "tokens/token_list",
        "ws/connect_params",
        "ws/event",
        "ws/request",
        "ws/response",
    ]


@pytest.mark.parametrize("name", WIRE)
def test_schemas_say_what_they_are(name: str) -> None:
    """Each schema is Draft 2020-12 and has an id, a title and a description."""
    schema = retrieve(f"edwin:{name}")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"edwin:{name}"
    assert schema["title"]
    assert schema["description"].endswith(".")


@pytest.mark.parametrize("name", WIRE)
def test_schemas_have_valid_examples(name: str) -> None:
    """Each schema has two examples or more, all of them valid."""
    assert len(EXAMPLES[name]) >= 2
    for example in EXAMPLES[name]:
        SCHEMAS.check(name, example)
        ORACLES[name].validate(example)


@pytest.mark.parametrize("name", WIRE)
def test_schemas_refer_to_shipped_ones_only(name: str) -> None:
    """Every reference stays in its file or leads to another shipped schema."""
    schema = retrieve(f"edwin:{name}")
    for node in nodes(schema):
        if "$ref" in node:
            uri, _, pointer = node["$ref"].partition("#")
            target = retrieve(uri) if uri else schema
            for part in pointer.split("/")[1:]:
                target = target[part]
            assert isinstance(target, dict)


def test_schemas_are_never_fetched() -> None:
    """A reference to somewhere else is refused without a connection being opened."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        with pytest.raises(ValueError, match="not one of Edwin's schemas"):
            jsonschema_rs.Draft202012Validator({"$ref": uri}, retriever=retrieve)
        with pytest.raises(BlockingIOError):
            server.accept()
    for uri in ("file:///etc/hostname", "edwin:../setup", "edwin:openai/nothing"):
        with pytest.raises(LookupError):
            retrieve(uri)


@pytest.mark.parametrize("name", FROM_CLIENTS)
def test_schemas_use_only_keywords_with_words(name: str) -> None:
    """What clients send is held to keywords for which there is an exact answer."""
    told = {"required", "additionalProperties", "type", "enum", "const", "pattern"}
    told |= {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
    told |= {"minProperties", "maxProperties", "propertyNames"}
    structure = {"properties", "items", "allOf", "if", "then", "else", "$ref", "$defs"}
    notes = {"$schema", "$id", "title", "description", "examples"}
    schema = retrieve(f"edwin:{name}")
    named = [node["properties"] for node in nodes(schema) if "properties" in node]
    named += [node["$defs"] for node in nodes(schema) if "$defs" in node]
    for node in nodes(schema):
        if not any(node is names for names in named):
            assert node.keys() <= told | structure | notes
            # The messages of these two say "empty".
            assert node.get("minLength", 1) == node.get("minItems", 1) == 1
            # Alone it is reported without the names of the unknown keys.
            assert "properties" in node or node.get("additionalProperties") is not False


OFFICIAL_FIELDS = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "modalities",
    "audio",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "metadata",
    "store",
    "moderation",
    "web_search_options",
]


def test_schemas_know_every_official_field() -> None:
    """The request's schema lists the 37 fields of the official one, and no other."""
    assert len(OFFICIAL_FIELDS) == 37
    assert set(retrieve(f"edwin:{REQUEST}")["properties"]) == set(OFFICIAL_FIELDS)


@pytest.mark.parametrize("field", [*OFFICIAL_FIELDS, "an_unknown_field"])
def test_schemas_take_null_for_absent(field: str) -> None:
    """null stands for an absent field, except for model and messages."""
    verdict = accepts(HELLO | {field: None})
    assert verdict == (field not in ("model", "messages"))


def _function(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


VOICES = {"voice": "alloy"}
LEVELS = ["low", "medium", "high"]
# For each field: values the official specification allows, and values it does not.
OFFICIAL: dict[str, tuple[list[Any], list[Any]]] = {
    "model": (["edwin", "edwin:beta", "gpt-4o"], [1, True, {}]),
    "stream": ([True, False], [0, "true"]),
    "stream_options": (
        [{}, {"include_usage": True, "include_obfuscation": False}],
        [True, {"include_usage": 1}],
    ),
    "user": (["u", "", "  ", "x" * 4096], ["x" * 4097, {"id": "u"}, 7]),
    "safety_identifier": (["x" * 64], ["x" * 65, 1]),
    "prompt_cache_key": (["k"], [1]),
    "prompt_cache_retention": (["in_memory", "24h"], ["in-memory", "1h", 24]),
    "prompt_cache_options": (
        [{}, {"mode": "implicit", "ttl": "30m"}, {"mode": "explicit"}],
        [{"mode": "both"}, {"ttl": "1h"}, "explicit"],
    ),
    "temperature": ([0, 2, 0.7], [-0.1, 2.01, "1", True]),
    "top_p": ([0, 1, 0.5], [-0.1, 1.1]),
    "presence_penalty": ([-2, 2, 0.5], [-2.1, 2.1]),
    "frequency_penalty": ([-2, 2, 0.5], [-2.1, 2.1]),
    "max_completion_tokens": ([1, 400, 16.0], [0, -1, 1.5, "400", 2.0**63]),
    "max_tokens": ([1, 400], [0, -1, 1.5, "400", True]),
    "n": ([1, 128], [0, 129, True, 1.5]),
    "stop": (["x", ["x"], ["a", "b", "c", "d"]], [[], ["x"] * 5, [1], 1]),
    "seed": ([-(2**63), 2**63 - 1, 0], [-(2.0**64), 2**63, 2.0**63, 0.5]),
    "logprobs": ([True], [1]),
    "top_logprobs": ([0, 20], [-1, 21]),
    "logit_bias": ([{}, {"50256": -100, "1": 100}], [{"1": 101}, {"1": "x"}, [1]]),
    "response_format": (
        [
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "x" * 64}},
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "A-z_9",
                    "description": "d",
                    "schema": {"type": "array"},
                    "strict": None,
                },
            },
        ],
        [
            "json_object",
            {},
            {"type": "xml"},
            {"type": "json_schema"},
            {"type": "json_schema", "json_schema": {}},
            {"type": "json_schema", "json_schema": {"name": "x" * 65}},
            {"type": "json_schema", "json_schema": {"name": "a b"}},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": []}},
        ],
    ),
    "tools": (
        [
            [],
            [_function()] * 128,
            [_function("x" * 64, description="d", parameters={}, strict=True)],
            [{"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}],
            [
                {
                    "type": "custom",
                    "custom": {
                        "name": "c",
                        "format": {
                            "type": "grammar",
                            "grammar": {"definition": "x", "syntax": "lark"},
                        },
                    },
                }
            ],
        ],
        [
            [_function()] * 129,
            [_function("x" * 65)],
            [_function("a.b")],
            [_function("a\n")],
            [_function("")],
            [_function(parameters="{}")],
            [{"type": "web_search"}],
            [{"type": "function"}],
            [{"function": {"name": "f"}}],
            [{"type": "custom", "custom": {"name": "c", "format": {"type": "x"}}}],
            {},
        ],
    ),
    "tool_choice": (
        [
            "none",
            "auto",
            "required",
            {"type": "function", "function": {"name": "f"}},
            {"type": "custom", "custom": {"name": "c"}},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]},
            },
        ],
        [
            "any",
            1,
            {},
            {"type": "tool"},
            {"type": "function"},
            {"type": "function", "function": {}},
            {"type": "custom", "custom": "c"},
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
        ],
    ),
    "parallel_tool_calls": ([True, False], ["no"]),
    "functions": (
        [[{"name": "f"}], [{"name": "f", "description": "d", "parameters": {}}] * 128],
        [[], [{"name": "f"}] * 129, [{}], [{"name": "a b"}]],
    ),
    "function_call": (["none", "auto", {"name": "f"}], ["required", {}, 1]),
    "modalities": ([["text"], ["text", "audio"], []], [["video"], "text"]),
    "audio": (
        [
            *(
                VOICES | {"format": f}
                for f in ["wav", "aac", "mp3", "flac", "opus", "pcm16"]
            ),
            {"voice": {"id": "voice_1"}, "format": "wav"},
        ],
        [VOICES | {"format": "ogg"}, VOICES, {"format": "wav"}, "alloy"],
    ),
    "prediction": (
        [
            {"type": "content", "content": "x"},
            {"type": "content", "content": [{"type": "text", "text": "x"}]},
        ],
        [
            {"type": "content"},
            {"type": "content", "content": []},
            {"type": "text", "content": "x"},
            {"type": "content", "content": [{"type": "refusal", "refusal": "x"}]},
        ],
    ),
    "reasoning_effort": (
        ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
        ["ultra", 3],
    ),
    "verbosity": (LEVELS, ["max"]),
    "service_tier": (
        ["auto", "default", "flex", "scale", "priority", "fast"],
        ["gold"],
    ),
    "metadata": (
        [{}, {"k" * 64: "v" * 512}, {str(i): "" for i in range(16)}],
        [
            {"k" * 65: ""},
            {"k": "v" * 513},
            {"k": 1},
            {str(i): "" for i in range(17)},
            [],
        ],
    ),
    "store": ([True], ["yes"]),
    "moderation": (
        [
            {"model": "m"},
            {"model": "m", "policy": {"input": {"mode": "score"}, "output": None}},
        ],
        [{}, {"model": "m", "policy": {"output": {"mode": "drop"}}}],
    ),
    "web_search_options": (
        [
            {},
            *({"search_context_size": level} for level in LEVELS),
            {
                "user_location": {
                    "type": "approximate",
                    "approximate": {"country": "AT", "city": "Graz"},
                }
            },
        ],
        [
            {"search_context_size": "max"},
            {"user_location": {"type": "approximate"}},
            {"user_location": {"type": "exact", "approximate": {}}},
            {"user_location": {"type": "approximate", "approximate": {"city": 1}}},
        ],
    ),
    "top_k": ([40, "any", {"x": [None]}], []),
}


def test_schemas_have_a_row_for_each_field() -> None:
    """No official field is left out of the table of limits."""
    assert set(OFFICIAL) - {"top_k"} == set(OFFICIAL_FIELDS) - {"messages"}


@pytest.mark.parametrize("field", OFFICIAL)
def test_schemas_meet_the_official_limits(field: str) -> None:
    """Each field takes what the official specification allows, and nothing else."""
    allowed, refused = OFFICIAL[field]
    for value in allowed:
        assert accepts(HELLO | {field: value}), value
    for value in refused:
        assert not accepts(HELLO | {field: value}), value


TEXT = {"type": "text", "text": "x"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
PARTS: list[dict[str, Any]] = [
    TEXT,
    TEXT | MARK,
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    *(
        {"type": "image_url", "image_url": {"url": "data:,x", "detail": detail}}
        for detail in ("auto", "low", "high", None)
    ),
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}} | MARK,
    {"type": "file", "file": {"filename": "a.txt", "file_data": "data:,x"}},
    {"type": "file", "file": {"file_id": "file-1"}, "unknown": 1},
]
VALID_MESSAGES: list[dict[str, Any]] = [
    *(
        {"role": role, "content": content, "name": "n"}
        for role in ("developer", "system", "user")
        for content in ("", "x", [TEXT], [TEXT | MARK, TEXT])
    ),
    {"role": "user", "content": PARTS},
    {"role": "user", "content": "x", "name": None, "unknown": {"deep": [1]}},
    {"role": "assistant"},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": "x", "tool_calls": None, "refusal": None},
    {"role": "assistant", "content": [TEXT, {"type": "refusal", "refusal": "no"}]},
    {"role": "assistant", "refusal": "no", "audio": {"id": "a"}, "name": "n"},
    {"role": "assistant", "tool_calls": []},
    {"role": "assistant", "content": None, "tool_calls": [CALL] * 128},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
        ],
    },
    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "assistant", "function_call": None, "audio": None},
    {"role": "tool", "tool_call_id": "c", "content": "x"},
    {"role": "tool", "tool_call_id": "c", "content": [TEXT, TEXT], "name": "f"},
]


@pytest.mark.parametrize("message", VALID_MESSAGES)
def test_schemas_take_every_official_message(message: dict[str, Any]) -> None:
    """Every shape of message and part that the specification has is accepted."""
    assert accepts({"messages": [message]})
    assert accepts({"model": "edwin", "messages": [*HELLO["messages"], message]})


@pytest.mark.parametrize("key", ["usage", "id", "object", "created", "model"])
def test_schemas_of_answers_are_strict(key: str) -> None:
    """An answer lacks no key, has no unknown one, and says when as an integer."""
    answer = EXAMPLES["openai/chat_completion"][0]
    for broken in (
        {k: v for k, v in answer.items() if k != key},
        answer | {"text": "x"},
        answer | {"created": 1780000000.5},
        answer | {"choices": answer["choices"] * 2},
        answer | {"usage": answer["usage"] | {"estimated": False}},
    ):
        with pytest.raises(InvalidRequest):
            SCHEMAS.check("openai/chat_completion", broken)


def test_schemas_of_chunks_place_the_usage() -> None:
    """Usage comes in a chunk without choices, and the other chunks have none."""
    chunk, usage = EXAMPLES["openai/chat_completion_chunk"][0::3]
    SCHEMAS.check("openai/chat_completion_chunk", chunk | {"usage": None})
    for broken in (
        chunk | {"usage": usage["usage"]},
        usage | {"usage": None},
        {key: value for key, value in usage.items() if key != "usage"},
    ):
        with pytest.raises(InvalidRequest):
            SCHEMAS.check("openai/chat_completion_chunk", broken)


def test_schemas_of_frames_hold_payload_or_error() -> None:
    """A response frame has a payload when ok, an error otherwise, and never both."""
    good, bad = EXAMPLES["ws/response"]
    for broken in (
        good | {"error": bad["error"]},
        bad | {"payload": {}},
        good | {"ok": False},
        bad | {"ok": True},
        good | {"more": 1},
    ):
        with pytest.raises(InvalidRequest):
            SCHEMAS.check("ws/response", broken)


def agree(name: str, document: Any) -> None:
    """Assert that both validators find the same, and that ``check`` tells of it."""
    ours = SCHEMAS.errors(name, document)
    theirs = {tuple(e.absolute_path) for e in ORACLES[name].iter_errors(document)}
    assert {violation.path for violation in ours} == theirs
    if not ours:
        SCHEMAS.check(name, document)
        return
    with pytest.raises(InvalidRequest) as caught:
        SCHEMAS.check(name, document)
    params = [
        dotted(found.path if found.key is None else (*found.path, found.key)) or None
        for found in ours
    ]
    small = sum(1 for _ in places(document)) <= MAX_LISTED
    assert caught.value.param in (params[:1] if small else params)
    assert caught.value.code
    assert len(caught.value.message) < 500


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(mutated([*EXAMPLES[REQUEST], *({"messages": [m]} for m in VALID_MESSAGES)]))
def test_schemas_of_requests_have_one_verdict(document: Any) -> None:
    """Both validators find the same faults in a damaged request."""
    agree(REQUEST, document)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([name for name in WIRE if name != REQUEST]).flatmap(
        lambda name: st.tuples(st.just(name), mutated(EXAMPLES[name]))
    )
)
def test_schemas_have_one_verdict(pair: tuple[str, Any]) -> None:
    """Both validators find the same faults in a damaged answer or frame."""
    agree(*pair)


def test_schemas_have_one_verdict_on_lists_of_anything() -> None:
    """Where a list may hold anything, the message does not say of what it is."""
    document = EXAMPLES["sessions/transcript"][0]
    message = {"role": "assistant", "content": True}
    entry = document["data"][0] | {"message": message}
    agree("sessions/transcript", document | {"data": [entry]})


@pytest.mark.parametrize("key", ["5", "05", "+5", "0", "00", "", "a/b", "a~1b", "é"])
def test_schemas_have_one_verdict_on_odd_keys(key: str) -> None:
    """A key that a client chose is found again, however it is spelled."""
    agree(REQUEST, HELLO | {"logit_bias": {key: "x", "7": 1}})
    agree(REQUEST, HELLO | {"metadata": {"7": "x", key: 1}})


def test_schemas_read_what_is_parsed() -> None:
    """A number that JSON can write and no integer field can take is refused."""
    for text in (b"18446744073709551616", b"1e300", b"9223372036854775808"):
        body = b'{"messages":[{"role":"user","content":"hi"}],"seed":' + text + b"}"
        agree(REQUEST, parse_json(body))
        with pytest.raises(InvalidRequest):
            SCHEMAS.check(REQUEST, parse_json(body))
