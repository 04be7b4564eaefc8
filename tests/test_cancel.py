"""Who cancels, or leaves, stops the work at once, with 200 runs in flight."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import pytest

from edwin.runs.run import Run
from edwin.testing import BEFORE_HEAD, TOKEN, Reply, Request
from tests.conftest import Client, Connect, MakeGateway, RawAnswer, chat, raw_chat

COUNT = 200
GAP_S = 1.0
RETRY_S = 1.0
# What chance makes of it at most.
LONGEST_RETRY_S = 1.25 * RETRY_S
PATIENCE_S = 20
# How the answers of a mixed crowd are asked for, in turn.
STREAMS = False, True

# One piece at once; when released another one, and from then on one a second.
SLOW = Reply(deltas=["one ", *["more "] * 60], gap_s=GAP_S, silent_at=1)


@dataclass
class Crowd:
    """Many clients of one gateway, each in the middle of a call.

    Attributes:
        client: Of the gateway, for everything else.
        answers: What each of them has got so far.
        before: The tasks there were when none of them had come.

    """

    client: Client
    connect: Connect
    answers: list[RawAnswer] = field(default_factory=list)
    before: set[asyncio.Task] = field(default_factory=asyncio.all_tasks)

    @property
    def requests(self) -> list[Request]:
        """What came to the provider."""
        return self.client.served.upstream.requests

    @property
    def engine(self):
        """The gateway's engine."""
        return self.client.served.gateway.engine

    async def come(self, calls: Iterable[bytes]) -> None:
        """Let a client send each of *calls*."""
        for call in calls:
            self.answers.append(await self.connect(self.client.served, call))

    async def lines(self, count: int = COUNT) -> list[RawAnswer]:
        """Return connections on which nothing has been said."""
        return [await self.connect(self.client.served) for _ in range(count)]

    def leave(self) -> None:
        """Let all of them go, some with a reset."""
        for place, answer in enumerate(self.answers):
            if place % 4:
                answer.writer.close()
            else:
                answer.writer.transport.abort()

    async def check_nothing_is_left(self) -> None:
        """The gateway has no run any more, and no task that is about one."""
        await until(lambda: not self.engine.live())
        assert self.engine.running == self.engine.waiting == 0
        assert not self.engine._lanes._lanes
        assert not self.engine._ready
        gateway = self.client.served.gateway
        await until(lambda: not gateway.answers)
        await until(lambda: not set(self.tasks()))

    def tasks(self) -> Iterator[asyncio.Task]:
        """Yield the tasks that carry out a run, or answer somebody."""
        for task in asyncio.all_tasks() - self.before:
            work = task.get_coro().__qualname__
            if work != "HTTP1ServerConnection._server_request_loop":
                yield task


