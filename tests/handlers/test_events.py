"""A run's events over HTTP: numbered, from any place, live, and after its end."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from edwin.runs.run import MAX_EVENTS
from edwin.testing.gateway import TOKEN
from edwin.types import OWNER, RunRecord, SessionId, TextDelta
from edwin.validate import Schemas
from tests.conftest import Answer, Client
from tests.handlers.test_runs import begin, ended, show

SCHEMAS = Schemas()
SESSION = {"x-edwin-session-key": "kitchen"}


def parsed(body: bytes):
    """Return the documents of a stream, each of which says its own number."""
    documents = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if lines and lines != [""]:
            number, data = lines
            document = json.loads(data.removeprefix("data: "))
            assert number == f"id: {document['seq']}"
            SCHEMAS.check("runs/event", document)
            documents.append(document)
    return documents


async def told(client: Client, run_id: str, after=None, headers=None):
    """Return the events of a run, to its end."""
    query = "" if after is None else f"?after={after}"
    response = await client.request(f"/v1/runs/{run_id}/events{query}", headers=headers)
    assert response.code == 200, response.body
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert not response.cut
    return parsed(response.body)


def names(documents):
    return [document["event"] for document in documents]


def text(documents) -> str:
    return "".join(d["payload"].get("text", "") for d in documents)


def raw_events(run_id: str, query: str = "", version: str = "1.1") -> bytes:
    return (
        f"GET /v1/runs/{run_id}/events{query} HTTP/{version}\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n"
    ).encode()


@pytest.mark.gen_test
async def test_events_from_the_start(client):
    """Events come as they happen, numbered without gaps, and end with the answer."""
    upstream = client.served.upstream
    upstream.hang(["half ", "way "], then=["through"])
    run = await begin(client, "go", user="ann")
    reading = asyncio.ensure_future(told(client, run["id"]))
    await upstream.arrival()
    await asyncio.sleep(0.05)
    assert not reading.done()
    upstream.release()
    documents = await reading
    assert [d["seq"] for d in documents] == list(range(1, len(documents) + 1))
    assert {d["run"] for d in documents} == {run["id"]}
    assert "run.started" in names(documents)[:2]
    assert names(documents)[-2:] == ["turn.finished", "run.finished"]
    assert text(documents) == "half way through"
    end = documents[-1]["payload"]
    assert end["message"]["content"] == "half way through"
    assert (await ended(client, run["id"]))["events"] == len(documents)


@pytest.mark.gen_test
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["", "kept"])
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
@pytest.mark.parametrize("end", ["finished", "failed", "cancelled", "dropped"])
async def test_events_are_counted(client, key, fields, end):
    """The ledger has the number of a run's last event, however it ended."""
    upstream = client.served.upstream
    calls = []
    if end == "dropped":
        upstream.hang(then=["before"])
        calls.append(asyncio.ensure_future(client.chat("x", user="ann")))
        await upstream.arrival()
        fields = {"user": "ann"}
    elif end == "failed":
        upstream.reply(deltas=["half"], cut=True)
    elif end == "cancelled":
        upstream.hang(["half"])
    begun = len(upstream.requests) + 1
    calls.append(asyncio.ensure_future(client.chat("go", headers=key, **fields)))
    async with asyncio.timeout(5):
        while len(live := list(client.served.gateway.engine.live())) < len(calls):
            await asyncio.sleep(0)
        run = live[-1]
        if end == "cancelled":
            await upstream.arrival(begun)
        if end in ("cancelled", "dropped"):
            run.cancel()
        await run.wait()
        upstream.release()
        await asyncio.gather(*calls)
        while (kept := await client.served.gateway.store.run(run.id)) is None:
            await asyncio.sleep(0.05)
    assert kept.record.state == ("cancelled" if end == "dropped" else end)
    assert kept.record.events == run.last


@pytest.mark.gen_test
async def test_events_go_on_where_the_reader_was(client, connect):
    """A reader that lost its connection goes on behind the last event it saw."""
    upstream = client.served.upstream
    upstream.hang(["one ", "two "], then=["three ", "four"])
    run = await begin(client, "go")
    answer = await connect(client.served, raw_events(run["id"]))
    await answer.until(b"two ")
    await answer.close()
    upstream.release()
    await ended(client, run["id"])
    everything = await told(client, run["id"])
    for after in range(len(everything) + 1):
        assert await told(client, run["id"], after) == everything[after:]
        header = {"Last-Event-ID": str(after)}
        assert await told(client, run["id"], headers=header) == everything[after:]
        assert await told(client, run["id"], 1, headers=header) == everything[1:]


