"""How requests are put into the form of Anthropic's Messages API."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.errors import InvalidRequest
from edwin.providers.anthropic_answer import Memory
from edwin.providers.anthropic_request import Settings, document
from edwin.types import ModelRequest
from tests.providers.anthropic import HELLO, TOOL, call, text, use

PLAIN = Settings(stream=False)
MODEL = "claude-sonnet-4-5"
RED = "data:image/png;base64,iVBORw0KGgo="


def body(messages=HELLO, own=PLAIN, *, model="claude-x", memory=None, **params):
    """Return the body that goes up, decoded."""
    request = ModelRequest(model, messages, params)
    made = document(request, own, (memory or Memory()).get)
    return orjson.loads(orjson.dumps(made))


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def answer(id: str, content="21 °C"):
    return said("tool", content, tool_call_id=id)


def calling(*calls, content=None):
    return said("assistant", content, tool_calls=list(calls))


def result(id: str, words: str = "21 °C"):
    return {"type": "tool_result", "tool_use_id": id, "content": [text(words)]}


def test_anthropic_system_messages_stand_apart():
    """The first instructions become ``system``; later ones are said by the user."""
    sent = body(
        [
            said("system", "You are Edwin."),
            said("developer", [text("Be brief."), text("  ")]),
            said("user", "Hello"),
            said("assistant", "Hi"),
            said("system", "The user is called Ada."),
            said("user", "Who am I?"),
        ]
    )
    assert sent["system"] == [text("You are Edwin."), text("Be brief.")]
    assert sent["messages"] == [
        said("user", [text("Hello")]),
        said("assistant", [text("Hi")]),
        said("user", [text("The user is called Ada."), text("Who am I?")]),
    ]


def test_anthropic_instructions_alone_are_said_by_the_user():
    """The API wants a message."""
    sent = body([said("system", "Tell a joke.")])
    assert "system" not in sent
    assert sent["messages"] == [said("user", [text("Tell a joke.")])]


@pytest.mark.parametrize(
    "messages", [[said("user", " \n")], [said("system", "")], [said("assistant", None)]]
)
def test_anthropic_says_that_nothing_is_said(messages):
    """A conversation without any text is the client's to mend."""
    with pytest.raises(InvalidRequest) as caught:
        body(messages)
    assert caught.value.param == "messages"


def test_anthropic_tool_loop():
    """Calls become blocks, their results one user message, ahead of what is said."""
    sent = body(
        [
            said("user", "Rome and Oslo?"),
            calling(call("t1"), call("t2", "[1]"), call("t3", "{"), content="I look."),
            said("system", "Hurry."),
            answer("t2", "cold"),
            answer("t1", [text("warm"), text("sunny")]),
            answer("t3", ""),
            said("user", "Well?"),
        ],
        tools=[TOOL],
    )
    assert sent["messages"][1:] == [
        said(
            "assistant",
            [text("I look."), use("t1", city="Rome"), use("t2"), use("t3")],
        ),
        said(
            "user",
            [
                result("t2", "cold"),
                result("t1") | {"content": [text("warm"), text("sunny")]},
                {"type": "tool_result", "tool_use_id": "t3"},
                text("Hurry."),
                text("Well?"),
            ],
        ),
    ]


def test_anthropic_calls_and_results_without_each_other():
    """A call without a result is left out, a result without a call is said."""
    sent = body(
        [
            answer("t0", "from before"),
            said("assistant", "Hm."),
            calling(call("t1")),
            said("user", "Never mind."),
            calling(call("t2")),
        ]
    )
    assert sent["messages"] == [
        said("user", [text("from before")]),
        said("assistant", [text("Hm.")]),
        said("user", [text("Never mind.")]),
    ]


