"""The ledger over HTTP: runs listed, shown, ended, and begun to go on alone."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from edwin import ledger, mount
from edwin.errors import RunNotFound
from edwin.types import Principal
from edwin.validate import Schemas
from tests.conftest import Answer, Client, chat
from tests.store.samples import obstacle

SCHEMAS = Schemas()
TWO_AGENTS = {"agents": {"list": [{"id": "main"}, {"id": "beta"}]}}


async def show(client: Client, run_id: str):
    """Return the run with this id, when it is to be found."""
    async with asyncio.timeout(5):
        while True:
            answer = Answer(await client.request(f"/v1/runs/{run_id}"))
            if answer.status == 200:
                SCHEMAS.check("runs/run", answer.json)
                return answer.json
            await asyncio.sleep(0.05)


async def listed(client: Client, **query):
    """Return a page of runs."""
    answer = Answer(await client.request(f"/v1/runs?{urlencode(query)}"))
    assert answer.status == 200, answer.body
    SCHEMAS.check("runs/run_list", answer.json)
    return answer.json


async def pages(client: Client, **query):
    """Return the ids on all pages, in their order."""
    page = await listed(client, **query)
    found = [run["id"] for run in page["data"]]
    while page["has_more"]:
        page = await listed(client, after=page["next"], **query)
        found += [run["id"] for run in page["data"]]
    assert page["next"] is None
    return found


async def begin(client: Client, *messages, headers=None, **fields):
    """Begin a run that goes on alone; return it."""
    response = await client.request(
        "/v1/runs", chat(*messages, **fields), headers=headers
    )
    answer = Answer(response)
    assert answer.status == 202, answer.body
    SCHEMAS.check("runs/run", answer.json)
    return answer.json


async def ended(client: Client, run_id: str):
    """Return the run with this id, when it has ended."""
    async with asyncio.timeout(5):
        while (run := await show(client, run_id))["finished_at"] is None:
            await asyncio.sleep(0.01)
    return run


@pytest.mark.gen_test
async def test_runs_list(make_gateway):
    """Runs are listed newest first, by agent, session and state."""
    served = await make_gateway(TWO_AGENTS)
    client = Client(served)
    headers = {"x-edwin-session-key": "kitchen"}
    one = await client.chat("one", headers=headers)
    two = await client.chat("two", model="edwin:beta", user="ann")
    served.upstream.fail(401)
    three = await client.chat("three", headers=headers)
    ids = [a.headers["x-edwin-run-id"] for a in (three, two, one)]
    page = await listed(client)
    assert [run["id"] for run in page["data"]] == ids
    assert (page["has_more"], page["next"]) == (False, None)
    assert [run["state"] for run in page["data"]] == ["failed", "finished", "finished"]
    assert [run["message"] for run in page["data"]] == [None] * 3
    assert page["data"][0]["error"]["code"] == "provider_error"
    for query, places in [
        ({"agent": "BETA"}, [1]),
        ({"agent": "nobody"}, []),
        ({"session": "kitchen"}, [0, 2]),
        ({"session": two.headers["x-edwin-session-key"]}, [1]),
        ({"state": "failed"}, [0]),
        ({"state": "finished", "session": "kitchen"}, [2]),
        ({"state": "running"}, []),
        (
            {"agent": "", "session": "", "state": "", "limit": "", "after": ""},
            [0, 1, 2],
        ),
    ]:
        assert await pages(client, **query) == [ids[place] for place in places], query


@pytest.mark.gen_test
async def test_runs_list_live_ones(make_gateway):
    """Runs that wait or are under way are listed too, in the state they have."""
    served = await make_gateway({"gateway": {"runs": {"maxConcurrent": 1}}})
    client = Client(served)
    done = await client.chat("done", user="ann")
    served.upstream.hang(["half"])
    calls = [asyncio.ensure_future(client.chat("x", user="ann", stream=True))]
    await served.upstream.arrival(2)
    calls += [asyncio.ensure_future(client.chat(n)) for n in ("y", "z")]
    async with asyncio.timeout(5):
        while len(served.gateway.engine.live()) < 3:
            await asyncio.sleep(0.01)
    page = await listed(client)
    assert [run["state"] for run in page["data"]] == [
        *("queued", "queued", "running", "finished"),
    ]
    assert page["data"][0]["session_key"] is None
    assert page["data"][0]["usage"] is None
    assert page["data"][2]["events"] >= 2
    assert page["data"][3]["id"] == done.headers["x-edwin-run-id"]
    everything = [run["id"] for run in page["data"]]
    assert await pages(client, limit=1) == everything
    assert await pages(client, limit=3) == everything
    assert await pages(client, state="queued", limit=1) == everything[:2]
    assert await pages(client, state="running") == everything[2:3]
    assert await pages(client, state="finished") == everything[3:]
    served.upstream.release()
    await asyncio.gather(*calls)


@pytest.mark.gen_test
async def test_runs_pages_while_runs_begin_and_end(client):
    """Pages neither repeat nor leave out a run, whatever happens between them."""
    upstream = client.served.upstream
    old = [(await begin(client, f"{n}", user="ann"))["id"] for n in range(3)]
    for run_id in old:
        await ended(client, run_id)
    upstream.hang(["half"], then=["whole"])
    old.append((await begin(client, "long", user="bob"))["id"])
    await upstream.arrival(4)
    first = await listed(client, limit=1)
    upstream.release()
    await ended(client, old[-1])
    await begin(client, "new", user="ann")
    found, page = [first["data"][0]["id"]], first
    while page["has_more"]:
        page = await listed(client, limit=1, after=page["next"])
        found += [run["id"] for run in page["data"]]
    assert found == old[::-1]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=" + "1" * 5000, "limit"),
        ("state=done", "state"),
        ("after=x", "after"),
        ("agent=main&agent=beta", "agent"),
        ("session=a&session=a", "session"),
    ],
)
async def test_runs_list_refuses(client, query, param):
    """A parameter that cannot be is refused by its name."""
    answer = Answer(await client.request(f"/v1/runs?{query}"))
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["code"] == "invalid_value"


@pytest.mark.gen_test
async def test_runs_show(client):
    """A run is shown while it waits to end, after it, and what it said is kept."""
    client.served.upstream.hang(["half "], then=["whole"])
    run = await begin(client, "go", user="ann")
    assert run["state"] in ("queued", "running")
    assert (run["message"], run["usage"], run["finished_at"]) == (None, None, None)
    await client.served.upstream.arrival()
    assert (await show(client, run["id"]))["state"] == "running"
    client.served.upstream.release()
    run = await ended(client, run["id"])
    assert (run["state"], run["finish_reason"]) == ("finished", "stop")
    assert run["message"]["content"] == "half whole"
    assert run["usage"]["total_tokens"] > 0
    assert run["created_at"] <= run["started_at"] <= run["finished_at"]
    assert run["session_key"].startswith("agent:main:openai-user:")
    assert run["request_id"].startswith("req_")


@pytest.mark.gen_test
async def test_runs_show_one_without_session(client):
    """A run without a session is found a moment after its end, without content."""
    answer = await client.chat("hello")
    run = await show(client, answer.headers["x-edwin-run-id"])
    assert (run["state"], run["session_key"]) == ("finished", None)
    assert run["message"] is None


@pytest.mark.gen_test
async def test_runs_of_others_are_not_there(client):
    """Another principal's run is not found, as if it never was."""
    run = await begin(client, "go")
    await ended(client, run["id"])
    stranger, gateway = Principal("stranger"), client.served.gateway
    for call in (ledger.run, ledger.cancel):
        with pytest.raises(RunNotFound):
            await call(gateway, stranger, run["id"])
    assert (await ledger.page(gateway, stranger))["data"] == []


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["", "/events", "/cancel"])
async def test_runs_unknown(client, path):
    """A run that is not there is 404."""
    method = "POST" if path == "/cancel" else "GET"
    for run_id in ("run_0", "x" * 5000, "%00", "%F0%9F%98%80"):
        answer = Answer(await client.request(f"/v1/runs/{run_id}{path}", method=method))
        assert (answer.status, answer.error["code"]) == (404, "run_not_found")


