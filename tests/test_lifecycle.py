"""Start, stop, kill, start again: what a process keeps and how it ends."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from edwin.testing import ScriptedUpstream
from tests.conftest import Client, raw_chat
from tests.process import GatewayProcess, edwin


def provided_by(upstream: ScriptedUpstream, **gateway) -> dict:
    """Return a configuration whose agents talk to *upstream*."""
    return {
        "gateway": gateway,
        "agents": {"defaults": {"model": "up/scripted", "instructions": ""}},
        "models": {
            "providers": {"up": {"api": "openai-completions", "baseUrl": upstream.url}}
        },
    }


async def in_thread(work, *args, **kwargs):
    """Return what *work* returns, without keeping the loop."""
    return await asyncio.get_running_loop().run_in_executor(
        None, lambda: work(*args, **kwargs)
    )


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_lifecycle_sessions_survive(upstream, tmp_path, end):
    """A user's session is the same one after a stop, and after a kill."""
    config = provided_by(upstream)
    upstream.reply("first answer")
    with await in_thread(GatewayProcess, tmp_path, config) as process:
        one = await Client(process).chat("first", user="ann")
        assert one.text == "first answer"
        if end == "SIGTERM":
            process.terminate()
            assert await in_thread(process.wait) == 0
        else:
            await in_thread(process.kill)
    with await in_thread(GatewayProcess, tmp_path, config) as process:
        two = await Client(process).chat("second", user="ann")
        stranger = await Client(process).chat("third", user="Ann")
    key = "x-edwin-session-key"
    assert one.headers[key] == two.headers[key] != stranger.headers[key]
    contexts = [[m["content"] for m in r.body["messages"]] for r in upstream.requests]
    assert contexts == [["first"], ["first", "first answer", "second"], ["third"]]


@pytest.mark.gen_test
async def test_lifecycle_a_stop_lets_runs_finish(upstream, tmp_path):
    """SIGTERM: no new connection, the runs come to their end, exit code 0."""
    upstream.hang(after=["slow"], then=["ly"])
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)) as process:
        call = asyncio.ensure_future(Client(process).chat("go", stream=True))
        await upstream.arrival()
        process.terminate()
        while not any(line["message"] == "stopping" for line in process.lines):
            await asyncio.sleep(0.01)
        with pytest.raises(OSError, match="Cannot connect"):
            while True:
                await Client(process).request("/healthz")
        upstream.release()
        answer = await call
        assert answer.text == "slowly" and answer.events[-1] == "[DONE]"
        assert await in_thread(process.wait) == 0


@pytest.mark.gen_test
async def test_lifecycle_a_stop_ends_runs_in_the_end(upstream, tmp_path, connect):
    """After shutdownSeconds a stream is told why it ends, and is not ended cleanly."""
    upstream.hang(after=["half"])
    config = provided_by(upstream, shutdownSeconds=0.2)
    with await in_thread(GatewayProcess, tmp_path, config) as process:
        answer = await connect(process, raw_chat(stream=True))
        await answer.until(b'"half"')
        process.terminate()
        received = await answer.to_end()
        assert await in_thread(process.wait) == 0
    assert b'"code":"gateway_stopping"' in received
    assert b"[DONE]" not in received and not received.endswith(b"0\r\n\r\n")
    await upstream.requests[0].closed.wait()


@pytest.mark.gen_test
async def test_lifecycle_state_folder_is_private(upstream, tmp_path):
    """The state folder is 0700 and what is in it 0600, whatever the umask says."""
    old = os.umask(0)
    try:
        config = provided_by(upstream, auth={"mode": "token"})
        with await in_thread(GatewayProcess, tmp_path, config) as process:
            token = (tmp_path / "state" / "token").read_text().strip()
            client = Client(process)
            answer = await client.request("/v1/models", token=token)
            assert answer.code == 200
            assert (await client.request("/v1/models", token="other")).code == 401
    finally:
        os.umask(old)
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    files = {p.name: stat.S_IMODE(p.stat().st_mode) for p in state.iterdir()}
    assert {"lock", "token", "session-secret", "edwin.db"} <= files.keys()
    assert set(files.values()) == {0o600}


