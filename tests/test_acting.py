"""Agents that act, over HTTP: own tools, client tools, both; limits, failures, ends."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import openai
import pytest

from edwin.testing.gateway import TOKEN
from tests import acting
from tests.conftest import Client, raw_chat
from tests.process import ROOT
from tests.test_principals import named, token

WEATHER = {"python": "tests.acting:weather", "idempotent": True}
ADD = {"python": "tests.acting:add"}
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at the client's screen.",
        "parameters": {"type": "object", "properties": {}},
    },
}


FAILING = ("broken", "panics", "lists", "mute", "shouts")


def call(name: str, id: str = "call_1", /, **arguments) -> dict:
    """Return a tool call as a model makes it."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": id, "type": "function", "function": function}


def agent(*tools: dict, **more) -> dict:
    """Return the configuration of a main agent with these tools."""
    return {"agents": {"list": [{"id": "main", "tools": list(tools), **more}]}}


@pytest.fixture
def log():
    """Return what the tools note, empty."""
    return acting.reset()


@pytest.fixture
def make(make_gateway):
    """Return what starts a gateway whose agent has tools, and a client of it."""

    async def make(*tools: dict, config: dict | None = None, **more) -> Client:
        document = {**agent(*tools, **more), **(config or {})}
        return Client(await make_gateway(document))

    return make


def sent(client: Client, place: int) -> list[dict]:
    """Return the messages that the provider read in a call."""
    return client.served.upstream.requests[place].body["messages"]


def check_transcript(messages: list[dict]) -> None:
    """Hold *messages* against what providers ask of a conversation with tools."""
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            assert isinstance(message["content"], str) and message["content"]
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls, f"unanswered: {open_calls}"
            open_calls = [c["id"] for c in message.get("tool_calls") or ()]
            assert len(set(open_calls)) == len(open_calls)
            for asked in message.get("tool_calls") or ():
                function = asked["function"]
                assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", function["name"])
                assert isinstance(json.loads(function["arguments"]), dict)
            assert message.get("content") or open_calls
    assert not open_calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.gen_test
async def test_acting_own_tool(make, log, stream):
    """An agent's own tool is called, and the client sees the answer alone."""
    client = await make(WEATHER)
    upstream = client.served.upstream
    upstream.reply("Let me see.", tool_calls=[call("weather", city="Graz")])
    upstream.reply("It is sunny.")
    answer = await client.chat("Weather?", stream=stream, user="ada")
    assert answer.status == 200
    assert answer.text == "Let me see.\n\nIt is sunny."
    assert "weather" not in answer.body and "tool_calls" not in answer.body
    assert log.calls == [("weather", "Graz")]
    second = sent(client, 1)
    assert [m["role"] for m in second] == ["user", "assistant", "tool"]
    assert second[2]["content"] == "Graz: sunny"
    offered = upstream.requests[0].body["tools"]
    assert offered[0]["function"]["name"] == "weather"
    assert offered[0]["function"]["parameters"]["required"] == ["city"]
    check_transcript(second)


@pytest.mark.gen_test
async def test_acting_usage_is_summed(make, log):
    """The answer's usage is that of all turns."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("Sunny.")
    answer = await client.chat("Weather?")
    assert answer.json["usage"]["total_tokens"] == 30


@pytest.mark.gen_test
async def test_acting_calls_at_once(make, log):
    """Calls of one turn run at once, and their results stand in the calls' order."""
    client = await make(WEATHER, {"python": "tests.acting:slow_first"})
    client.served.upstream.reply(
        tool_calls=[
            call("slow_first", "c1", name="slow"),
            call("slow_first", "c2", name="quick"),
            call("weather", "c3", city="Graz"),
            call("weather", "c4", city="Linz"),
        ]
    )
    client.served.upstream.reply("Done.")
    assert (await client.chat("Go", user="ada")).text == "Done."
    results = [m for m in sent(client, 1) if m["role"] == "tool"]
    assert [(m["tool_call_id"], m["content"]) for m in results] == [
        ("c1", "I am slow"),
        ("c2", "I am quick"),
        ("c3", "Graz: sunny"),
        ("c4", "Linz: sunny"),
    ]
    assert log.most == 2
    check_transcript(sent(client, 1))
    client.served.upstream.reply("Yes.")
    await client.chat("And now?", user="ada")
    # What was kept is what was sent.
    assert sent(client, 2)[:-2] == sent(client, 1)
    check_transcript(sent(client, 2)[:-1])


