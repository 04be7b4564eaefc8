"""Idempotency keys over HTTP: the same call twice is one run."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Client, chat, raw_chat

KEY = {"Idempotency-Key": "order-17"}


async def settled(client: Client) -> None:
    """Wait until no run is live."""
    while client.served.gateway.engine.live():
        await asyncio.sleep(0.01)


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
@pytest.mark.parametrize("first", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("again", [False, True], ids=["whole", "streamed"])
async def test_idempotency_replays_a_result(served, client, fields, first, again):
    """The same call under the same key is answered by the run that was, either way."""
    served.upstream.reply("only once")
    one = await client.chat("go", headers=KEY, stream=first, **fields)
    two = await client.chat("go", headers=KEY, stream=again, **fields)
    assert (one.text, two.text) == ("only once", "only once")
    assert "x-edwin-replayed" not in one.headers
    assert two.headers["x-edwin-replayed"] == "true"
    assert one.headers["x-edwin-run-id"] == two.headers["x-edwin-run-id"]
    assert one.headers["x-edwin-session-key"] == two.headers["x-edwin-session-key"]
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_joins_a_run_in_flight(served, client):
    """A second call joins the run that is under way and gets all of its answer."""
    served.upstream.hang(["half "], then=["whole"])
    first = asyncio.ensure_future(client.chat("go", headers=KEY, stream=True))
    await served.upstream.arrival()
    others = [
        asyncio.ensure_future(client.chat("go", headers=KEY, stream=stream))
        for stream in (True, False, True)
    ]
    await asyncio.sleep(0.1)
    served.upstream.release()
    assert [(await call).text for call in (first, *others)] == ["half whole"] * 4
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_at_the_same_moment(served, client):
    """Of calls that come together one begins a run, and all get its answer."""
    served.upstream.default = None
    calls = await asyncio.gather(
        *(client.chat("go", headers=KEY, user="ann") for _ in range(8))
    )
    assert {call.text for call in calls} == {"go"}
    assert len({call.headers["x-edwin-run-id"] for call in calls}) == 1
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "in-flight"])
@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "another"}]},
        {"temperature": 0.5},
        {"user": "bob"},
        {"model": "edwin:other"},
    ],
    ids=["messages", "parameter", "user", "agent"],
)
async def test_idempotency_key_of_another_request(make_gateway, ended, other):
    """A key that was used with another request is 422, which no SDK repeats."""
    served = await make_gateway({"agents": {"list": [{"id": "main"}, {"id": "other"}]}})
    client = Client(served)
    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("go", headers=KEY))
    await served.upstream.arrival()
    if ended:
        served.upstream.release()
        await first
    refused = await client.chat("go", headers=KEY, **other)
    assert refused.status == 422
    assert refused.error["code"] == "idempotency_key_reused"
    assert refused.error["param"] == "Idempotency-Key"
    served.upstream.release()
    assert (await first).text == "done"
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_ignores_how_the_answer_is_given(client):
    """Order of keys, ``stream`` and ``stream_options`` make no other request."""
    one = await client.chat("go", headers=KEY, temperature=0.5, top_p=1)
    two = await client.chat(
        "go",
        headers=KEY,
        top_p=1,
        temperature=0.5,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert two.headers["x-edwin-replayed"] == "true"
    assert two.events[-2]["usage"] == one.json["usage"]


@pytest.mark.gen_test
@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ümlaut".encode().decode("l1")])
async def test_idempotency_refuses_a_bad_key(served, client, key):
    """A key is 1 to 255 visible ASCII characters, sent once."""
    answer = await client.chat("go", headers={"Idempotency-Key": key})
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
    assert not served.upstream.requests


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
@pytest.mark.parametrize(
    ("fault", "status"),
    [({"status": 429}, 429), ({"status": 503}, 502)],
    ids=["429", "503"],
)
async def test_idempotency_refusal_leaves_the_key_free(
    served, client, fields, fault, status
):
    """A call that the provider turned away does not use the key up."""
    served.upstream.fail(**fault)
    served.upstream.reply("at last")
    assert (await client.chat("go", headers=KEY, **fields)).status == status
    again = await client.chat("go", headers=KEY, **fields)
    assert (again.status, again.text) == (200, "at last")
    assert "x-edwin-replayed" not in again.headers


@pytest.mark.gen_test
async def test_idempotency_bad_request_leaves_the_key_free(client):
    """A request at fault does not use the key up: mended, it has it."""
    bad = [{"role": "tool", "tool_call_id": "x", "content": "?"}]
    assert (await client.chat(*bad, headers=KEY)).status == 400
    assert (await client.chat("go", headers=KEY)).text == "go"


@pytest.mark.gen_test
async def test_idempotency_full_queue_leaves_the_key_free(make_gateway):
    """A call that found no place does not use the key up."""
    served = await make_gateway({"gateway": {"runs": {"maxQueuedPerSession": 0}}})
    client = Client(served)
    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("first", user="ann"))
    await served.upstream.arrival()
    assert (await client.chat("go", user="ann", headers=KEY)).status == 429
    served.upstream.release()
    await first
    assert (await client.chat("go", user="ann", headers=KEY)).text == "go"


@pytest.mark.gen_test
async def test_idempotency_failure_is_a_result(served, client):
    """A run that failed in its answer is not carried out again: its error is given."""
    served.upstream.reply(deltas=["half"], cut=True)
    one = await client.chat("go", headers=KEY)
    two = await client.chat("go", headers=KEY)
    assert (one.status, two.status) == (502, 502)
    assert two.error == one.error
    assert two.headers["x-should-retry"] == "false"
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_outlives_its_client(served, client, connect):
    """A run with a key goes on when its client has left, and the answer waits."""
    served.upstream.hang(["half "], then=["whole"])
    headers = "Idempotency-Key: order-17\r\n"
    left = await connect(served, raw_chat("go", headers=headers, stream=True))
    await left.until(b"half")
    await left.close()
    await asyncio.sleep(0.1)
    served.upstream.release()
    await settled(client)
    assert (await client.chat("go", headers=KEY)).text == "half whole"
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_grace_ends(make_gateway, connect):
    """After ``runs.graceSeconds`` without a reader such a run is cancelled."""
    served = await make_gateway({"gateway": {"runs": {"graceSeconds": 0.2}}})
    client = Client(served)
    served.upstream.hang(["half "])
    headers = "Idempotency-Key: order-17\r\n"
    left = await connect(served, raw_chat("go", headers=headers, stream=True))
    await left.until(b"half")
    await left.close()
    async with asyncio.timeout(5):
        await served.upstream.requests[0].closed.wait()
    await settled(client)
    again = await client.chat("go", headers=KEY)
    assert (again.status, again.error["code"]) == (499, "run_cancelled")
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_reader_comes_back_in_time(make_gateway, connect):
    """A client that comes back within the grace keeps the run alive."""
    served = await make_gateway({"gateway": {"runs": {"graceSeconds": 0.5}}})
    client = Client(served)
    served.upstream.hang(["half "], then=["whole"])
    headers = "Idempotency-Key: order-17\r\n"
    left = await connect(served, raw_chat("go", headers=headers, stream=True))
    await left.until(b"half")
    await left.close()
    back = asyncio.ensure_future(client.chat("go", headers=KEY))
    await asyncio.sleep(1)
    assert not served.upstream.requests[0].closed.is_set()
    served.upstream.release()
    assert (await back).text == "half whole"


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_idempotency_outlives_the_gateway(
    make_gateway, tmp_path, upstream, fields, stream
):
    """After a restart the result is given as it was, tool calls and usage too."""
    function = {"name": "f", "arguments": '{"x": 1}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    upstream.reply(deltas=["look"], tool_calls=calls)
    served = await make_gateway(state_dir=tmp_path / "s", upstream=upstream)
    one = await Client(served).chat("go", headers=KEY, **fields)
    await served.stop()
    served = await make_gateway(state_dir=tmp_path / "s", upstream=upstream)
    two = await Client(served).chat("go", headers=KEY, stream=stream, **fields)
    assert two.headers["x-edwin-replayed"] == "true"
    assert two.headers["x-edwin-run-id"] == one.headers["x-edwin-run-id"]
    if stream:
        deltas = [e["choices"][0]["delta"] for e in two.events[:-1]]
        assert two.text == "look"
        pieces = [c for d in deltas for c in d.get("tool_calls", ())]
        assert pieces[0]["function"] == function
    else:
        assert two.json["choices"] == one.json["choices"]
        assert two.json["usage"] == one.json["usage"]
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_idempotency_detaches_a_run_in_flight(make_gateway, connect):
    """A detached request that joins a run lets it go on without a reader."""
    served = await make_gateway({"gateway": {"runs": {"graceSeconds": 0.1}}})
    client = Client(served)
    served.upstream.hang(["half "], then=["whole"])
    headers = "Idempotency-Key: order-17\r\n"
    first = await connect(served, raw_chat("go", headers=headers, stream=True))
    await first.until(b"half")
    joined = await client.request("/v1/runs", chat("go"), headers=KEY)
    assert joined.code == 202
    await first.close()
    await asyncio.sleep(0.5)
    served.upstream.release()
    await settled(client)
    assert (await client.chat("go", headers=KEY)).text == "half whole"
    assert len(served.upstream.requests) == 1