@pytest.mark.gen_test
@pytest.mark.parametrize("live", [True, False])
async def test_events_beyond_the_last(client, live):
    """A number that no event has yet is refused, wherever it stands."""
    upstream = client.served.upstream
    upstream.hang(["half"])
    run = await begin(client, "go")
    await upstream.arrival()
    if not live:
        upstream.release()
        await ended(client, run["id"])
    for query, headers, param in [
        ("?after=1000", {}, "after"),
        ("?after=-1", {}, "after"),
        ("?after=x", {}, "after"),
        ("?after=1&after=1", {}, "after"),
        ("", {"Last-Event-ID": "1000"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID"),
    ]:
        answer = Answer(
            await client.request(f"/v1/runs/{run['id']}/events{query}", headers=headers)
        )
        assert (answer.status, answer.error["param"]) == (400, param)
    upstream.release()


@pytest.mark.gen_test
async def test_events_of_a_failure(client):
    """A run that fails says so in its last event, and the stream ends as it should."""
    client.served.upstream.reply(deltas=["half"], cut=True)
    run = await begin(client, "go")
    documents = await told(client, run["id"])
    assert names(documents)[-1] == "run.failed"
    assert documents[-1]["payload"]["error"]["code"] == "provider_stream_error"


@pytest.mark.gen_test
async def test_events_keep_signs_of_life(make_gateway, connect):
    """The head goes out at once, and a silent run's stream has pings."""
    http = {"keepAliveSeconds": 0.1}
    served = await make_gateway({"gateway": {"http": http}})
    served.upstream.hang(["half"])
    run = await begin(Client(served), "go")
    await served.upstream.arrival()
    async with asyncio.timeout(5):
        while served.gateway.engine.find(run["id"]).first_delta_ms is None:
            await asyncio.sleep(0.01)
        last = served.gateway.engine.find(run["id"]).last
        answer = await connect(served, raw_events(run["id"], f"?after={last}"))
        await answer.until(b": ping\n\n")
        answer.received = b""
        await answer.until(b": ping\n\n")
        served.upstream.release()
        await answer.until(b"run.finished")


@pytest.mark.gen_test
async def test_events_reader_keeps_the_run(client, connect):
    """Who reads a run's events keeps it going, and ends it by leaving last."""
    upstream = client.served.upstream
    upstream.hang(["half"])
    call = asyncio.ensure_future(client.chat("go", user="ann", stream=True))
    request = await upstream.arrival()
    (run,) = client.served.gateway.engine.live()
    reader = await connect(client.served, raw_events(run.id))
    await reader.until(b"half")
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.4)
    assert not request.closed.is_set()
    await reader.close()
    async with asyncio.timeout(2):
        await request.closed.wait()
    assert (await ended(client, run.id))["state"] == "cancelled"


@pytest.mark.gen_test
async def test_events_reader_that_leaves_harms_nobody(client, connect):
    """A run that is read elsewhere, or goes on alone, does not notice a reader go."""
    upstream = client.served.upstream
    upstream.hang(["half "], then=["whole"])
    run = await begin(client, "go")
    reader = await connect(client.served, raw_events(run["id"]))
    await reader.until(b"half")
    await reader.close()
    await asyncio.sleep(0.4)
    assert not client.served.gateway.answers
    upstream.release()
    assert text(await told(client, run["id"])) == "half whole"


@pytest.mark.gen_test
@pytest.mark.parametrize("reading", [False, True])
async def test_events_that_are_gone(client, connect, reading):
    """Who is too far behind is told what is missing, and gets the rest."""
    upstream = client.served.upstream
    upstream.hang([], then=["end"])
    run = await begin(client, "go")
    await upstream.arrival()
    live = client.served.gateway.engine.find(run["id"])
    seen = live.last
    if reading:
        answer = await connect(client.served, raw_events(run["id"]))
        await answer.until(b"run.started")
    for _ in range(MAX_EVENTS + 10):
        live.emit(TextDelta("x"))
    assert live.first > seen + 1
    if reading:
        await answer.until(b"events.gap")
        upstream.release()
        received = await answer.until(b"run.finished")
        assert b'{"after":%d,"upto":%d}' % (seen, live.first - 1) in received
    else:
        upstream.release()
        documents = await told(client, run["id"])
        assert names(documents)[0] == "events.gap"
        assert documents[0]["payload"] == {"after": 0, "upto": live.first - 1}
        assert documents[1]["seq"] == live.first
        assert text(documents).endswith("xxxend")
        assert names(documents)[-1] == "run.finished"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("detached", {"role": "assistant", "content": "the answer"}),
        ("session", {"role": "assistant", "content": "the answer"}),
        ("stateless", None),
    ],
)
async def test_events_long_after(make_gateway, tmp_path, kind, message):
    """Of a run that is past there is a gap, and its end as far as it is kept."""
    first = await make_gateway(state_dir=tmp_path / "state")
    client = Client(first)
    await client.chat("before", headers=SESSION)
    first.upstream.reply("the answer")
    if kind == "detached":
        run_id = (await begin(client, "go"))["id"]
    else:
        answer = await client.chat("go", headers=SESSION if kind == "session" else {})
        run_id = answer.headers["x-edwin-run-id"]
    run = await ended(client, run_id)
    await client.chat("behind", headers=SESSION)
    await first.stop()
    client = Client(await make_gateway(state_dir=tmp_path / "state"))
    last = run["events"]
    documents = await told(client, run_id)
    assert names(documents) == ["events.gap", "run.finished"]
    assert documents[0]["payload"] == {"after": 0, "upto": last - 1}
    assert documents[1]["seq"] == last
    payload = documents[1]["payload"]
    assert payload["message"] == message
    assert (payload["finish_reason"], payload["usage"]) == ("stop", run["usage"])
    assert await told(client, run_id, last - 1) == documents[1:]
    assert await told(client, run_id, last) == []
    beyond = await client.request(f"/v1/runs/{run_id}/events?after={last + 1}")
    assert beyond.code == 400


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
async def test_events_long_after_a_failure(make_gateway, tmp_path, fields):
    """Of one that failed, the error's code is left."""
    first = await make_gateway(state_dir=tmp_path / "state")
    first.upstream.fail(401)
    answer = await Client(first).chat("go", **fields)
    run_id = answer.headers["x-edwin-run-id"]
    await show(Client(first), run_id)
    await first.stop()
    client = Client(await make_gateway(state_dir=tmp_path / "state"))
    error = (await told(client, run_id))[-1]["payload"]["error"]
    assert error["code"] == "provider_error"
    assert error["type"] == answer.error["type"]
    assert (await show(client, run_id))["error"] == {
        **dict.fromkeys(("message", "type", "param")),
        "code": "provider_error",
    }