@pytest.mark.gen_test
async def test_acting_one_at_a_time(make, log):
    """With parallel_tool_calls: false only the first call of a turn counts."""
    client = await make(WEATHER)
    client.served.upstream.reply(
        tool_calls=[
            call("weather", "c1", city="Graz"),
            call("weather", "c2", city="Linz"),
        ]
    )
    client.served.upstream.reply("Done.")
    answer = await client.chat("Go", parallel_tool_calls=False)
    assert (answer.text, log.calls) == ("Done.", [("weather", "Graz")])
    assert client.served.upstream.requests[0].body["parallel_tool_calls"] is False
    check_transcript(sent(client, 1))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("carries", [False, True])
@pytest.mark.gen_test
async def test_acting_both_kinds_in_one_turn(make, log, stream, carries):
    """A client's tool ends the run; own results are kept, and the run goes on when
    the client has answered, whether it carries its history or not."""
    client = await make(WEATHER)
    client.served.upstream.reply(
        "Both.",
        tool_calls=[call("weather", "own", city="Graz"), call("look", "theirs")],
    )
    answer = await client.chat("Go", tools=[LOOK], stream=stream, user="ada")
    if stream:
        deltas = [
            c["delta"] for e in answer.events[:-1] for c in e["choices"] if c["delta"]
        ]
        calls = [c for d in deltas for c in d.get("tool_calls") or ()]
        assert {c["index"] for c in calls} == {0}
        assert [c["id"] for c in calls if "id" in c] == ["theirs"]
        reason = [e["choices"][0]["finish_reason"] for e in answer.events[:-1]][-1]
    else:
        message = answer.json["choices"][0]["message"]
        assert [c["id"] for c in message["tool_calls"]] == ["theirs"]
        reason = answer.json["choices"][0]["finish_reason"]
    assert reason == "tool_calls"
    assert log.calls == [("weather", "Graz")]
    client.served.upstream.reply("All seen.")
    seen = {"role": "tool", "tool_call_id": "theirs", "content": "a screen"}
    asked = {
        "role": "assistant",
        "content": "Both.",
        "tool_calls": [call("look", "theirs")],
    }
    goes_on = ("Go", asked, seen) if carries else (seen,)
    again = await client.chat(*goes_on, tools=[LOOK], user="ada")
    assert (again.status, again.text) == (200, "All seen.")
    messages = sent(client, 1)
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool"]
    assert {m["content"] for m in messages[2:]} == {"Graz: sunny", "a screen"}
    check_transcript(messages)


