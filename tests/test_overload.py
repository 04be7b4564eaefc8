"""Overload: everything is bounded, and what is refused costs little."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import select
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest

from edwin.testing import Reply
from edwin.testing.gateway import TOKEN
from tests.conftest import Client, raw_chat
from tests.process import GatewayProcess
from tools.bench.answers import Answer
from tools.bench.load import Connection, Job
from tools.bench.processes import Cores, Helper
from tools.bench.question import request

STREAMS = 2_000
REFUSED = 10_000
SILENT = Answer(deltas=1, gap_s=0.0, silent=True)
PATIENCE_S = 40.0


@contextmanager
def many_files() -> Iterator[None]:
    """Let this process, and those it starts, open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        if hard != resource.RLIM_INFINITY and hard < 2 * STREAMS + 1000:
            pytest.skip(f"this user's processes may open {hard} files only")
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Stage:
    """A gateway and its provider, each a process of its own."""

    def __init__(self, folder: Path, stack: ExitStack, **runs: object) -> None:
        cores = Cores().rest
        self.upstream = stack.enter_context(
            Helper("upstream", cores=cores, folder=folder / "upstream")
        )
        provider = {
            "api": "openai-completions",
            "baseUrl": f"http://127.0.0.1:{self.upstream.line(30)}/v1",
        }
        config = {
            "gateway": {"runs": runs},
            "agents": {"defaults": {"model": "up/mock", "instructions": ""}},
            "models": {"providers": {"up": provider}},
        }
        self.gateway = stack.enter_context(GatewayProcess(folder, config))
        self.port = int(self.gateway.url.rsplit(":", 1)[1])

    def answers(self, answer: Answer) -> None:
        """Let the provider answer with *answer* from now on."""
        self.upstream.ask(asdict(answer), patience_s=30)

    def gauge(self, name: str) -> int:
        """Return what the gateway's metrics say."""
        asked = urllib.request.Request(
            f"{self.gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(asked, timeout=30) as response:
            found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.M)
        assert found is not None, name
        return int(float(found[1]))

    def until(self, **gauges: int) -> None:
        """Return when the metrics say so."""
        limit = time.monotonic() + 20
        while (seen := {name: self.gauge(name) for name in gauges}) != gauges:
            assert time.monotonic() < limit, seen
            time.sleep(0.05)

    def rss(self) -> int:
        """Return the gateway's resident memory, in bytes."""
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text("ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def job(self, *, stream: bool, **rest: object) -> Job:
        """Return what one connection does; *rest*: fields of job or request."""
        own = {name: rest.pop(name) for name in list(rest) if name in FIELDS}
        asked = request(self.port, stream=stream, token=TOKEN, **rest)
        return Job(port=self.port, request=asked, connections=1, **own)


FIELDS = {"deltas", "mark", "status", "silent"}


def opened(job: Job, number: int = 1) -> list[Connection]:
    """Return *number* connections that have not sent anything."""
    users = (b"nobody" for _ in count())
    return [Connection(job, users) for _ in range(number)]


def received(connection: Connection) -> bytes:
    """Return what has come of the answer under way."""
    return bytes(connection._received)


def read_to_the_end(
    connections: Sequence[Connection], *, times: int = 1
) -> Iterator[Connection]:
    """Yield each connection when its answer is whole and right, and send again.

    Every connection has sent its first request; it sends *times* in all.
    """
    with select.epoll() as epoll:
        left = {connection.socket.fileno(): times for connection in connections}
        by_fd = {connection.socket.fileno(): connection for connection in connections}
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        limit = time.monotonic() + PATIENCE_S
        while left:
            ready = epoll.poll(1)
            assert time.monotonic() < limit, f"{len(left)} wait, such as " + repr(
                received(by_fd[next(iter(left))])[:500]
            )
            for fd, _ in ready:
                connection = by_fd[fd]
                if not connection.read():
                    continue
                connection.check()
                yield connection
                left[fd] -= 1
                if left[fd]:
                    connection.send()
                else:
                    del left[fd]


def close(*connections: Connection) -> None:
    """Hang up."""
    for connection in connections:
        connection.socket.close()


def test_overload_2000_streams_at_once(tmp_path):
    """With ``maxConcurrent: 4096`` one process carries 2,000 slow streams."""
    deltas = 14
    with many_files(), ExitStack() as stack:
        stage = Stage(tmp_path, stack, maxConcurrent=4096)
        stage.answers(Answer(deltas=deltas, gap_s=0.5))
        connections = opened(stage.job(stream=True, deltas=deltas), STREAMS)
        stack.callback(close, *connections)
        for connection in connections:
            connection.send()
        stage.until(edwin_runs_running=STREAMS)
        whole = 0
        for connection in read_to_the_end(connections):
            assert received(connection).count(b"data: [DONE]\n\n") == 1
            whole += 1
        assert whole == STREAMS
        stage.until(edwin_runs_running=0, edwin_answers_open=0)


def test_overload_10000_refusals(tmp_path):
    """What is over the limit is refused at once, costs no memory, and all goes on."""
    with ExitStack() as stack:
        runs = {"maxConcurrent": 2, "maxQueued": 3, "maxQueuedPerSession": 1}
        stage = Stage(tmp_path, stack, **runs)
        stage.answers(SILENT)
        held = []
        # One of Ann's runs and one of nobody's are under way, one and two wait.
        for fields in ({"user": "ann"}, {}, {"user": "ann"}, {}, {}):
            (connection,) = opened(stage.job(stream=True, deltas=1, **fields))
            stack.callback(close, connection)
            held.append(connection)
            connection.send()
            under_way = min(2, len(held))
            stage.until(
                edwin_runs_running=under_way,
                edwin_runs_waiting=len(held) - under_way,
            )
        busy = {"status": 503, "mark": '"overloaded"', "deltas": 1}
        full = {"status": 429, "mark": '"session_queue_full"', "deltas": 1}
        jobs = (
            stage.job(stream=False, **busy),
            stage.job(stream=True, **busy),
            stage.job(stream=False, user="ann", **full),
            stage.job(stream=True, user="ann", **full),
        )
        refused = [one for job in jobs for one in opened(job, 10)]
        stack.callback(close, *refused)
        volley(refused, 20)
        before = stage.rss()
        began = time.monotonic()
        assert volley(refused, REFUSED // len(refused)) == REFUSED
        assert time.monotonic() - began < PATIENCE_S
        assert stage.rss() <= before * 1.1
        assert stage.gauge("edwin_runs_running") == 2
        assert stage.gauge("edwin_runs_waiting") == 3
        assert stage.gauge("edwin_answers_open") == 5

        close(*held)
        stage.until(edwin_runs_running=0, edwin_runs_waiting=0, edwin_answers_open=0)
        stage.answers(Answer(deltas=3))
        for fields in ({}, {"user": "ann"}):
            after = opened(stage.job(stream=True, deltas=3, **fields))
            stack.callback(close, *after)
            assert volley(after, 1) == 1


def volley(connections: Sequence[Connection], times: int) -> int:
    """Send *times* requests on each; return how many answers were right."""
    for connection in connections:
        connection.send()
    right = 0
    for connection in read_to_the_end(connections, times=times):
        head = received(connection).partition(b"\r\n\r\n")[0].decode()
        assert re.search(r"\r\nX-Request-Id: req_\w+", head, re.I), head
        if not head.startswith("HTTP/1.1 200 "):
            assert re.search(r"\r\nRetry-After: [1-9]\d?\r\n", head), head
        right += 1
    return right


@pytest.mark.gen_test
async def test_overload_refusals_leave_nothing(make_gateway):
    """Of a refused request nothing is left: no run, no place, no key."""
    runs = {"maxConcurrent": 1, "maxQueued": 0, "maxQueuedPerSession": 0}
    served = await make_gateway({"gateway": {"runs": runs}})
    client, engine = Client(served), served.gateway.engine
    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("first", user="ann"))
    await served.upstream.arrival()
    refused = await asyncio.gather(
        *(
            client.chat(
                "go",
                stream=number % 2 == 0,
                headers={"Idempotency-Key": f"key-{number}"} if number % 3 else {},
                **({"user": f"user-{number}"} if number % 5 else {"user": "ann"}),
            )
            for number in range(100)
        )
    )
    assert {(answer.status, answer.error["code"]) for answer in refused} == {
        (503, "overloaded"),
        (429, "session_queue_full"),
    }
    assert len(engine.live()) == len(engine._timers) == len(engine._tasks) == 1
    assert len(engine._lanes._lanes) == 1
    assert not engine._ready and not engine._recent and not engine._keys._claims
    assert not served.gateway.registry._live.keys() - {
        run.session for run in engine.live()
    }
    served.upstream.release()
    assert (await first).text == "done"
    assert not engine.live() and not engine._lanes._lanes
    again = await client.chat("go", user="user-1", headers={"Idempotency-Key": "key-1"})
    assert again.text == "go" and "x-edwin-replayed" not in again.headers
    assert len(served.upstream.requests) == 2


@pytest.mark.gen_test
@pytest.mark.parametrize("user", [None, "ann"], ids=["gateway", "session"])
async def test_overload_retry_after_is_the_queues_speed(make_gateway, user):
    """``Retry-After`` follows how fast the queue moves: slow runs, then quick ones."""
    runs = {"maxConcurrent": 1, "maxQueued": 0, "maxQueuedPerSession": 0}
    served = await make_gateway({"gateway": {"runs": runs}})
    client = Client(served)
    fields = {"user": user} if user else {}

    async def said() -> int:
        """Return what one who finds no place is told."""
        served.upstream.hang(then=["done"])
        arrived = len(served.upstream.requests) + 1
        first = asyncio.ensure_future(client.chat("first", **fields))
        await served.upstream.arrival(arrived)
        refused = await client.chat("second", **fields)
        served.upstream.release()
        await first
        assert refused.error["code"] == ("session_queue_full" if user else "overloaded")
        seconds = int(refused.headers["Retry-After"])
        assert 1 <= seconds <= 60
        return seconds

    await said()
    served.upstream.queue(Reply(deltas=["slow", "ly"], gap_s=3.0))
    assert (await client.chat(**fields)).text == "slowly"
    assert await said() >= 2
    for _ in range(60):
        await client.chat(**fields)
    assert await said() == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("head_delay_ms", [10_000, 0], ids=["no-head", "head"])
async def test_overload_who_leaves_the_queue_reaches_no_provider(
    make_gateway, connect, head_delay_ms
):
    """A request that waits when its client leaves is dropped from the queue."""
    config = {
        "runs": {"maxConcurrent": 1},
        "http": {"headDelayMs": head_delay_ms},
    }
    served = await make_gateway({"gateway": config})
    client, engine = Client(served), served.gateway.engine
    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("first"))
    await served.upstream.arrival()
    waiting = [
        await connect(served, raw_chat("gone", stream=number % 2 == 0))
        for number in range(50)
    ]
    await until(lambda: engine.waiting == 50)
    stays = asyncio.ensure_future(client.chat("stays"))
    await until(lambda: engine.waiting == 51)
    if head_delay_ms == 0:
        await waiting[0].until(b'"role"')
    for answer in waiting:
        await answer.close()
    await until(lambda: engine.waiting == 1)
    assert len(engine.live()) == 2 and len(engine._ready) == 1
    served.upstream.release()
    assert ((await first).text, (await stays).text) == ("done", "stays")
    said = [r.body["messages"][-1]["content"] for r in served.upstream.requests]
    assert said == ["first", "stays"]


