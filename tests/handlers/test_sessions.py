"""Sessions over HTTP: listed, read, deleted, and begun anew."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlencode

import pytest

from edwin import history
from edwin.errors import SessionNotFound
from edwin.testing.gateway import TOKEN
from edwin.types import Principal
from edwin.validate import Schemas
from tests.conftest import Answer, Client
from tests.handlers.test_runs import TWO_AGENTS, begin, ended, listed

SCHEMAS = Schemas()


async def say(client: Client, key: str, *messages, agent="main", **fields) -> Answer:
    """Say something in a session."""
    headers = {"x-edwin-session-key": key}
    return await client.chat(
        *messages, headers=headers, model=f"edwin:{agent}", **fields
    )


async def sessions(client: Client, **query):
    """Return a page of sessions."""
    answer = Answer(await client.request(f"/v1/sessions?{urlencode(query)}"))
    assert answer.status == 200, answer.body
    SCHEMAS.check("sessions/session_list", answer.json)
    return answer.json


async def item(client: Client, key: str, agent="main", method="GET", **query) -> Answer:
    """Ask for a session, or for its deletion."""
    query = urlencode({"agent": agent, "key": key, **query})
    return Answer(await client.request(f"/v1/sessions/item?{query}", method=method))


async def transcript(client: Client, key: str, **query):
    """Return a page of a session's messages."""
    answer = await item(client, key, **query)
    assert answer.status == 200, answer.body
    SCHEMAS.check("sessions/transcript", answer.json)
    return answer.json


async def reset(client: Client, key: str, agent="main") -> Answer:
    """Let a session begin anew."""
    document = {"agent": agent, "key": key}
    return Answer(await client.request("/v1/sessions/reset", document))


async def metrics(client: Client) -> bytes:
    return (await client.request("/metrics")).body


def said(page) -> list[str]:
    return [entry["message"]["content"] for entry in page["data"]]


def sent(client: Client) -> list[str]:
    """Return what the provider was last asked."""
    body = client.served.upstream.requests[-1].body
    return [message["content"] for message in body["messages"]]


@pytest.mark.gen_test
async def test_sessions_list(make_gateway):
    """Sessions are listed by their last use, of one agent or of all."""
    client = Client(await make_gateway(TWO_AGENTS))
    for key in "abc":
        await say(client, key, "one")
    await say(client, "a", "x", agent="beta")
    await say(client, "b", "two")
    await client.chat("stateless")
    expected = [("main", "b"), ("beta", "a"), ("main", "c"), ("main", "a")]
    page = await sessions(client)
    assert [(s["agent"], s["key"]) for s in page["data"]] == expected
    assert [s["messages"] for s in page["data"]] == [4, 2, 2, 2]
    assert all(s["created_at"] <= s["used_at"] for s in page["data"])
    assert (page["has_more"], page["next"]) == (False, None)
    for query, wanted in [
        ({"agent": "Beta"}, expected[1:2]),
        ({"agent": "nobody"}, []),
        ({"limit": 1}, expected),
        ({"limit": 3}, expected),
        ({"agent": "main", "limit": 2}, [expected[0], *expected[2:]]),
    ]:
        page = await sessions(client, **query)
        found = page["data"]
        while page["has_more"]:
            page = await sessions(client, after=page["next"], **query)
            found += page["data"]
        assert [(s["agent"], s["key"]) for s in found] == wanted, query


@pytest.mark.gen_test
async def test_sessions_show(client):
    """A session's messages say whose they are, in pages."""
    answer = await say(client, "kitchen", "one")
    await say(client, "kitchen", "two")
    page = await transcript(client, "kitchen")
    assert (page["agent"], page["key"], page["messages"]) == ("main", "kitchen", 4)
    assert said(page) == ["one", "one", "two", "two"]
    assert [entry["seq"] for entry in page["data"]] == [1, 2, 3, 4]
    assert [entry["own"] for entry in page["data"]] == [False, True, False, True]
    assert all(entry["current"] for entry in page["data"])
    assert page["data"][1]["run_id"] == answer.headers["x-edwin-run-id"]
    assert (page["has_more"], page["next"]) == (False, None)
    found, after = [], 0
    while after is not None:
        part = await transcript(client, "kitchen", limit=3, after=after, agent="MAIN")
        found += part["data"]
        assert part["has_more"] == (part["next"] is not None)
        after = part["next"]
    assert found == page["data"]


@pytest.mark.gen_test
async def test_sessions_show_what_was_superseded(client):
    """What was taken back or came to nothing is shown on request."""
    await say(client, "k", "one")
    await say(client, "k", "two")
    assistant = {"role": "assistant", "content": "one"}
    await say(client, "k", "one", assistant, "other")
    client.served.upstream.fail(401)
    await say(client, "k", "fails")
    page = await transcript(client, "k")
    assert said(page) == ["one", "one", "other", "other"]
    assert page["messages"] == 4
    everything = await transcript(client, "k", superseded="true")
    assert said(everything) == ["one", "one", "two", "two", "other", "other", "fails"]
    assert [entry["current"] for entry in everything["data"]] == [
        *(True, True, False, False, True, True, False),
    ]
    assert await transcript(client, "k", superseded="false") == page