@pytest.mark.parametrize("resends", [False, True])
@pytest.mark.gen_test
async def test_acting_history(make, log, resends):
    """What the agent's tools did is part of the session, whether the client resends
    what it saw of it or not."""
    client = await make(WEATHER)
    client.served.upstream.reply("Hm.", tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("It is sunny.")
    first = await client.chat("Weather?", user="ada")
    assert first.text == "Hm.\n\nIt is sunny."
    client.served.upstream.reply("Yes.")
    seen = ("Weather?", {"role": "assistant", "content": first.text}, "Sure?")
    await client.chat(*(seen if resends else seen[-1:]), user="ada")
    messages = sent(client, 2)
    roles = [m["role"] for m in messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[2]["content"] == "Graz: sunny"
    check_transcript(messages)


@pytest.mark.parametrize(
    "asked, words",
    [
        (call("weather", town="Graz"), "city"),
        (call("nothing"), "no tool called 'nothing'"),
        (
            {**call("weather"), "function": {"name": "weather", "arguments": "{"}},
            "JSON",
        ),
        (
            {**call("weather"), "function": {"name": "weather", "arguments": "[]"}},
            "obj",
        ),
        (call("refuse", what="rain"), "rain cannot be had"),
        (call("broken"), "KeyError"),
        (call("panics"), "Panic: out of it"),
        (call("lists"), "FileNotFoundError: caf?.txt"),
        (call("mute"), "Mute: its message cannot be read"),
        (call("shouts"), "xxx…"),
        (call("functions.weather"), "no tool called"),
        (call("a b"), "no tool called"),
        (call("n" * 80), "no tool called"),
    ],
)
@pytest.mark.gen_test
async def test_acting_failures_go_back_to_the_model(make, log, asked, words):
    """Bad arguments and failures are told to the model, and the run goes on."""
    client = await make(
        WEATHER,
        {"python": "tests.acting:refuse"},
        *({"python": f"tests.acting:{name}"} for name in FAILING),
    )
    client.served.upstream.reply(tool_calls=[asked])
    client.served.upstream.reply("I see.")
    answer = await client.chat("Go")
    assert (answer.status, answer.text) == (200, "I see.")
    result = sent(client, 1)[-1]
    assert result["role"] == "tool" and words in result["content"]
    assert len(result["content"]) < 20_000
    assert log.calls == []
    check_transcript(sent(client, 1))


@pytest.mark.gen_test
async def test_acting_timeout(make, log):
    """A tool that takes too long is ended, its signal set first; the run goes on."""
    client = await make({"python": "tests.acting:hang", "timeoutSeconds": 0.1})
    client.served.upstream.reply(tool_calls=[call("hang")])
    client.served.upstream.reply("Too long.")
    assert (await client.chat("Go")).text == "Too long."
    assert "longer than 0.1 s" in sent(client, 1)[-1]["content"]
    assert log.signal_at_cancel == [True]


@pytest.mark.gen_test
async def test_acting_timeout_in_a_thread(make, log):
    """So is one that blocks in a thread: it sees the signal."""
    client = await make({"python": "tests.acting:block", "timeoutSeconds": 0.1})
    client.served.upstream.reply(tool_calls=[call("block")])
    client.served.upstream.reply("Too long.")
    assert (await client.chat("Go")).text == "Too long."
    while not log.signal_at_cancel:
        await asyncio.sleep(0.01)
    assert log.signal_at_cancel == [True]


@pytest.mark.gen_test
async def test_acting_cancel_in_the_middle(make, connect, log):
    """A client that leaves ends the tools at work, their signals set first; what they
    had done so far is kept without the calls that nobody answered."""
    client = await make(WEATHER, {"python": "tests.acting:hang"})
    client.served.upstream.reply(
        "Let me see.",
        tool_calls=[call("weather", "c1", city="Graz"), call("hang", "c2")],
    )
    raw = await connect(client.served, raw_chat("Go", stream=True, user="ada"))
    await log.entered.wait()
    while not log.calls or log.at_once:
        await asyncio.sleep(0.01)
    raw.writer.close()
    while not log.signal_at_cancel:
        await asyncio.sleep(0.01)
    assert log.signal_at_cancel == [True]
    while client.served.gateway.engine.running:
        await asyncio.sleep(0.01)
    client.served.upstream.reply("Hello again.")
    assert (await client.chat("Something else", user="ada")).text == "Hello again."
    messages = sent(client, 1)
    check_transcript(messages[:-1])
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "user"]


@pytest.mark.gen_test
async def test_acting_deadline_ends_tools(make, log):
    """The run's deadline ends the tools at work; the client is told run_timeout."""
    client = await make(
        {"python": "tests.acting:hang"},
        config={"gateway": {"runs": {"timeoutSeconds": 0.3}}},
    )
    client.served.upstream.reply(tool_calls=[call("hang")])
    answer = await client.chat("Go")
    assert (answer.status, answer.error["code"]) == (504, "run_timeout")
    assert log.signal_at_cancel == [True]


@pytest.mark.gen_test
async def test_acting_turn_limit(make, log):
    """A run that needs more turns than maxTurns fails."""
    client = await make(WEATHER, maxTurns=2)
    for place in range(3):
        client.served.upstream.reply(
            tool_calls=[call("weather", f"c{place}", city="Graz")]
        )
    answer = await client.chat("Go")
    assert (answer.status, answer.error["code"]) == (422, "max_turns_exceeded")
    assert len(client.served.upstream.requests) == 2


@pytest.mark.gen_test
async def test_acting_call_limit(make, log):
    """A run that needs more calls than maxToolCalls fails, and makes none of those."""
    client = await make(WEATHER, maxToolCalls=1)
    client.served.upstream.reply(
        tool_calls=[call("weather", f"c{place}", city="Graz") for place in range(2)]
    )
    answer = await client.chat("Go")
    assert (answer.status, answer.error["code"]) == (422, "max_tool_calls_exceeded")
    assert log.calls == []


@pytest.mark.gen_test
async def test_acting_token_cap_is_the_runs(make, log):
    """caps.maxOutputTokens holds for all turns together."""
    client = await make(WEATHER, caps={"maxOutputTokens": 8})
    client.served.upstream.reply(tool_calls=[call("weather", "c1", city="Graz")])
    client.served.upstream.reply("Hm.", tool_calls=[call("weather", "c2", city="Linz")])
    answer = await client.chat("Go", user="ada")
    sizes = [r.body["max_completion_tokens"] for r in client.served.upstream.requests]
    assert sizes == [8, 3]
    choice = answer.json["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "Hm.")
    run_id = answer.headers["x-edwin-run-id"]
    shown = await client.request(f"/v1/runs/{run_id}", method="GET")
    assert json.loads(shown.body)["finish_reason"] == "length"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.gen_test
async def test_acting_cut_off_call_is_not_made(make, log, reason):
    """A call in an answer that was cut off is not made."""
    client = await make(WEATHER)
    client.served.upstream.reply(
        "Well", tool_calls=[call("weather", city="Gr")], finish_reason=reason
    )
    answer = await client.chat("Go")
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == reason
    assert choice["message"].get("tool_calls") is None
    assert (choice["message"]["content"], log.calls) == ("Well", [])


@pytest.mark.parametrize(
    "choice, first, later",
    [
        ("auto", "auto", "auto"),
        ("required", "required", "auto"),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "function", "function": {"name": "weather"}},
            "auto",
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            "same",
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
        ),
    ],
)
@pytest.mark.gen_test
async def test_acting_tool_choice(make, log, choice, first, later):
    """What must be called must be called once: after a result, the model is free."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("Sunny.")
    assert (await client.chat("Go", tool_choice=choice)).text == "Sunny."
    bodies = [request.body for request in client.served.upstream.requests]
    assert bodies[0]["tool_choice"] == (choice if first == "same" else first)
    assert bodies[1]["tool_choice"] == later


ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {
        "mode": "auto",
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    },
}


@pytest.mark.parametrize("choice", ["none", ALLOWED], ids=["none", "allowed_tools"])
@pytest.mark.gen_test
async def test_acting_tool_choice_holds(make, log, choice):
    """What tool_choice forbids goes up, and is not called, whatever the model makes."""
    client = await make(WEATHER, ADD)
    client.served.upstream.reply(tool_calls=[call("add", a=1, b=2)])
    client.served.upstream.reply("Then not.")
    assert (await client.chat("Go", tool_choice=choice)).text == "Then not."
    body = client.served.upstream.requests[0].body
    assert body["tool_choice"] == choice
    assert len(body["tools"]) == 2
    assert "may be called now" in sent(client, 1)[-1]["content"]
    assert log.calls == []


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "nope"}}},
            "tool_choice",
        ),
    ],
)
@pytest.mark.gen_test
async def test_acting_tool_choice_without_the_tool(make_gateway, fields, param):
    """A choice of a tool that is not there is the request's fault."""
    client = Client(await make_gateway())
    answer = await client.chat("Go", **fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert client.served.upstream.requests == []


@pytest.mark.gen_test
async def test_acting_name_taken(make, log):
    """A client's tool cannot have the name of one of the agent's own."""
    client = await make(WEATHER)
    mine = {**LOOK, "function": {**LOOK["function"], "name": "weather"}}
    answer = await client.chat("Go", tools=[LOOK, mine])
    assert answer.status == 400
    assert answer.error["param"] == "tools[1].function.name"


@pytest.mark.gen_test
async def test_acting_permissions(make, log):
    """An agent is not offered the tools it may not use, and cannot call them."""
    client = await make(WEATHER, ADD, permissions={"tools": {"deny": ["add*"]}})
    client.served.upstream.reply(tool_calls=[call("add", a=1, b=2)])
    client.served.upstream.reply("No.")
    assert (await client.chat("Go")).text == "No."
    offered = client.served.upstream.requests[0].body["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["weather"]
    assert "no tool called" in sent(client, 1)[-1]["content"]
    assert log.calls == []


@pytest.mark.gen_test
async def test_acting_principal_narrows(make_gateway, log):
    """A principal's tools are those of the agent that its patterns match too."""
    people = [named("ann", "runs:create", tools=["w*"]), named("bob", "runs:create")]
    config = {"gateway": {"auth": {"principals": people}}, **agent(WEATHER, ADD)}
    client = Client(await make_gateway(config))
    upstream = client.served.upstream
    for id in ("ann", "bob"):
        authorization = {"Authorization": f"Bearer {token(id)}"}
        assert (await client.chat("Go", headers=authorization)).status == 200
    offered = [
        [tool["function"]["name"] for tool in request.body["tools"]]
        for request in upstream.requests
    ]
    assert offered == [["weather"], ["weather", "add"]]


@pytest.mark.gen_test
async def test_acting_context(make, log):
    """A tool knows its run, attempt, agent, session and principal."""
    client = await make(ADD)
    client.served.upstream.reply(tool_calls=[call("add", "c9", a=1, b=2)])
    client.served.upstream.reply("3")
    answer = await client.chat("Go", user="ada")
    (context,) = log.contexts
    assert context.run_id == answer.headers["x-edwin-run-id"]
    assert context.token == f"{context.run_id}.1"
    assert context.session_key == answer.headers["x-edwin-session-key"]
    assert (context.agent, context.principal_id) == ("main", "owner")
    assert context.call_id == "c9"


def effects(client: Client, run_id: str) -> int:
    """Return whether the store says that a run has effects."""
    path = client.served.gateway.config.gateway.state_dir / "edwin.db"
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT effects FROM runs WHERE run_id = ?"
        return database.execute(query, [run_id]).fetchone()[0]


@pytest.mark.parametrize("user", [None, "ada"])
@pytest.mark.gen_test
async def test_acting_effects_are_marked_before(make, connect, log, user):
    """The run is marked durably before a tool starts that is not idempotent."""
    client = await make({"python": "tests.acting:hang"}, WEATHER)
    client.served.upstream.reply(tool_calls=[call("hang")])
    fields = {"user": user} if user else {}
    raw = await connect(client.served, raw_chat("Go", **fields))
    await log.entered.wait()
    (run,) = client.served.gateway.engine.live()
    assert effects(client, run.id) == 1
    raw.writer.close()
    await run.wait()
    assert effects(client, run.id) == 1


@pytest.mark.gen_test
async def test_acting_idempotent_tools_leave_no_mark(make, log):
    """A run with idempotent calls alone is not marked."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("Sunny.")
    answer = await client.chat("Go", user="ada")
    assert effects(client, answer.headers["x-edwin-run-id"]) == 0


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.gen_test
async def test_acting_effects_are_not_repeated(make, log, status):
    """An SDK does not repeat a call whose run has done what must not be done twice."""
    client = await make(ADD)
    client.served.upstream.reply(tool_calls=[call("add", a=1, b=2)])
    client.served.upstream.fail(status)
    async with openai.AsyncOpenAI(
        base_url=f"{client.served.url}/v1", api_key=TOKEN
    ) as sdk:
        with pytest.raises(openai.APIStatusError):
            await sdk.chat.completions.create(
                model="edwin", messages=[{"role": "user", "content": "Go"}]
            )
    assert log.calls == [("add", "1+2")]


@pytest.mark.gen_test
async def test_acting_ids_that_repeat(make, log):
    """Providers that count their calls from 0 in every turn lose nothing."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", "call_0", city="Graz")])
    client.served.upstream.reply("Look.", tool_calls=[call("look", "call_0")])
    answer = await client.chat("Go", tools=[LOOK], user="ada")
    message = answer.json["choices"][0]["message"]
    client.served.upstream.reply("Seen.")
    seen = {"role": "tool", "tool_call_id": "call_0", "content": "a screen"}
    history = ("Go", {k: v for k, v in message.items() if v is not None}, seen)
    await client.chat(*history, tools=[LOOK], user="ada")
    messages = sent(client, 2)
    assert [m["role"] for m in messages] == [
        *("user", "assistant", "tool", "assistant", "tool")
    ]
    check_transcript(messages)