@pytest.mark.gen_test
async def test_runs_cancel(client):
    """Cancelling closes the provider's connection and tells the reader."""
    upstream = client.served.upstream
    upstream.hang(["half"])
    call = asyncio.ensure_future(client.chat("go", user="ann"))
    request = await upstream.arrival()
    (live,) = (await listed(client))["data"]
    async with asyncio.timeout(5):
        while (await show(client, live["id"]))["first_delta_ms"] is None:
            await asyncio.sleep(0.01)
    answer = Answer(
        await client.request(f"/v1/runs/{live['id']}/cancel", method="POST")
    )
    assert answer.status == 200
    SCHEMAS.check("runs/run", answer.json)
    assert answer.json["state"] == "cancelled"
    assert answer.json["error"]["code"] == "run_cancelled"
    async with asyncio.timeout(1):
        await request.closed.wait()
    assert ((await call).status, (await call).error["code"]) == (499, "run_cancelled")
    again = Answer(await client.request(f"/v1/runs/{live['id']}/cancel", method="POST"))
    assert (again.status, again.json["state"]) == (200, "cancelled")
    assert again.json["events"] == answer.json["events"]
    assert (await client.chat("next", user="ann")).status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}])
async def test_runs_show_effects(make_gateway, tmp_path, fields):
    """What was begun and must not be done twice shows: live, ended, after a restart."""
    served = await make_gateway(state_dir=tmp_path / "s")
    client = Client(served)
    served.upstream.hang(["half"], then=["end"])
    call = asyncio.ensure_future(client.chat("go", **fields))
    await served.upstream.arrival()
    (live,) = (await listed(client))["data"]
    assert live["effects"] is False
    run = served.gateway.engine.find(live["id"])
    run.effects = True
    await served.gateway.store.open(run.record())
    assert (await show(client, run.id))["effects"] is True
    served.upstream.release()
    assert (await call).status == 200
    assert (await client.chat("next", **fields)).status == 200
    await served.stop()
    served = await make_gateway(state_dir=tmp_path / "s")
    other, ended = (await listed(Client(served)))["data"]
    assert (ended["id"], ended["state"], ended["effects"]) == (
        run.id,
        "finished",
        True,
    )
    assert other["effects"] is False