def test_anthropic_ids_of_calls():
    """Ids are what the API takes, and each is there once."""
    odd = "functions.weather:0"
    turns = [calling(call(odd)), answer(odd), calling(call("a")), answer("a")]
    blocks = [
        block
        for message in body([*HELLO, *turns, *turns])["messages"]
        for block in message["content"]
    ]
    made = [block["id"] for block in blocks if block["type"] == "tool_use"]
    told = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    assert made == told
    assert len(set(made)) == 4
    assert made[1::2] == ["a", "a_2"]
    assert all(re.fullmatch("[A-Za-z0-9_-]+", id) for id in made)


def test_anthropic_begins_with_the_user():
    """A conversation that begins with the assistant gets a word ahead of it."""
    first, second = body([said("assistant", "Hello!")])["messages"]
    assert first["role"] == "user"
    assert second == said("assistant", [text("Hello!")])


def test_anthropic_goes_on_from_the_assistants_words():
    """An answer that is begun ends without blanks."""
    *_, last = body([*HELLO, said("assistant", "The answer is (\n ")])["messages"]
    assert last["content"] == [text("The answer is (")]


def test_anthropic_images_and_files():
    """Images go up as data or as links, PDFs as documents."""
    pdf = "data:application/pdf;base64,JVBERi0="
    parts = [
        {"type": "image_url", "image_url": {"url": RED, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
        text("What is it?"),
    ]
    assert body([said("user", parts)])["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": "iVBORw0KGgo=",
            },
        },
        {
            "type": "image",
            "source": {"type": "url", "url": "https://example.org/a.png"},
        },
        {
            "type": "document",
            "source": {
                "type": "base64",
                "media_type": "application/pdf",
                "data": "JVBERi0=",
            },
            "title": "a.pdf",
        },
        text("What is it?"),
    ]


@pytest.mark.parametrize(
    "file", [{"file_id": "file-1"}, {"file_data": "data:text/csv;base64,YQ=="}, {}]
)
def test_anthropic_refuses_files_it_cannot_say(file):
    """Another file than a PDF is refused by its place."""
    with pytest.raises(InvalidRequest) as caught:
        body([*HELLO, said("user", [{"type": "file", "file": file}])])
    assert caught.value.param == "messages[1].content[0].file"


def test_anthropic_refusals_of_an_assistant_are_its_text():
    """What the model declined with stays part of the conversation."""
    turn = said("assistant", [{"type": "refusal", "refusal": "No."}])
    other = said("assistant", None, refusal="Never.")
    sent = body([*HELLO, turn, *HELLO, other, *HELLO])["messages"]
    assert [sent[1]["content"], sent[3]["content"]] == [[text("No.")], [text("Never.")]]


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"max_completion_tokens": 9, "max_tokens": 8}, {"max_tokens": 9}),
        ({"max_tokens": 8}, {"max_tokens": 8}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "\n", ""]}, {"stop_sequences": ["a"]}),
        ({"stop": ["\n"]}, {}),
        ({"temperature": 1.5}, {"temperature": 1}),
        ({"temperature": 0, "top_p": 1}, {"temperature": 0}),
        ({"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}),
        ({"user": "ada"}, {"metadata": {"user_id": "ada"}}),
        ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
        ({"seed": 1, "logprobs": True, "logit_bias": {}, "verbosity": "low"}, {}),
        ({"presence_penalty": 1, "frequency_penalty": 1, "prediction": {}}, {}),
    ],
)
def test_anthropic_fields(params, fields):
    """Fields get the API's names; those that it does not know are dropped."""
    assert body(**params) == body() | fields


def test_anthropic_settings():
    """The length is the configuration's where nobody says; sampling can be left out."""
    own = PLAIN._replace(max_tokens=77, sampling=False)
    sent = body(own=own, temperature=0, top_p=1, top_k=2)
    assert sent == body() | {"max_tokens": 77}