@pytest.mark.gen_test
async def test_acting_ids_that_repeat_in_one_turn(make, log):
    """Each call of a turn has an id of its own, whatever the provider gives."""
    client = await make(WEATHER)
    towns = {"a_2": "Graz", "a": "Linz", "a ": "Wien"}
    client.served.upstream.reply(
        tool_calls=[call("weather", i.strip(), city=t) for i, t in towns.items()]
    )
    client.served.upstream.reply("Done.")
    await client.chat("Go")
    results = [m["content"] for m in sent(client, 1) if m["role"] == "tool"]
    assert results == ["Graz: sunny", "Linz: sunny", "Wien: sunny"]
    check_transcript(sent(client, 1))


@pytest.mark.gen_test
async def test_acting_window_with_ids_that_repeat(make, log):
    """The history is cut as ever where each turn's calls have the same ids."""
    client = await make(WEATHER, maxHistoryMessages=4)
    for count in range(4):
        client.served.upstream.reply(
            tool_calls=[call("weather", "call_0", city="Graz")]
        )
        client.served.upstream.reply("Sunny.")
        await client.chat(f"{count}", user="ada")
    client.served.upstream.reply(tool_calls=[call("look", "call_0")])
    await client.chat("Look", tools=[LOOK], user="ada")
    client.served.upstream.reply("Seen.")
    seen = {"role": "tool", "tool_call_id": "call_0", "content": "a screen"}
    await client.chat(seen, tools=[LOOK], user="ada")
    assert [m["role"] for m in sent(client, 9)] == ["user", "assistant", "tool"]


