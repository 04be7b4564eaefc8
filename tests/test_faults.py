"""Whatever the provider does wrong, the client is told the truth, and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edwin.types import SessionId
from tests.conftest import Client
from tests.faults import FAULTS, Fault, closed_port, markdown

ROOT = Path(__file__).parent.parent
PATIENT = {"connectSeconds": 20, "retries": 1, "retrySeconds": 0.01}
# Short only where silence is the fault: a busy machine is none.
IMPATIENT = {**PATIENT, "firstDeltaSeconds": 0.3, "idleSeconds": 0.3}
# How the answer is asked for: streamed or not, and when a stream's head goes out.
WAYS = {"whole": None, "stream, late head": 60_000, "stream, head at once": 0}


@pytest.fixture
def plain_port(io_loop):
    """Return a port on which somebody speaks, but not TLS."""

    async def start():
        async def greet(reader, writer):
            writer.write(b"220 hello\r\n")
            writer.close()

        return await asyncio.start_server(greet, "127.0.0.1", 0)

    server = io_loop.run_sync(start)
    yield server.sockets[0].getsockname()[1]
    server.close()
    io_loop.run_sync(server.wait_closed)


async def faulty(
    make_gateway, fault: Fault, head_delay_ms: int | None, plain_port: int
) -> Client:
    """Return a client of a gateway whose provider has *fault*, and does well else."""
    http = {} if head_delay_ms is None else {"headDelayMs": head_delay_ms}
    times = IMPATIENT if fault.code == "provider_timeout" else PATIENT
    config = {
        "gateway": {"http": http},
        "models": {"providers": {"upstream": times}},
        "agents": {"list": [{"id": "well", "model": "upstream/scripted"}]},
    }
    served = await make_gateway(config)
    if fault.base_url:
        url = fault.base_url.format(closed=closed_port(), plain=plain_port)
        provider = {"api": "openai-completions", "baseUrl": url, **times}
        config["models"]["providers"]["faulty"] = provider
        config["agents"]["list"].append({"id": "faulty", "model": "faulty/x"})
        served = await make_gateway(config)
    fault.script(served.upstream)
    return Client(served)


@pytest.mark.gen_test
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_faults_matrix(make_gateway, plain_port, fault, way):
    """Each fault has its status, code, headers and trace, and the session goes on."""
    head_delay_ms = WAYS[way]
    client = await faulty(make_gateway, fault, head_delay_ms, plain_port)
    model = "edwin:faulty" if fault.base_url else "edwin:well"
    streamed = head_delay_ms is not None
    key = {"x-edwin-session-key": "the-session"}
    answer = await client.chat("Hello", model=model, headers=key, stream=streamed)

    # A fault at once may come before a head at once; then it still has its status.
    slow = bool(fault.partial) or fault.code == "provider_timeout"
    at_once = head_delay_ms == 0 and (slow or answer.status == 200)
    head_is_out = streamed and (at_once or bool(fault.partial))
    if fault.code is None:
        assert (answer.status, answer.text) == (200, fault.text)
        if streamed:
            assert answer.events[-1] == "[DONE]"
    elif head_is_out:
        assert answer.status == 200
        assert answer.cut and "[DONE]" not in answer.body
        error = answer.events[-1]["error"]
        assert error["code"] == fault.code
        assert '"finish_reason":"' not in answer.body
        assert said(answer) == fault.partial
    else:
        assert (answer.status, answer.error["code"]) == (fault.status, fault.code)
        for name, value in fault.headers.items():
            assert answer.headers[name] == value
        assert answer.headers["x-edwin-run-id"].startswith("run_")
    assert len(client.served.upstream.requests) == fault.calls

    await check_what_is_stored(client, fault, model)
    client.served.upstream.reply("well again")
    after = await client.chat("And now?", model="edwin:well", headers=key)
    assert (after.status, after.text) == (200, "well again")


def said(answer) -> str:
    """Return the text that a broken stream gave."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in answer.events
        for choice in event.get("choices", ())
    )


async def check_what_is_stored(client: Client, fault: Fault, model: str) -> None:
    """The ledger says how it ended; the conversation holds whole answers only."""
    gateway = client.served.gateway
    session = SessionId("owner", model.removeprefix("edwin:"), "the-session")
    (run,) = await gateway.store.runs(session_key=session.key, agent=session.agent)
    assert run.error_code == fault.code
    assert run.state == ("failed" if fault.code else "finished")
    gateway.registry._live.clear()
    transcript = await gateway.registry.transcript(session)
    kept = [entry.message["content"] for entry in transcript.entries]
    assert kept == ([] if fault.code else ["Hello", fault.text])


def test_faults_documented():
    """docs/errors.md holds the matrix as it is tested."""
    assert markdown() in (ROOT / "docs" / "errors.md").read_text("utf-8")
