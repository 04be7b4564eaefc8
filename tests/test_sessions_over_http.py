"""Sessions through the endpoint: what the model reads, for every kind of client."""

from __future__ import annotations

import asyncio
import json

import pytest

from edwin.testing import ScriptedUpstream
from tests.conftest import Client, chat
from tests.sessions.test_reconcile import a, brief, s, t, u

CALLS = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
TWO_CALLS = [CALLS, {"id": "c2", "function": {"name": "f", "arguments": "{}"}}]


def read(upstream: ScriptedUpstream) -> list[str]:
    """Return the context of the upstream's last request, in brief."""
    return [brief(m) for m in upstream.requests[-1].body["messages"]]


def script(upstream: ScriptedUpstream, *answers: str) -> None:
    for text in answers:
        upstream.reply(text)


async def stopped(client: Client, *messages, text: str = "", **fields) -> None:
    """Send a streamed request, and leave it before it ends, or after *text*."""
    upstream = client.served.upstream
    upstream.hang(after=[text] if text else None)
    count = len(upstream.requests)
    call = asyncio.ensure_future(
        client.chat(*messages, stream=True, user="ann", **fields)
    )
    request = await upstream.arrival(count + 1)
    await asyncio.sleep(0.05)
    call.cancel()
    await request.closed.wait()