@pytest.mark.gen_test
async def test_runs_kept_outcomes_have_effects(make_gateway, tmp_path):
    """The kept outcome of a run that began such a thing is shown with it."""
    served = await make_gateway(state_dir=tmp_path / "s")
    served.upstream.hang(["half"], then=["end"])
    begun = await begin(Client(served), "go")
    run = served.gateway.engine.find(begun["id"])
    await served.upstream.arrival()
    run.effects = True
    await served.gateway.store.open(run.record())
    served.upstream.release()
    await run.wait()
    await served.stop()
    served = await make_gateway(state_dir=tmp_path / "s")
    shown = await show(Client(served), begun["id"])
    assert (shown["state"], shown["effects"]) == ("finished", True)
    assert shown["message"]["content"] == "halfend"


@pytest.mark.gen_test
async def test_runs_cancel_one_that_waits(client):
    """A run that waits never begins; those before and behind it do not notice."""
    upstream = client.served.upstream
    upstream.hang(then=["first"])
    first = asyncio.ensure_future(client.chat("1", user="ann"))
    await upstream.arrival()
    second = await begin(client, "2", user="ann")
    third = asyncio.ensure_future(client.chat("3", user="ann"))
    answer = Answer(
        await client.request(f"/v1/runs/{second['id']}/cancel", method="POST")
    )
    assert (answer.status, answer.json["state"]) == (200, "cancelled")
    assert answer.json["started_at"] is None
    upstream.release()
    assert ((await first).text, (await third).text) == ("first", "3")
    assert len(upstream.requests) == 2


@pytest.mark.gen_test
async def test_runs_cancel_too_late(client):
    """A run that has ended stays as it is."""
    run = await begin(client, "go")
    before = await ended(client, run["id"])
    answer = Answer(await client.request(f"/v1/runs/{run['id']}/cancel", method="POST"))
    assert (answer.status, answer.json) == (200, before)


@pytest.mark.gen_test
async def test_runs_begin(client):
    """A run of one's own goes on without a reader and has its place in the session."""
    served = client.served
    served.upstream.hang(["half "], then=["whole"])
    response = await client.request(
        "/v1/runs", chat("go"), headers={"x-edwin-session-key": "kitchen"}
    )
    run = Answer(response).json
    assert response.code == 202
    assert response.headers["Location"] == f"/v1/runs/{run['id']}"
    assert response.headers["x-edwin-run-id"] == run["id"]
    assert response.headers["x-edwin-session-key"] == run["session_key"] == "kitchen"
    await served.upstream.arrival()
    await asyncio.sleep(0.1)
    served.upstream.release()
    await ended(client, run["id"])
    follow = await client.chat("and", headers={"x-edwin-session-key": "kitchen"})
    assert follow.status == 200
    assert [m["content"] for m in served.upstream.requests[-1].body["messages"]] == [
        *("go", "half whole", "and"),
    ]