NOW = {"type": "function", "function": {"name": "now"}}
WEATHER_UP = {
    "name": "weather",
    "description": "Of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NOW_UP = {"name": "now", "input_schema": {"type": "object", "properties": {}}}


def allowed(mode, *names):
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("params", "choice", "tools"),
    [
        ({}, None, [WEATHER_UP, NOW_UP]),
        ({"tool_choice": "auto"}, {"type": "auto"}, [WEATHER_UP, NOW_UP]),
        ({"tool_choice": "none"}, {"type": "none"}, [WEATHER_UP, NOW_UP]),
        ({"tool_choice": "required"}, {"type": "any"}, [WEATHER_UP, NOW_UP]),
        ({"tool_choice": NOW}, {"type": "tool", "name": "now"}, [WEATHER_UP, NOW_UP]),
        ({"tool_choice": allowed("auto", "now")}, {"type": "auto"}, [NOW_UP]),
        ({"tool_choice": allowed("required", "now")}, {"type": "any"}, [NOW_UP]),
        (
            {"parallel_tool_calls": False},
            {"type": "auto", "disable_parallel_tool_use": True},
            [WEATHER_UP, NOW_UP],
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": NOW},
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
            [WEATHER_UP, NOW_UP],
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": "none"},
            {"type": "none"},
            [WEATHER_UP, NOW_UP],
        ),
    ],
)
def test_anthropic_tools(params, choice, tools):
    """Tools and the choice among them, in the API's form."""
    sent = body(tools=[TOOL, NOW], **params)
    assert sent["tools"] == tools
    assert sent.get("tool_choice") == choice


def test_anthropic_tools_of_old_calls():
    """Calls in the history need their tools, which the model may not call again."""
    sent = body([*HELLO, calling(call("t1")), answer("t1"), *HELLO])
    assert sent["tools"] == [NOW_UP | {"name": "weather"}]
    assert sent["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("model", "params", "thinking"),
    [
        (MODEL, {"reasoning_effort": "none"}, None),
        (MODEL, {"reasoning_effort": "minimal"}, None),
        (MODEL, {"reasoning_effort": "low", "max_tokens": 1024}, None),
        (MODEL, {"reasoning_effort": "low"}, 2048),
        (MODEL, {"reasoning_effort": "high"}, 2048),
        (MODEL, {"reasoning_effort": "low", "max_tokens": 1500}, 1024),
        (MODEL, {"reasoning_effort": "medium", "max_tokens": 50000}, 8192),
        ("claude-3-7-sonnet-latest", {"reasoning_effort": "low"}, 2048),
        ("claude-opus-4-1-20250805", {"reasoning_effort": "low"}, 2048),
        ("claude-sonnet-4-20250514", {"reasoning_effort": "low"}, 2048),
        ("claude-sonnet-4@20250514", {"reasoning_effort": "low"}, 2048),
        ("claude-opus-4-6", {"reasoning_effort": "low"}, "adaptive"),
        ("claude-opus-4-10", {"reasoning_effort": "low"}, "adaptive"),
        ("claude-sonnet-5", {"reasoning_effort": "low"}, "adaptive"),
    ],
)
def test_anthropic_thinking(model, params, thinking):
    """An effort is a budget below the length, or, for newer models, an effort."""
    sent = body(model=model, **params)
    if thinking is None:
        assert "thinking" not in sent
    elif thinking == "adaptive":
        assert sent["thinking"]["type"] == "adaptive"
        assert sent["output_config"] == {"effort": "low"}
    else:
        assert sent["thinking"] == {"type": "enabled", "budget_tokens": thinking}
        assert "output_config" not in sent


def test_anthropic_thinking_by_configuration():
    """The configuration knows better than the model's name."""
    adaptive = PLAIN._replace(thinking="adaptive")
    budget = PLAIN._replace(thinking="budget")
    params = {"reasoning_effort": "low"}
    assert body(own=adaptive, model=MODEL, **params)["thinking"]["type"] == ("adaptive")
    assert body(own=budget, model="other", **params)["thinking"]["type"] == ("enabled")