async def until(true: Callable[[], bool]) -> None:
    """Return when *true* is."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.005)


def calls(*, stream: bool | None = None, user: str | None = None) -> Iterator[bytes]:
    """Yield the calls of a crowd.

    Args:
        stream: None: every second one.
        user: None: each has another, and each third none.

    """
    for place in range(COUNT):
        whose = user or f"user-{place}"
        yield raw_chat(
            f"call {place}",
            headers="Connection: close\r\n",
            stream=place % 2 == 1 if stream is None else stream,
            **({} if place % 3 == 2 and not user else {"user": whose}),
        )


@pytest.fixture
def crowd(io_loop, make_gateway: MakeGateway, connect: Connect):
    """Return a function that makes a crowd of clients of a gateway."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))

    async def make(**runs: object) -> Crowd:
        models = {
            "providers": {
                "upstream": {
                    "retries": 9,
                    "retrySeconds": RETRY_S,
                    "breaker": {"failures": 0},
                }
            }
        }
        served = await make_gateway(
            {"gateway": {"runs": runs, "http": {"headDelayMs": 100}}, "models": models}
        )
        return Crowd(Client(served), connect)

    yield make
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def cancel(runs: Iterable[Run], lines: Iterable[RawAnswer]) -> None:
    """Ask for the end of each of *runs* by its id, all at the same time."""
    for run, line in zip(runs, lines, strict=True):
        line.writer.write(
            f"POST /v1/runs/{run.id}/cancel HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )


async def check_told(answers: Iterable[RawAnswer], *, streams: Sequence[bool]) -> None:
    """Each of them was told that its run was cancelled, and got no clean end."""
    async with asyncio.timeout(PATIENCE_S):
        for answer, stream in zip(answers, cycle(streams), strict=False):
            told = await answer.to_end()
            assert b'"code":"run_cancelled"' in told, told
            assert told.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 499")
            assert b"[DONE]" not in told and not told.endswith(b"\r\n0\r\n\r\n")


async def check_cancelled(answers: Iterable[RawAnswer]) -> None:
    """Each cancelling was answered with the run, when it had ended."""
    async with asyncio.timeout(PATIENCE_S):
        for answer in answers:
            head, _, body = (await answer.to_end()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            assert json.loads(body)["state"] == "cancelled"


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["cancel", "leave"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_cancel_closes_the_provider(crowd, stream, way):
    """Of 200 runs the provider sees each closed before its next piece is due."""
    crowd = await crowd()
    upstream = crowd.client.served.upstream
    upstream.default = SLOW
    await crowd.come(calls(stream=stream))
    await upstream.arrival(COUNT)
    runs = list(crowd.engine.live())
    await until(lambda: all(run.first_delta_ms is not None for run in runs))
    if stream:
        for answer in crowd.answers:
            await answer.until(b"one ")
    lines = await crowd.lines()
    released_at = time.time()
    upstream.release()
    if way == "leave":
        crowd.leave()
    else:
        cancel(runs, lines)
    async with asyncio.timeout(PATIENCE_S):
        for request in crowd.requests:
            await request.closed.wait()
    last_s = max(request.closed_at for request in crowd.requests) - released_at
    assert last_s < GAP_S
    if way == "cancel":
        await check_cancelled(lines)
        await check_told(crowd.answers, streams=[stream])
    await crowd.check_nothing_is_left()
    assert len(crowd.requests) == COUNT


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["cancel", "leave"])
@pytest.mark.parametrize("behind", ["session", "limit"])
async def test_cancel_queued_runs_never_begin(crowd, behind, way):
    """Of 200 runs that wait and are given up the provider hears of none."""
    limits = {"maxConcurrent": 1} if behind == "limit" else {}
    crowd = await crowd(maxQueuedPerSession=COUNT, **limits)
    upstream = crowd.client.served.upstream
    upstream.hang(then=["done"])
    first = asyncio.ensure_future(crowd.client.chat("first", user="ann"))
    await upstream.arrival()
    (under_way,) = crowd.engine.live()
    await crowd.come(calls(user="ann" if behind == "session" else None))
    await until(lambda: crowd.engine.waiting == COUNT)
    for answer in crowd.answers[1::2]:
        await answer.until(b"\r\n\r\n")
    lines = await crowd.lines()
    if way == "leave":
        crowd.leave()
    else:
        cancel([run for run in crowd.engine.live() if run is not under_way], lines)
        await check_cancelled(lines)
        await check_told(crowd.answers, streams=STREAMS)
    await until(lambda: not crowd.engine.waiting)
    assert not first.done()
    upstream.release()
    assert (await first).text == "done"
    await crowd.check_nothing_is_left()
    assert len(crowd.requests) == 1
    assert (await crowd.client.chat("next", user="ann")).text == "next"


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["cancel", "leave"])
async def test_cancel_ends_retries(crowd, way):
    """Of 200 runs between two calls of a provider that is down none calls it again."""
    crowd = await crowd()
    upstream = crowd.client.served.upstream
    upstream.default = Reply(status=503, body={})
    await crowd.come(calls())
    await upstream.arrival(COUNT)
    async with asyncio.timeout(PATIENCE_S):
        for request in crowd.requests:
            await request.over.wait()
    for answer in crowd.answers[1::2]:
        await answer.until(b"\r\n\r\n")
    lines = await crowd.lines()
    runs = list(crowd.engine.live())
    if way == "leave":
        crowd.leave()
    else:
        cancel(runs, lines)
        await check_cancelled(lines)
        await check_told(crowd.answers, streams=STREAMS)
    await crowd.check_nothing_is_left()
    assert len(runs) == COUNT
    # Some may have called again before they were told.
    count = len(crowd.requests)
    await asyncio.sleep(LONGEST_RETRY_S)
    assert len(crowd.requests) == count


@pytest.mark.gen_test
async def test_cancel_before_the_provider_answers(crowd):
    """Neither do runs go on whose provider has not said a word yet."""
    crowd = await crowd()
    upstream = crowd.client.served.upstream
    upstream.default = Reply(silent_at=BEFORE_HEAD)
    await crowd.come(calls(stream=False))
    await upstream.arrival(COUNT)
    crowd.leave()
    async with asyncio.timeout(PATIENCE_S):
        for request in crowd.requests:
            await request.closed.wait()
    await crowd.check_nothing_is_left()


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_cancel_by_id(served, client, connect, stream):
    """A run ended by its id keeps its text; to end it again changes nothing."""
    served.upstream.hang(["half "])
    headers = "x-edwin-session-key: the-session\r\n"
    caller = await connect(served, raw_chat("go", headers=headers, stream=stream))
    request = await served.upstream.arrival()
    (run,) = served.gateway.engine.live()
    await until(lambda: run.first_delta_ms is not None)
    path = f"/v1/runs/{run.id}"
    cancelled = json.loads((await client.request(f"{path}/cancel", b"")).body)
    assert (cancelled["state"], cancelled["error"]["code"]) == (
        "cancelled",
        "run_cancelled",
    )
    async with asyncio.timeout(PATIENCE_S):
        await request.closed.wait()
        told = await caller.until(b"run_cancelled")
    assert b"run_cancelled" in told and b"[DONE]" not in told
    again = json.loads((await client.request(f"{path}/cancel", b"")).body)
    for name in ("state", "error", "finished_at", "events"):
        assert json.loads((await client.request(path)).body)[name] == again[name]
    assert again["finished_at"] == cancelled["finished_at"]
    item = "/v1/sessions/item?agent=main&key=the-session"
    kept = json.loads((await client.request(item)).body)["data"]
    assert [line["message"]["content"] for line in kept] == ["go", "half "]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_cancel_waits_for_the_last_reader(served, connect, stream):
    """A run goes on while somebody reads it, and ends when the last one leaves."""
    served.upstream.hang(["half "])
    caller = await connect(served, raw_chat("go", user="ann", stream=stream))
    request = await served.upstream.arrival()
    (run,) = served.gateway.engine.live()
    readers = [await connect(served, raw_events(run.id)) for _ in range(2)]
    for reader in readers:
        await reader.until(b"half ")
    for leaving in (caller, readers[0]):
        await leaving.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await request.closed.wait()
        assert run.state == "running"
    await readers[1].close()
    async with asyncio.timeout(PATIENCE_S):
        await request.closed.wait()
        await run.wait()
    assert run.state == "cancelled"


@pytest.mark.gen_test
async def test_cancel_second_reader_gets_everything(served, connect):
    """Who goes on reading when the caller has left gets the whole answer."""
    served.upstream.hang(["half "], then=["whole"])
    caller = await connect(served, raw_chat("go", stream=True))
    await served.upstream.arrival()
    (run,) = served.gateway.engine.live()
    await caller.until(b"half ")
    reader = await connect(served, raw_events(run.id))
    await reader.until(b"half ")
    await caller.close()
    await asyncio.sleep(0.1)
    served.upstream.release()
    async with asyncio.timeout(PATIENCE_S):
        got = await reader.until(b"run.finished")
    assert b"half whole" in got


@pytest.mark.gen_test
async def test_cancel_not_of_detached_runs(served, client, connect):
    """A detached run has no caller to lose: it goes on unread, and ends by its id."""
    served.upstream.hang(["half "], then=["whole"])
    served.upstream.hang(["half "])
    begun = [
        json.loads((await client.request("/v1/runs", chat(text))).body)["id"]
        for text in ("one", "two")
    ]
    requests = [await served.upstream.arrival(count) for count in (1, 2)]
    reader = await connect(served, raw_events(begun[0]))
    await reader.until(b"half ")
    await reader.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await requests[0].closed.wait()
    requests[0].release()
    runs = [served.gateway.engine.find(run_id) for run_id in begun]
    async with asyncio.timeout(PATIENCE_S):
        await runs[0].wait()
    assert runs[0].end.message["content"] == "half whole"
    assert not requests[1].closed.is_set()
    await client.request(f"/v1/runs/{begun[1]}/cancel", b"")
    async with asyncio.timeout(PATIENCE_S):
        await requests[1].closed.wait()
    assert runs[1].state == "cancelled"


def raw_events(run_id: str) -> bytes:
    """Return the bytes of a request for a run's events."""
    return (
        f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n"
    ).encode()