@pytest.mark.gen_test
async def test_sessions_show_long_messages_in_short_pages(client):
    """A page ends when it is long, however few its messages are."""
    client.served.upstream.on_request = None
    for letter in "abc":
        client.served.upstream.reply("ok")
        await say(client, "k", letter * 2_500_000)
    pages, after = [], 0
    while after is not None:
        page = await transcript(client, "k", after=after)
        pages.append([text[:2] for text in said(page)])
        after = page["next"]
    assert pages == [["aa", "ok", "bb"], ["ok", "cc", "ok"]]


@pytest.mark.gen_test
async def test_sessions_show_nobody_who_does_not_read(make_gateway):
    """Who asks for a long page and takes nothing of it is cut."""
    served = await make_gateway({"gateway": {"http": {"stallSeconds": 0.3}}})
    client = Client(served)
    for letter in "ab":
        served.upstream.reply("ok")
        await say(client, "k", letter * 5_000_000)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", int(served.url.rsplit(":", 1)[1])))
        reader.sendall(
            b"GET /v1/sessions/item?agent=main&key=k&after=1 HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        async with asyncio.timeout(10):
            # A request is counted when its connection is closed.
            while b'"/v1/sessions/item"' not in await metrics(client):
                await asyncio.sleep(0.05)
        reader.settimeout(5)
        received = b""
        while piece := reader.recv(65536):
            received += piece
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert len(received) < 5_000_000


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("", "agent", "missing_required_parameter"),
        ("?agent=main", "key", "missing_required_parameter"),
        ("?agent=main&key=", "key", "missing_required_parameter"),
        ("?agent=main&key=k&key=k", "key", "invalid_value"),
        ("?agent=main&key=k&limit=0", "limit", "invalid_value"),
        ("?agent=main&key=k&after=x", "after", "invalid_value"),
        ("?agent=main&key=k&superseded=yes", "superseded", "invalid_value"),
    ],
)
async def test_sessions_show_refuses(client, query, param, code):
    """A parameter that is missing or cannot be is named."""
    answer = Answer(await client.request(f"/v1/sessions/item{query}"))
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["code"] == code


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "agent"),
        ({"agent": "main"}, "key"),
        ({"agent": "main", "key": ""}, "key"),
        ({"agent": "main", "key": "k" * 513}, "key"),
        ({"agent": 1, "key": "k"}, "agent"),
        ({"agent": "main", "key": "k", "more": 1}, "more"),
    ],
)
async def test_sessions_reset_refuses(client, document, param):
    """So it is with the body of a reset."""
    answer = Answer(await client.request("/v1/sessions/reset", document))
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.gen_test
async def test_sessions_unknown(client):
    """A session that is not there is 404, whatever is to be done with it."""
    await say(client, "kitchen", "one")
    for key, agent in [("garage", "main"), ("kitchen", "beta"), ("k" * 600, "main")]:
        for answer in (
            await item(client, key, agent),
            await item(client, key, agent, method="DELETE"),
            await reset(client, key[:500], agent),
        ):
            assert (answer.status, answer.error["code"]) == (404, "session_not_found")
    assert said(await transcript(client, "kitchen")) == ["one", "one"]


@pytest.mark.gen_test
async def test_sessions_of_others_are_not_there(client):
    """Another principal's session is not found, as if it never was."""
    await say(client, "k", "one")
    gateway, stranger = client.served.gateway, Principal("stranger")
    session = history.session_id(stranger, "main", "k")
    for call in (history.transcript, history.delete, history.reset):
        with pytest.raises(SessionNotFound):
            await call(gateway, session)
    assert (await history.page(gateway, stranger))["data"] == []
    assert said(await transcript(client, "k")) == ["one", "one"]


@pytest.mark.gen_test
async def test_sessions_delete(client):
    """Nothing is left of a deleted session but its runs' lines, and they name none."""
    await say(client, "k", "secret")
    await say(client, "other", "stays")
    answer = await item(client, "k", agent="Main", method="DELETE")
    assert answer.status == 200
    SCHEMAS.check("sessions/deleted", answer.json)
    assert answer.json == {
        "object": "edwin.session.deleted",
        "principal": "owner",
        "agent": "main",
        "key": "k",
        "deleted": True,
    }
    assert (await item(client, "k")).status == 404
    assert (await item(client, "k", method="DELETE")).status == 404
    assert [s["key"] for s in (await sessions(client))["data"]] == ["other"]
    runs = (await listed(client))["data"]
    assert [(run["session_key"], run["state"]) for run in runs] == [
        ("other", "finished"),
        (None, "finished"),
    ]
    assert runs[1]["request_id"] == ""
    await say(client, "k", "again")
    assert sent(client) == ["again"]
    assert said(await transcript(client, "k")) == ["again", "again"]