@pytest.mark.gen_test
async def test_acting_refusal_is_recognised(make, log):
    """An answer that ends in a refusal is known when the client sends it back."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply(deltas=[{"refusal": "No."}])
    answer = await client.chat("Go", user="ada")
    message = answer.json["choices"][0]["message"]
    assert message["refusal"] == "No."
    client.served.upstream.reply("Fine.")
    back = {k: v for k, v in message.items() if v is not None}
    await client.chat("Go", back, "Why?", user="ada")
    roles = [m["role"] for m in sent(client, 2)]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


@pytest.mark.gen_test
async def test_acting_empty_answers_do_not_go_up_again(make, log):
    """An answer that says nothing is no part of what providers read later."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("")
    await client.chat("Go", user="ada")
    client.served.upstream.reply("Yes.")
    await client.chat("Well?", user="ada")
    roles = [m["role"] for m in sent(client, 2)]
    assert roles == ["user", "assistant", "tool", "user"]


@pytest.mark.gen_test
async def test_acting_events(make, log):
    """The run's events show what its tools were called with and gave back."""
    client = await make(WEATHER)
    client.served.upstream.reply(tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply("Sunny.")
    answer = await client.chat("Go", headers={"Idempotency-Key": "k"})
    run_id = answer.headers["x-edwin-run-id"]
    response = await client.request(f"/v1/runs/{run_id}/events", method="GET")
    events = [
        json.loads(line[6:])
        for line in response.body.decode().split("\n")
        if line.startswith("data: ")
    ]
    tools = [e for e in events if e["event"].startswith("tool.")]
    assert [e["payload"] for e in tools] == [
        {"call_id": "call_1", "name": "weather", "arguments": '{"city": "Graz"}'},
        {
            "call_id": "call_1",
            "name": "weather",
            "error": None,
            "result": "Graz: sunny",
        },
    ]


FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.mark.gen_test
async def test_acting_structured_fits(make_gateway):
    """An answer that fits passes as it is, and the format goes up."""
    client = Client(await make_gateway())
    client.served.upstream.reply('{"city": "Graz"}')
    answer = await client.chat("Go", response_format=FORM, stream=True)
    assert answer.text == '{"city": "Graz"}'
    assert client.served.upstream.requests[0].body["response_format"] == FORM


@pytest.mark.gen_test
async def test_acting_structured_misfit(make_gateway):
    """One that does not is an error that says why."""
    client = Client(await make_gateway())
    client.served.upstream.reply('{"city": 3}')
    answer = await client.chat("Go", response_format=FORM)
    assert (answer.status, answer.error["code"]) == (502, "structured_output_invalid")
    assert "city" in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.gen_test
async def test_acting_structured_asks_again(make, stream):
    """With retries the model is asked again, with the error; nobody sees the misfit."""
    client = await make(structured={"retries": 1})
    client.served.upstream.reply("Graz!")
    client.served.upstream.reply('{"city": "Graz"}')
    answer = await client.chat("Go", response_format=FORM, stream=stream, user="ada")
    assert answer.text == '{"city": "Graz"}'
    assert "Graz!" not in answer.body
    again = sent(client, 1)
    assert [m["role"] for m in again] == ["user", "assistant", "user"]
    client.served.upstream.reply("Yes.")
    await client.chat("And?", user="ada")
    assert [m["content"] for m in sent(client, 2)] == ["Go", '{"city": "Graz"}', "And?"]
    if not stream:
        assert answer.json["usage"]["total_tokens"] == 30


@pytest.mark.gen_test
async def test_acting_structured_after_tools(make, log):
    """What a model says beside its tool calls is no part of a structured answer."""
    client = await make(WEATHER)
    client.served.upstream.reply("Hm.", tool_calls=[call("weather", city="Graz")])
    client.served.upstream.reply('{"city": "Graz"}')
    answer = await client.chat("Go", response_format=FORM, stream=True)
    assert answer.text == '{"city": "Graz"}'


@pytest.mark.gen_test
async def test_acting_python_agent(make_gateway):
    """An agent that is Python code answers at the same endpoint, with a memory."""
    document = {"agents": {"list": [{"id": "main", "python": "tests.acting:recount"}]}}
    client = Client(await make_gateway(document))
    first = await client.chat("one", user="ada")
    second = await client.chat("two", user="ada", stream=True)
    assert (first.text, second.text) == ("one", "one, two")
    assert second.events[-1] == "[DONE]"
    assert effects(client, first.headers["x-edwin-run-id"]) == 1


@pytest.mark.parametrize(
    "name, status, code",
    [("fails", 500, "agent_failed"), ("hangs", 504, "run_timeout")],
)
@pytest.mark.gen_test
async def test_acting_python_agent_fails(make_gateway, error_log, name, status, code):
    """A failing agent is a typed error, and a hanging one meets the deadline."""
    document = {
        "gateway": {"runs": {"timeoutSeconds": 0.3}},
        "agents": {"list": [{"id": "main", "python": f"tests.acting:{name}"}]},
    }
    client = Client(await make_gateway(document))
    answer = await client.chat("one")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert "nobody knows" not in answer.body
    assert len(error_log) == (code == "agent_failed")
    error_log.clear()


@pytest.mark.gen_test
async def test_acting_client_system_message_goes_below(make):
    """A client's system message never replaces the agent's instructions."""
    client = await make(instructions="You are Edwin.")
    await client.chat({"role": "system", "content": "You are Eve."}, "Hello")
    assert sent(client, 0)[0] == {"role": "system", "content": "You are Edwin."}


@pytest.mark.gen_test
async def test_acting_who_blocks_is_named(make, caplog):
    """A tool that keeps the loop from its work is named in the log, with its run."""
    client = await make({"python": "tests.acting:blocks"})
    client.served.upstream.reply(tool_calls=[call("blocks")])
    client.served.upstream.reply("Done.")
    answer = await client.chat("Go")
    while not (lines := [r for r in caplog.records if r.name == "edwin.monitor"]):
        await asyncio.sleep(0.01)
    run_id = answer.headers["x-edwin-run-id"]
    assert f"by {run_id} main blocks" in lines[0].getMessage()


PLAIN = """
import asyncio, sys
from pathlib import Path
from edwin.testing import LocalGateway

async def main():
    async with LocalGateway(Path(sys.argv[1])):
        heavy = {"pydantic", "docstring_parser", "mcp", "pydantic_ai", "httpx", "anyio"}
        print(*sorted(heavy & sys.modules.keys()), "none")

asyncio.run(main())
"""


def test_acting_nothing_is_loaded_unless_used(tmp_path):
    """A gateway whose agents have no tools loads nothing for them."""
    words = [sys.executable, "-c", PLAIN, str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.stdout.split() == ["none"], result.stderr