@pytest.mark.gen_test
async def test_runs_begun_are_durable(make_gateway, tmp_path):
    """What was answered 202 is on disk, and its outcome outlives the gateway."""
    first = await make_gateway(state_dir=tmp_path / "state")
    run = await begin(Client(first), "go")
    before = await ended(Client(first), run["id"])
    await first.stop()
    client = Client(await make_gateway(state_dir=tmp_path / "state"))
    assert await show(client, run["id"]) == before
    assert before["message"]["content"] == "go"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("document", "status", "param"),
    [
        (chat(stream=True), 400, "stream"),
        (chat(model="nobody"), 404, "model"),
        (chat(n=2), 400, "n"),
        ({"model": "edwin"}, 400, "messages"),
        (
            chat({"role": "tool", "tool_call_id": "c", "content": "x"}),
            400,
            "messages[0].tool_call_id",
        ),
    ],
)
async def test_runs_begin_refuses(client, document, status, param):
    """What cannot be run is refused, and no run is left."""
    answer = Answer(await client.request("/v1/runs", document))
    assert (answer.status, answer.error["param"]) == (status, param)
    assert not client.served.gateway.engine.live()
    assert not client.served.upstream.requests


@pytest.mark.gen_test
async def test_runs_begin_that_cannot_be_kept(client):
    """A run whose messages cannot be made durable is refused, and does not happen."""
    upstream = client.served.upstream
    upstream.hang(then=["first"])
    first = asyncio.ensure_future(client.chat("1", user="ann"))
    await upstream.arrival()
    (run,) = client.served.gateway.engine.live()
    await run.accepted()
    with obstacle("query_only = ON"):
        answer = Answer(await client.request("/v1/runs", chat("2", user="ann")))
        assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
        live = [run for run in client.served.gateway.engine.live() if not run.ended]
        assert len(live) == 1
    upstream.release()
    assert (await first).text == "first"
    assert (await client.chat("3", user="ann")).text == "3"
    asked = [m["content"] for m in upstream.requests[-1].body["messages"]]
    assert (asked, len(upstream.requests)) == (["1", "first", "3"], 2)


@pytest.mark.gen_test
async def test_runs_begin_once(client):
    """The same call under the same key is one run."""
    key = {"Idempotency-Key": "order-17"}
    first = await client.request("/v1/runs", chat("go"), headers=key)
    await ended(client, Answer(first).json["id"])
    again = await client.request("/v1/runs", chat("go"), headers=key)
    assert again.code == 202
    assert Answer(again).json["id"] == Answer(first).json["id"]
    assert Answer(again).json["message"]["content"] == "go"
    assert "x-edwin-replayed" not in first.headers
    assert again.headers["x-edwin-replayed"] == "true"
    assert len(client.served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_runs_begin_with_a_deadline(client):
    """A run of one's own has the deadline that its request gave it."""
    client.served.upstream.hang(["half"])
    run = await begin(client, "go", headers={"x-edwin-timeout-ms": "150"})
    run = await ended(client, run["id"])
    assert (run["state"], run["error"]["code"]) == ("failed", "run_timeout")


@pytest.mark.gen_test
async def test_runs_switched_off(make_gateway):
    """The endpoint's flag switches beginning runs, and not looking at them."""
    off = {"http": {"endpoints": {"chatCompletions": {"enabled": False}}}}
    client = Client(await make_gateway({"gateway": off}))
    answer = Answer(await client.request("/v1/runs", chat("go")))
    assert (answer.status, answer.error["code"]) == (404, "endpoint_disabled")
    assert (await listed(client))["data"] == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/runs"),
        ("POST", "/v1/runs"),
        ("GET", "/v1/runs/run_0"),
        ("GET", "/v1/runs/run_0/events"),
        ("POST", "/v1/runs/run_0/cancel"),
        ("GET", "/v1/sessions"),
        ("GET", "/v1/sessions/item?agent=main&key=k"),
        ("DELETE", "/v1/sessions/item?agent=main&key=k"),
        ("POST", "/v1/sessions/reset"),
    ],
)
async def test_runs_refuse_strangers(client, method, path):
    """Nothing is said to who has no secret."""
    response = await client.request(path, token=None, method=method)
    assert response.code == 401


@pytest.mark.gen_test
async def test_runs_under_a_prefix(client):
    """In a host's application, the path of a run begins with the host's prefix."""
    app = Application()
    mount(app, client.served.gateway, "/ai")
    sock, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_sockets([sock])
    client.served.url, url = f"http://127.0.0.1:{port}/ai", client.served.url
    try:
        response = await client.request("/v1/runs", chat("go"))
        path = response.headers["Location"]
        assert path == f"/ai/v1/runs/{Answer(response).json['id']}"
        assert (await client.request(path.removeprefix("/ai"))).code == 200
    finally:
        client.served.url = url
        server.stop()
        await server.close_all_connections()