# Each row: the conversation so far as (messages sent, answer), what is sent then,
# and what the model must read.  An answer of None: the client left before it began;
# "…text": it left after that text; a dict: the answer is a tool call.
TABLE = {
    "first turn": ([], ["go"], ["u:go"]),
    "newest only": ([(["1"], "ok")], ["2"], ["u:1", "a:ok", "u:2"]),
    "resend all": ([(["1"], "ok")], ["1", a("ok"), "2"], ["u:1", "a:ok", "u:2"]),
    "edit": (
        [(["1"], "ok"), (["2"], "ok")],
        ["1", a("ok"), "2b"],
        ["u:1", "a:ok", "u:2b"],
    ),
    "regenerate": (
        [(["1"], "ok"), (["2"], "no")],
        ["1", a("ok"), "2"],
        ["u:1", "a:ok", "u:2"],
    ),
    "dropped old history": (
        [(["1"], "ok"), (["2"], "yes")],
        ["2", a("yes"), "3"],
        ["u:2", "a:yes", "u:3"],
    ),
    "after dropped history, newest only": (
        [(["1"], "ok"), (["2"], "yes"), (["2", a("yes"), "3"], "then")],
        ["4"],
        ["u:1", "a:ok", "u:2", "a:yes", "u:3", "a:then", "u:4"],
    ),
    "after an edit, newest only": (
        [(["1"], "ok"), (["2"], "no"), (["1", a("ok"), "2b"], "yes")],
        ["3"],
        ["u:1", "a:ok", "u:2b", "a:yes", "u:3"],
    ),
    "lone tool result": (
        [(["go"], {"tool_calls": [CALLS]})],
        [t("c1")],
        ["u:go", "a:(c1)", "t:c1"],
    ),
    "abandoned tool call": (
        [(["go"], {"tool_calls": [CALLS]})],
        ["never mind"],
        ["u:go", "u:never mind"],
    ),
    "retry after a cancelled run": (
        [(["1"], "ok"), (["2"], None)],
        ["2"],
        ["u:1", "a:ok", "u:2"],
    ),
    "a partial answer stays": (
        [(["1"], "…par")],
        ["2"],
        ["u:1", "a:par", "u:2"],
    ),
    "retry after a cancelled run with tool results": (
        [(["go"], {"tool_calls": [CALLS]}), ([t("c1")], None)],
        [t("c1")],
        ["u:go", "a:(c1)", "t:c1"],
    ),
    "sliding window": (
        [(["1"], "ok"), (["2"], "ok")],
        [a("ok"), "2", a("ok"), "3"],
        ["a:ok", "u:2", "a:ok", "u:3"],
    ),
    "prefill": ([], ["go", a("Sure, ")], ["u:go", "a:Sure, "]),
    "system only": ([(["1"], "ok")], [s("be brief")], ["s:be brief", "u:1", "a:ok"]),
    "system is not kept": (
        [([s("x"), "1"], "ok")],
        ["2"],
        ["u:1", "a:ok", "u:2"],
    ),
    "T=[go, ok, go(stopped)] M=[go, ok, go]": (
        [(["go"], "ok"), (["go"], None)],
        ["go", a("ok"), "go"],
        ["u:go", "a:ok", "u:go"],
    ),
    "T=[1, ok, 2, ok] M=[ok, 2, ok, 3]": (
        [(["1"], "ok"), (["2"], "ok")],
        [a("ok"), "2", a("ok"), "3"],
        ["a:ok", "u:2", "a:ok", "u:3"],
    ),
    "T=[hi (assistant), U1, hi] M=[hi, U1, hi, U2]": (
        [([a("hi"), "U1"], "hi")],
        [a("hi"), "U1", a("hi"), "U2"],
        ["a:hi", "u:U1", "a:hi", "u:U2"],
    ),
    "T=[U1, U2] (both stopped) M=[U1, U2, U3]": (
        [(["U1"], None), (["U2"], None)],
        ["U1", "U2", "U3"],
        ["u:U1", "u:U2", "u:U3"],
    ),
    "T=[U1, A(c1,c2), t1, t2 (cancelled)] M=[t1, t2]": (
        [(["U1"], {"tool_calls": TWO_CALLS}), ([t("c1"), t("c2")], None)],
        [t("c1"), t("c2")],
        ["u:U1", "a:(c1,c2)", "t:c1", "t:c2"],
    ),
    "T=[go, ok, go, ok] M=[go, ok, NEW]": (
        [(["go"], "ok"), (["go"], "ok")],
        ["go", a("ok"), "NEW"],
        ["u:go", "a:ok", "u:NEW"],
    ),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", TABLE)
async def test_sessions_table(client, name):
    """Whatever a client resends, the model reads the conversation once, in order."""
    past, messages, context = TABLE[name]
    upstream = client.served.upstream
    for sent, answer in past:
        if answer is None:
            await stopped(client, *sent)
        elif isinstance(answer, dict):
            upstream.reply(**answer)
            assert (await client.chat(*sent, user="ann")).status == 200
        elif answer.startswith("…"):
            await stopped(client, *sent, text=answer[1:])
        else:
            upstream.reply(answer)
            assert (await client.chat(*sent, user="ann")).text == answer
    upstream.reply("done")
    assert (await client.chat(*messages, user="ann")).text == "done"
    assert read(upstream) == context


@pytest.mark.gen_test
async def test_sessions_retry_after_a_lost_answer(client):
    """A call that the SDK repeats replaces the answer that never arrived."""
    upstream = client.served.upstream
    upstream.reply("one", gap_s=0.1)
    call = asyncio.ensure_future(client.chat("go", user="ann"))
    request = await upstream.arrival()
    await request.over.wait()
    # The answer is complete, or nearly, and nobody is there to take it.
    call.cancel()
    await asyncio.sleep(0.1)
    upstream.reply("two")
    retry = {"x-stainless-retry-count": "1"}
    answer = await client.chat("go", user="ann", headers=retry)
    assert answer.text == "two"
    assert read(upstream) == ["u:go"]
    upstream.reply("three")
    await client.chat("on", user="ann")
    assert read(upstream) == ["u:go", "a:two", "u:on"]


@pytest.mark.gen_test
async def test_sessions_repetition_is_kept(client):
    """Without that sign, saying the same again is said twice."""
    upstream = client.served.upstream
    script(upstream, "one", "two")
    await client.chat("go", user="ann")
    await client.chat("go", user="ann")
    assert read(upstream) == ["u:go", "a:one", "u:go"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([t("c1")], "messages[0].tool_call_id"),
        ([s("x"), t("c1")], "messages[1].tool_call_id"),
        (["go", a("", "c1"), t("c2")], "messages[2].tool_call_id"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}])