def test_anthropic_thinking_limits_the_rest():
    """With thinking there is no temperature, and no tool that has to be called."""
    params = {"reasoning_effort": "low", "temperature": 0.2, "top_k": 4}
    sent = body(model=MODEL, top_p=0.5, **params)
    assert not {"temperature", "top_p", "top_k"} & sent.keys()
    assert body(model=MODEL, top_p=0.97, **params)["top_p"] == 0.97
    forced = body(model=MODEL, tools=[TOOL], tool_choice="required", **params)
    assert "thinking" not in forced
    assert forced["temperature"] == 0.2
    begun = [*HELLO, said("assistant", "Well")]
    assert "thinking" not in body(begun, model=MODEL, **params)


@pytest.mark.parametrize("value", [{"type": "disabled"}, "x", {"type": "enabled"}])
def test_anthropic_passes_its_own_thinking_through(value):
    """A request's ``thinking`` goes up as it is, whatever it is."""
    assert body(thinking=value)["thinking"] == value


def test_anthropic_memory_forgets_the_oldest():
    """So much is remembered, and what was used last stays."""
    memory = Memory(2)
    for id in ("a", "b"):
        memory.put(id, [{"type": "redacted_thinking", "data": id}])
    memory.get("a")
    memory.put("c", [{"type": "redacted_thinking", "data": "c"}])
    assert [bool(memory.get(id)) for id in "abc"] == [True, False, True]


def test_anthropic_marks_the_prompt_for_the_cache():
    """With ``cache`` the ends of the instructions and of the messages are marked."""
    messages = [said("system", "Be brief."), *HELLO]
    sent = body(messages, PLAIN._replace(cache=True))
    mark = {"cache_control": {"type": "ephemeral"}}
    assert sent["system"] == [text("Be brief.") | mark]
    assert sent["messages"][-1]["content"] == [text("Hello") | mark]
    loop = [*messages, calling(call("t1")), answer("t1")]
    sent = body(loop, PLAIN._replace(cache=True))
    assert sent["messages"][-1]["content"] == [result("t1") | mark]
    assert orjson.dumps(sent).count(b"cache_control") == 2


CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "twin": {"anyOf": [{"$ref": "#/$defs/Twin"}, {"type": "null"}]},
        "seen": {"type": "array", "items": {"type": "string", "format": "date"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {
        "Twin": {"type": "object", "properties": {}, "additionalProperties": False}
    },
}
LOOP = {"type": "object", "additionalProperties": False, "properties": {}}
LOOP["properties"]["next"] = {"$ref": "#/$defs/Loop"}
LOOP["$defs"] = {"Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "null"}]}}


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}


def test_anthropic_structured_outputs():
    """A schema that the API takes goes up as it is."""
    sent = body(response_format=form(CITY))
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": CITY}}
    assert "system" not in sent


def test_anthropic_structured_outputs_leave_limits_out():
    """Limits that the API does not know are told in words."""
    year = {"type": "integer", "minimum": 1900}
    schema = {**CITY, "properties": {**CITY["properties"], "year": year}}
    sent = body([said("system", "Be brief."), *HELLO], response_format=form(schema))
    kept = sent["output_config"]["format"]["schema"]
    assert kept["properties"]["year"] == {"type": "integer"}
    first, note = sent["system"]
    assert first == text("Be brief.")
    assert '"minimum":1900' in note["text"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": ["object", "null"], "properties": {}},
        LOOP,
        {"$ref": "#"},
        {"$ref": "https://example.org/schema"},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "array", "items": {"enum": [{"a": 1}]}},
        {"type": "array", "items": True},
        {**LOOP, "properties": {"a": {"not": {"type": "string"}}}},
    ],
)
def test_anthropic_tells_other_schemas_in_words(schema):
    """Where the API would refuse the schema, the model is told of it."""
    sent = body(response_format=form(schema))
    assert "output_config" not in sent
    assert orjson.dumps(schema).decode() in sent["system"][0]["text"]


def test_anthropic_any_json_object():
    """For ``json_object`` there are only words."""
    sent = body(response_format={"type": "json_object"})
    assert "output_config" not in sent
    assert "one JSON object" in sent["system"][0]["text"]
    assert "system" not in body(response_format={"type": "text"})