@pytest.mark.gen_test
async def test_sessions_delete_ends_their_runs(client):
    """Runs of a deleted session are cancelled, the one under way and those behind."""
    upstream = client.served.upstream
    await say(client, "k", "first")
    upstream.hang(["half"])
    running = asyncio.ensure_future(say(client, "k", "running"))
    request = await upstream.arrival(2)
    headers = {"x-edwin-session-key": "k"}
    waiting = await begin(client, "waiting", headers=headers)
    assert (await item(client, "k", method="DELETE")).status == 200
    async with asyncio.timeout(1):
        await request.closed.wait()
    assert (await running).error["code"] == "run_cancelled"
    assert (await ended(client, waiting["id"]))["state"] == "cancelled"
    assert (await item(client, "k")).status == 404
    assert all(run["session_key"] is None for run in (await listed(client))["data"])
    await say(client, "k", "again")
    assert sent(client) == ["again"]


@pytest.mark.gen_test
async def test_sessions_delete_one_that_just_begins(client):
    """A session whose first run is under way can be deleted."""
    client.served.upstream.hang([])
    call = asyncio.ensure_future(say(client, "k", "first"))
    await client.served.upstream.arrival()
    assert (await item(client, "k", method="DELETE")).status == 200
    assert (await call).error["code"] == "run_cancelled"
    assert (await sessions(client))["data"] == []


@pytest.mark.gen_test
async def test_sessions_reset(client):
    """After a reset the session knows nothing of before, and nothing is lost."""
    await say(client, "k", "before")
    answer = await reset(client, "k", agent="MAIN")
    assert answer.status == 200
    SCHEMAS.check("sessions/was_reset", answer.json)
    page = await transcript(client, "k")
    assert (page["data"], page["messages"]) == ([], 0)
    await say(client, "k", "after")
    assert sent(client) == ["after"]
    assert said(await transcript(client, "k")) == ["after", "after"]
    page = await transcript(client, "k", superseded="true")
    assert said(page) == ["before", "before", "after", "after"]
    assert [e["current"] for e in page["data"]] == [False, False, True, True]


@pytest.mark.gen_test
async def test_sessions_reset_waits_for_its_turn(client):
    """A reset comes behind the runs that were before it, and ahead of later ones."""
    upstream = client.served.upstream
    upstream.hang(["half "], then=["whole"])
    before = asyncio.ensure_future(say(client, "k", "before"))
    await upstream.arrival()
    begun = asyncio.ensure_future(reset(client, "k"))
    await asyncio.sleep(0.1)
    behind = asyncio.ensure_future(say(client, "k", "behind"))
    await asyncio.sleep(0.1)
    assert not begun.done()
    upstream.release()
    assert (await before).text == "half whole"
    assert (await begun).status == 200
    assert (await behind).text == "behind"
    assert sent(client) == ["behind"]


@pytest.mark.gen_test
async def test_sessions_of_an_agent_that_is_gone(make_gateway, tmp_path):
    """A session outlives its agent: it can be listed, read, and deleted."""
    first = await make_gateway(TWO_AGENTS, state_dir=tmp_path / "state")
    await say(Client(first), "k", "one", agent="beta")
    await first.stop()
    client = Client(await make_gateway(state_dir=tmp_path / "state"))
    assert [s["agent"] for s in (await sessions(client))["data"]] == ["beta"]
    assert said(await transcript(client, "k", agent="beta")) == ["one", "one"]
    assert (await reset(client, "k", "beta")).status == 200
    assert (await item(client, "k", "beta", method="DELETE")).status == 200
    assert (await sessions(client))["data"] == []


@pytest.mark.gen_test
async def test_sessions_delete_leaves_nothing_in_memory(served, client):
    """Of a deleted session's run the answer cannot be read, by its id or its key."""
    headers = {"Idempotency-Key": "order-17", "x-edwin-session-key": "s"}
    served.upstream.reply("a secret")
    served.upstream.reply("another")
    one = await client.chat("go", headers=headers)
    item = "/v1/sessions/item?agent=main&key=s"
    assert (await client.request(item, method="DELETE")).code == 200
    shown = await client.request(f"/v1/runs/{one.headers['x-edwin-run-id']}")
    assert b"a secret" not in shown.body
    assert (await client.chat("go", headers=headers)).text == "another"


@pytest.mark.gen_test
async def test_sessions_delete_needs_no_place(make_gateway):
    """A session is deleted at once, though other sessions' runs have all the places."""
    served = await make_gateway(
        {"gateway": {"runs": {"maxConcurrent": 1}, "http": {"headDelayMs": 0}}}
    )
    client = Client(served)
    served.upstream.hang(then=["done"])
    other = asyncio.ensure_future(client.chat("other", user="bob"))
    await served.upstream.arrival()
    headers = {"x-edwin-session-key": "s"}
    mine = asyncio.ensure_future(client.chat("mine", headers=headers, stream=True))
    while not served.gateway.engine.waiting:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    item = "/v1/sessions/item?agent=main&key=s"
    async with asyncio.timeout(5):
        assert (await client.request(item, method="DELETE")).code == 200
    served.upstream.release()
    await asyncio.gather(other, mine)