@pytest.mark.gen_test
async def test_lifecycle_two_processes_never_share_a_state_folder(upstream, tmp_path):
    """A second gateway, or ``--local``, refuses a held state folder by its holder."""
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)) as process:
        for words in (["gateway"], ["agent", "--local", "-m", "hi"]):
            result = await in_thread(edwin, *words, cwd=tmp_path)
            assert result.returncode == 1
            assert f"pid {process.process.pid}" in result.stderr
            assert "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_lifecycle_another_secret_is_refused(upstream, tmp_path):
    """A store whose keys were made with another secret is not opened."""
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)):
        pass
    (tmp_path / "state" / "session-secret").write_text("0" * 64)
    result = await in_thread(edwin, "gateway", cwd=tmp_path)
    assert result.returncode == 1
    assert "secret" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_lifecycle_port_in_use_is_said(upstream, tmp_path):
    """A port that is taken is named, with what to do."""
    other = tmp_path / "other.yaml"
    other.write_text("gateway: {stateDir: other}")
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)) as process:
        port = process.url.rsplit(":", 1)[1]
        words = ["gateway", "--config", str(other), "--port", port]
        result = await in_thread(edwin, *words, cwd=tmp_path)
    assert result.returncode == 1
    assert f"127.0.0.1:{port} cannot be bound" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_lifecycle_log_says_what_happened_and_not_what_was_said(
    upstream, tmp_path
):
    """One JSON line a run, one a request without a run; no text and no user."""
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)) as process:
        client = Client(process)
        answer = await client.chat("SECRET-TEXT", user="SECRET-USER")
        assert (await client.request("/v1/models", token="SECRET-TOKEN")).code == 401
        process.terminate()
        await in_thread(process.wait)
        lines = process.lines
    assert not any("SECRET" in str(line) for line in lines)
    (run,) = [line for line in lines if line["logger"] == "edwin.runs"]
    assert run["run_id"] == answer.headers["x-edwin-run-id"]
    assert run["request_id"] == answer.headers["x-request-id"]
    assert (run["agent"], run["principal"]) == ("main", "owner")
    assert (run["state"], run["status"], run["code"]) == ("finished", 200, None)
    assert run["completion_tokens"] > 0 and run["total_ms"] >= run["first_delta_ms"]
    (request,) = [line for line in lines if line["logger"] == "edwin.access"]
    assert (request["status"], request["code"]) == (401, "invalid_api_key")


@pytest.mark.gen_test
async def test_lifecycle_two_stops_are_one(make_gateway):
    """Whoever else stops or drains waits for the stop that is under way."""
    served = await make_gateway({"gateway": {"shutdownSeconds": 30}})
    served.upstream.hang(after=["slow"], then=["ly"])
    call = asyncio.ensure_future(Client(served).chat(stream=True))
    await served.upstream.arrival()
    stops = [
        asyncio.ensure_future(served.gateway.drain()),
        asyncio.ensure_future(served.gateway.stop()),
        asyncio.ensure_future(served.gateway.stop()),
    ]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(served.gateway.stop(), 0.2)
    assert not any(stop.done() for stop in stops)
    served.upstream.release()
    await asyncio.gather(*stops)
    assert (await call).text == "slowly"
    assert served.gateway.state == "stopped"


class Refuses:
    """A provider that cannot start, nor stop."""

    def __init__(self, config) -> None:
        self.name = config.name

    async def start(self) -> None:
        """Fail."""
        raise ZeroDivisionError("cannot start")

    async def stop(self) -> None:
        """Fail, if anybody asks."""
        raise ZeroDivisionError("cannot stop")

    async def stream(self, request):
        """Have nothing to say."""
        yield


@pytest.mark.gen_test
async def test_lifecycle_a_failed_start_leaves_nothing(make_gateway, tmp_path):
    """After a start that failed, the state folder is free and nothing is open."""
    broken = {"models": {"providers": {"z": {"api": "tests.test_lifecycle:Refuses"}}}}
    with pytest.raises(ZeroDivisionError, match="cannot start"):
        await make_gateway(broken, state_dir=tmp_path / "same")
    served = await make_gateway(state_dir=tmp_path / "same")
    assert (await Client(served).chat()).status == 200


@pytest.mark.gen_test
async def test_lifecycle_a_stop_waits_for_large_answers(make_gateway):
    """A large answer that is on its way goes out whole before the end."""
    served = await make_gateway()
    served.upstream.reply(deltas=["x" * 1_000_000] * 20)
    call = asyncio.ensure_future(Client(served).chat())
    while not served.gateway.answers:
        await asyncio.sleep(0.001)
    await served.gateway.stop()
    assert len((await call).text) == 20_000_000