async def test_sessions_tool_result_without_call(client, messages, param, fields):
    """A tool message that answers no call before it is refused, and not kept."""
    answer = await client.chat(*messages, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert client.served.upstream.requests == []
    assert (await client.chat("go", **fields)).status == 200
    assert read(client.served.upstream) == ["u:go"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CaseX", "casex"),
        ("ann", "ann "),
        ("u" * 300 + "a", "u" * 300 + "b"),
        ("e\u0301", "\u00e9"),
    ],
)
async def test_sessions_of_two_users_never_meet(client, one, other):
    """Users are told apart byte for byte, to the last of 4,096 characters."""
    first = await client.chat("mine", user=one)
    second = await client.chat("yours", user=other)
    assert read(client.served.upstream) == ["u:yours"]
    key = "x-edwin-session-key"
    assert first.headers[key] != second.headers[key]


@pytest.mark.gen_test
async def test_sessions_fifty_calls_of_one_user(client):
    """Calls of one user are answered in the order they came, one after another."""
    upstream, engine = client.served.upstream, client.served.gateway.engine
    upstream.hang(then=["m0"])
    calls = []
    for i in range(50):
        calls.append(asyncio.ensure_future(client.chat(f"m{i}", user="ann")))
        # Each has arrived before the next is sent.
        while engine.running + engine.waiting <= i:
            await asyncio.sleep(0.001)
    await upstream.arrival()
    upstream.release()
    answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == [f"m{i}" for i in range(50)]
    context = [m["content"] for m in upstream.requests[-1].body["messages"]]
    assert context[:-1:2] == context[1::2] == [f"m{i}" for i in range(49)]
    order = [r.body["messages"][-1]["content"] for r in upstream.requests]
    assert order == [f"m{i}" for i in range(50)]


@pytest.mark.gen_test
async def test_sessions_fifty_users_do_not_wait_for_each_other(client):
    """Fifty users at once are all being answered at once."""
    upstream = client.served.upstream
    for _ in range(50):
        upstream.hang()
    calls = [asyncio.ensure_future(client.chat("go", user=f"u{i}")) for i in range(50)]
    # All fifty are with the provider, and none has been answered.
    await upstream.arrival(50)
    assert not any(call.done() for call in calls)
    upstream.release()
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}


@pytest.mark.gen_test
async def test_sessions_history_is_cut_to_what_the_model_reads(make_gateway):
    """A long session goes on working: the oldest turns leave the context."""
    served = await make_gateway({"agents": {"defaults": {"maxHistoryMessages": 4}}})
    client = Client(served)
    for i in range(5):
        served.upstream.reply(f"a{i}")
        await client.chat(f"u{i}", user="ann")
    assert read(served.upstream) == ["u:u2", "a:a2", "u:u3", "a:a3", "u:u4"]


@pytest.mark.gen_test
async def test_sessions_own_messages_are_never_cut(make_gateway):
    """A request longer than the model's context is refused, whatever its session."""
    served = await make_gateway({"agents": {"defaults": {"contextTokens": 50}}})
    client = Client(served)
    assert (await client.chat("x" * 100, user="ann")).status == 200
    assert (await client.chat("y" * 150, user="ann")).status == 200
    assert read(served.upstream) == ["u:" + "y" * 150]
    answer = await client.chat("z" * 300, user="ann")
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert answer.error["param"] == "messages"


@pytest.mark.gen_test
async def test_sessions_failed_run_leaves_no_message(client):
    """What a failed run was asked is not part of the conversation."""
    upstream = client.served.upstream
    upstream.reply("ok")
    await client.chat("1", user="ann")
    upstream.fail(400, {"error": {"message": "no"}})
    assert (await client.chat("2", user="ann")).status == 502
    upstream.reply("ok")
    await client.chat("3", user="ann")
    assert read(upstream) == ["u:1", "a:ok", "u:3"]


@pytest.mark.gen_test
async def test_sessions_survive_the_cache(make_gateway):
    """A transcript reads the same from the store as from memory."""
    served = await make_gateway()
    client = Client(served)
    message = {"role": "user", "content": [{"type": "text", "text": "a\u2028b\0"}]}
    await client.chat(message, user="ann")
    served.gateway.registry._live.clear()
    await client.chat("2", user="ann")
    first = served.upstream.requests[-1].body["messages"][0]
    assert first == {
        "role": "user",
        "content": [{"type": "text", "text": "a\u2028b\0"}],
    }


def test_sessions_document():
    """The helper makes the document that the tests mean."""
    assert json.loads(json.dumps(chat("x"))) == {"model": "edwin", "messages": [u("x")]}