@pytest.mark.gen_test
async def test_events_after_a_crash(make_gateway, tmp_path):
    """A reader of a run that was lost is told so, wherever it was."""
    first = await make_gateway(state_dir=tmp_path / "state")
    record = RunRecord(
        *("run_0123456789abcdef0123456789abcdef", "req_0"),
        SessionId(OWNER.id, "main", "kitchen"),
        "running",
        1780000000.0,
        events=2,
    )
    await first.gateway.store.begin(record, ())
    await first.stop()
    client = Client(await make_gateway(state_dir=tmp_path / "state"))
    for after in (0, 2, 57):
        (*gap, end) = await told(client, record.run_id, after)
        assert len(gap) == (after < 2)
        assert end["event"] == "run.failed" and end["seq"] > after
        assert end["payload"]["error"]["code"] == "gateway_restarted"


@pytest.mark.gen_test
async def test_events_over_http_1_0(client, connect):
    """Without chunks, the connection's end is the end of the stream."""
    run = await begin(client, "go")
    await ended(client, run["id"])
    answer = await connect(client.served, raw_events(run["id"], version="1.0"))
    async with asyncio.timeout(5):
        received = await answer.to_end()
    assert b"run.finished" in received


@pytest.mark.gen_test
async def test_events_end_with_the_gateway(make_gateway, connect):
    """A gateway that stops tells the readers how the run ended."""
    served = await make_gateway({"gateway": {"shutdownSeconds": 0.1}})
    served.upstream.hang(["half"])
    run = await begin(Client(served), "go")
    answer = await connect(served, raw_events(run["id"]))
    await answer.until(b"half")
    await served.stop()
    received = await answer.to_end()
    assert b"gateway_stopping" in received and b"run.failed" in received