async def until(true) -> None:
    """Wait until *true* returns so."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("user", [None, "ann"], ids=["stateless", "session"])
async def test_overload_a_request_has_its_own_deadline(make_gateway, stream, user):
    """``x-edwin-timeout-ms`` lowers a deadline: of a run, and of one that waits."""
    served = await make_gateway({"gateway": {"runs": {"maxConcurrent": 1}}})
    client, engine = Client(served), served.gateway.engine
    fields = {"stream": stream} | ({"user": user} if user else {})
    served.upstream.hang()
    began = time.monotonic()
    ran = await client.chat("go", headers={"x-edwin-timeout-ms": "300"}, **fields)
    assert 0.3 <= time.monotonic() - began < 5
    assert (ran.status, ran.error["code"]) == (504, "run_timeout")
    assert ran.headers["x-should-retry"] == "false"
    async with asyncio.timeout(5):
        await served.upstream.requests[0].closed.wait()

    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("first"))
    await served.upstream.arrival(2)
    waited = await client.chat("go", headers={"x-edwin-timeout-ms": "200"}, **fields)
    assert (waited.status, waited.error["code"]) == (503, "queue_timeout")
    assert 1 <= int(waited.headers["Retry-After"]) <= 60
    assert engine.waiting == 0 and len(engine.live()) == 1
    served.upstream.release()
    assert (await first).text == "done"
    assert len(served.upstream.requests) == 2


@pytest.mark.gen_test
async def test_overload_a_deadline_cannot_be_raised(make_gateway):
    """A request's own deadline beyond ``runs.timeoutSeconds`` is that one."""
    served = await make_gateway({"gateway": {"runs": {"timeoutSeconds": 0.3}}})
    served.upstream.hang()
    began = time.monotonic()
    headers = {"x-edwin-timeout-ms": "600000"}
    answer = await Client(served).chat("go", headers=headers)
    assert time.monotonic() - began < 5
    assert (answer.status, answer.error["code"]) == (504, "run_timeout")
    assert "0.3 s" in answer.error["message"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "value", ["", "0", "-1", "1.5", "1e3", "soon", "1 000", "9999999999", "٣"]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/runs"])
async def test_overload_a_deadline_is_a_whole_number(client, path, value):
    """Any other ``x-edwin-timeout-ms`` than whole milliseconds above 0 is refused."""
    document = {"model": "edwin", "messages": [{"role": "user", "content": "go"}]}
    headers = {"x-edwin-timeout-ms": value.encode().decode("latin-1")}
    response = await client.request(path, document, headers=headers)
    error = json.loads(response.body)["error"]
    assert (response.code, error["param"]) == (400, "x-edwin-timeout-ms")
    assert not client.served.upstream.requests
    assert not client.served.gateway.engine.live()