TEXTS = st.sampled_from(["", " ", "\n", "a", "b ", "{}", "Grüß"])
IDS = st.sampled_from(["a", "b", "c", "x.y:0"])
CALLS = st.builds(call, IDS, st.sampled_from(["", "{}", '{"k": 1}', "[", "7"]))
PARTS = st.lists(
    st.builds(text, TEXTS) | st.just({"type": "image_url", "image_url": {"url": RED}}),
    min_size=1,
    max_size=3,
)
MESSAGES = st.one_of(
    st.builds(said, st.sampled_from(["system", "developer"]), TEXTS),
    st.builds(said, st.just("user"), TEXTS | PARTS),
    st.builds(said, st.just("assistant"), TEXTS | st.none()),
    st.builds(
        lambda calls, content: calling(*calls, content=content),
        st.lists(CALLS, min_size=1, max_size=3),
        TEXTS | st.none(),
    ),
    st.builds(answer, IDS, TEXTS),
)
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}


def check(sent) -> None:
    """Fail where the API would refuse *sent*."""
    roles = [message["role"] for message in sent["messages"]]
    assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
    used: set[str] = set()
    due: list[str] = []
    for message in sent["messages"]:
        content = message["content"]
        assert content
        for block in content:
            assert block["type"] != "text" or block["text"].strip()
        results = [b for b in content if b["type"] == "tool_result"]
        assert content[: len(results)] == results
        assert sorted(b["tool_use_id"] for b in results) == sorted(due)
        kinds = [b["type"] for b in content]
        uses = [b for b in content if b["type"] == "tool_use"]
        due = [b["id"] for b in uses]
        if uses:
            assert message["role"] == "assistant"
            assert "text" not in kinds[kinds.index("tool_use") :]
        assert used.isdisjoint(due) and len(set(due)) == len(due)
        used.update(due)
        assert all(re.fullmatch("[A-Za-z0-9_-]{1,128}", id) for id in due)
        assert all(isinstance(b["input"], dict) for b in uses)
        for b in results:
            assert b.get("content") != []
    assert not due
    if used:
        assert sent["tools"]
    for block in sent.get("system", ()):
        assert block["text"].strip()
    last = sent["messages"][-1]
    if last["role"] == "assistant":
        assert "thinking" not in sent
        assert last["content"][-1]["text"] == last["content"][-1]["text"].rstrip()
    thinking = sent.get("thinking")
    if thinking and thinking["type"] == "enabled":
        assert 1024 <= thinking["budget_tokens"] < sent["max_tokens"]
        assert sent.get("tool_choice", {}).get("type") not in ("any", "tool")
        if last["content"][0]["type"] == "tool_result":
            first = _first_of_the_loop(sent["messages"])
            assert first["content"][0]["type"] == "thinking"


def _first_of_the_loop(messages):
    """Return the assistant's message that the answer under way began with."""
    place = len(messages) - 1
    while place >= 0 and (
        messages[place]["role"] == "assistant"
        or messages[place]["content"][0]["type"] == "tool_result"
    ):
        place -= 1
    return messages[place + 1]


@settings(deadline=None, max_examples=300)
@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=8),
    known=st.sets(IDS),
    cache=st.booleans(),
    tools=st.booleans(),
    params=st.fixed_dictionaries(
        {},
        optional={
            "reasoning_effort": st.sampled_from(["none", "low", "high"]),
            "max_tokens": st.integers(1, 5000),
            "tool_choice": st.sampled_from(["none", "auto", "required"]),
        },
    ),
)
def test_anthropic_takes_any_conversation(messages, known, cache, tools, params):
    """Whatever is said, what goes up keeps to the API's rules."""
    memory = Memory()
    for id in known:
        memory.put(id, [THOUGHT])
    if tools:
        params = {**params, "tools": [TOOL]}
    try:
        sent = body(
            messages, PLAIN._replace(cache=cache), model=MODEL, memory=memory, **params
        )
    except InvalidRequest as error:
        assert error.param == "messages"
        return
    check(sent)
