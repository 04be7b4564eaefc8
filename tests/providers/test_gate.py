"""Who may call a provider: so many at once, and nobody when it fails."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest

from edwin.config import from_document
from edwin.errors import (
    AgentFailed,
    ContextLengthExceeded,
    EdwinError,
    InternalError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.providers.gate import Gate
from edwin.providers.pool import ProviderPool
from edwin.types import ModelRequest, TextDelta

REQUEST = ModelRequest("m", [{"role": "user", "content": "Hello"}], {})
DOWN = ProviderUnavailable("down")


class Clock:
    """A time that goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """A call in a task of its own: it enters, and leaves when it is told how."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside = asyncio.Event()
        self.end: asyncio.Future[BaseException | None] = asyncio.Future()
        self.task = asyncio.create_task(self.call())

    async def call(self) -> None:
        await self.gate.enter()
        self.inside.set()
        try:
            error = await self.end
        except asyncio.CancelledError as cancelled:
            self.gate.leave(cancelled)
            raise
        self.gate.leave(error)

    async def leave(self, error: BaseException | None = None) -> None:
        self.end.set_result(error)
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def inside(gate: Gate) -> Caller:
    """Return a call that is under way."""
    caller = Caller(gate)
    await caller.inside.wait()
    return caller


async def call(gate: Gate, error: BaseException | None = None) -> None:
    """Make a call that ends with *error* at once."""
    await (await inside(gate)).leave(error)


async def refused(gate: Gate) -> ProviderUnavailable:
    """Return why a call is not let through."""
    with pytest.raises(ProviderUnavailable) as caught:
        await gate.enter()
    return caught.value


def breaker(clock: Clock, failures: int = 3, **rest: int) -> Gate:
    return Gate("acme", failures=failures, seconds=15, clock=clock, **rest)


async def opened(clock: Clock, **rest: int) -> Gate:
    """Return a gate whose provider has failed three times just now."""
    gate = breaker(clock, **rest)
    for _ in range(3):
        await call(gate, DOWN)
    assert gate.open
    return gate


def test_gate_without_a_limit_does_not_suspend():
    """Where there is a place it is taken at once, without a turn of the loop."""
    gate = Gate("acme", failures=20)
    for count in range(1, 4):
        with pytest.raises(StopIteration):
            gate.enter().send(None)
        assert gate.busy == count
    gate.leave(None)
    assert (gate.busy, gate.waiting, gate.open) == (2, 0, False)


@pytest.mark.gen_test
async def test_gate_lets_so_many_through_in_their_order():
    """More calls than may be at once wait, and go on in the order they came in."""
    gate = Gate("acme", max_concurrent=2)
    callers = [Caller(gate) for _ in range(6)]
    await settle()
    assert [caller.inside.is_set() for caller in callers] == [True] * 2 + [False] * 4
    assert (gate.busy, gate.waiting) == (2, 4)
    for place, caller in enumerate(callers):
        await caller.inside.wait()
        await caller.leave()
        await settle()
        assert sum(other.inside.is_set() for other in callers) == min(6, place + 3)
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
async def test_gate_new_calls_do_not_overtake():
    """A call that comes when a place was just given up is behind those that wait."""
    gate = Gate("acme", max_concurrent=1)
    first, second = await inside(gate), Caller(gate)
    await settle()
    first.end.set_result(None)
    await first.task
    third = Caller(gate)
    await settle()
    assert second.inside.is_set() and not third.inside.is_set()
    await second.leave()
    await third.inside.wait()
    await third.leave()


@pytest.mark.gen_test
async def test_gate_forgets_who_stops_waiting():
    """A call that is cancelled while it waits leaves nothing behind."""
    gate = Gate("acme", max_concurrent=1)
    first, second, third = await inside(gate), Caller(gate), Caller(gate)
    await settle()
    await second.cancel()
    assert (gate.busy, gate.waiting) == (1, 1)
    await first.leave()
    await third.inside.wait()
    await third.leave()
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_gate_a_place_is_not_lost_with_who_was_to_have_it(cancelled_first):
    """Cancelled in the moment in which its turn comes, a call passes the place on."""
    gate = Gate("acme", max_concurrent=1)
    await gate.enter()
    second, third = Caller(gate), Caller(gate)
    await settle()
    if cancelled_first:
        second.task.cancel()
        gate.leave(None)
    else:
        gate.leave(None)
        second.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second.task
    await third.inside.wait()
    await third.leave()
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
async def test_gate_survives_a_waiting_call_that_is_thrown_away():
    """A coroutine closed while it waits gives its turn to the next."""
    gate = Gate("acme", max_concurrent=1)
    await gate.enter()
    waiting = gate.enter()
    waiting.send(None)
    assert gate.waiting == 1
    waiting.close()
    gate.leave(None)
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "failure", [DOWN, ProviderTimeout("late"), ProviderStreamError("broken")]
)
async def test_gate_opens_after_failures_in_a_row(failure):
    """After so many failures nobody is let through, and the refusal says how long."""
    clock = Clock()
    gate = breaker(clock)
    await call(gate, failure)
    await call(gate, failure)
    assert not gate.open
    await call(gate, failure)
    assert gate.open
    clock.now += 3
    fault = await refused(gate)
    assert fault.message == (
        "provider 'acme' has failed 3 times in a row and is not called for another 12 s"
    )
    assert (fault.code, fault.retry_after_s) == ("provider_unavailable", 12)
    assert gate.busy == 0


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "answer",
    [
        None,
        ProviderError("refused"),
        ProviderRateLimited("slow down"),
        ContextLengthExceeded("too long"),
    ],
)
async def test_gate_counts_only_failures_in_a_row(answer):
    """Any answer of the provider's, a refusal or a 429 too, begins the count anew."""
    gate = breaker(Clock())
    for _ in range(4):
        await call(gate, DOWN)
        await call(gate, DOWN)
        await call(gate, answer)
    assert not gate.open


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "end",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        InternalError("a defect"),
        AgentFailed("not the provider's"),
    ],
)
async def test_gate_what_says_nothing_changes_nothing(end):
    """A call that was cancelled, or failed by itself, is no failure and no answer."""
    gate = breaker(Clock())
    for _ in range(5):
        await call(gate, end)
    await call(gate, DOWN)
    await call(gate, DOWN)
    await call(gate, end)
    assert not gate.open
    await call(gate, DOWN)
    assert gate.open


@pytest.mark.gen_test
async def test_gate_can_do_without_a_breaker():
    """With ``failures: 0`` every call is let through, whatever became of the others."""
    gate = breaker(Clock(), failures=0)
    for _ in range(100):
        await call(gate, DOWN)
    assert not gate.open


@pytest.mark.gen_test
async def test_gate_one_call_tries_and_closes_the_breaker():
    """After the pause one call goes through, alone; its answer opens the way to all."""
    clock = Clock()
    gate = await opened(clock)
    clock.now += 14.9
    await refused(gate)
    clock.now += 0.1
    trial = await inside(gate)
    fault = await refused(gate)
    assert fault.message.endswith("in a row and is being tried by one call")
    assert fault.retry_after_s == 15
    assert gate.open
    await trial.leave()
    assert not gate.open
    await call(gate, DOWN)
    await call(gate, DOWN)
    assert not gate.open


@pytest.mark.gen_test
async def test_gate_a_failed_trial_begins_the_pause_anew():
    """One failure is enough then, and the count goes on."""
    clock = Clock()
    gate = await opened(clock)
    for count in (4, 5):
        clock.now += 15
        await call(gate, DOWN)
        fault = await refused(gate)
        assert f"{count} times in a row and is not called for another 15 s" in str(
            fault
        )


@pytest.mark.gen_test
async def test_gate_a_refusal_is_an_answer_to_a_trial():
    """A provider that asks for patience, or refuses the call, is there again."""
    clock = Clock()
    gate = await opened(clock)
    clock.now += 15
    await call(gate, ProviderRateLimited("slow down"))
    assert not gate.open


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", [0, 1])
async def test_gate_a_cancelled_trial_leaves_its_place(limit):
    """Cancelled, the trial has shown nothing: the next call is one."""
    clock = Clock()
    gate = await opened(clock, max_concurrent=limit)
    clock.now += 15
    await (await inside(gate)).cancel()
    assert gate.open
    await call(gate)
    assert not gate.open


@pytest.mark.gen_test
async def test_gate_calls_from_before_have_no_say():
    """How a call ends that was under way when the breaker opened is no trial."""
    clock = Clock()
    gate = breaker(clock)
    before = [await inside(gate) for _ in range(4)]
    for _ in range(3):
        await call(gate, DOWN)
    await before[0].leave()
    assert gate.open
    clock.now += 15
    trial = await inside(gate)
    await before[1].leave(DOWN)
    await before[2].leave()
    fault = await refused(gate)
    assert "has failed 3 times in a row and is being tried" in fault.message
    await trial.leave()
    assert (gate.open, gate.busy) == (False, 1)
    await before[3].cancel()
    assert gate.busy == 0


@pytest.mark.gen_test
async def test_gate_a_trial_finds_a_place():
    """Calls from before may fill all places but one; the trial does not wait."""
    clock = Clock()
    gate = breaker(clock, max_concurrent=2, failures=1)
    slow, failing, waiting = await inside(gate), await inside(gate), Caller(gate)
    await settle()
    await failing.leave(DOWN)
    with pytest.raises(ProviderUnavailable):
        await waiting.task
    clock.now += 15
    with pytest.raises(StopIteration):
        gate.enter().send(None)
    assert (gate.busy, gate.waiting) == (2, 0)
    await slow.leave()
    assert gate.open
    gate.leave(None)
    assert (gate.open, gate.busy, gate.waiting) == (False, 0, 0)


@pytest.mark.gen_test
async def test_gate_refuses_at_once_who_waits():
    """When the breaker opens, those that wait for a place are not left waiting."""
    gate = breaker(Clock(), failures=1, max_concurrent=1)
    first, *waiting = (Caller(gate) for _ in range(4))
    await first.inside.wait()
    await settle()
    waiting[0].task.cancel()
    await first.leave(DOWN)
    ends = await asyncio.gather(*(w.task for w in waiting), return_exceptions=True)
    assert [type(end) for end in ends] == [
        asyncio.CancelledError,
        ProviderUnavailable,
        ProviderUnavailable,
    ]
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
async def test_gate_refuses_who_was_about_to_go_through():
    """A place that was given, but not yet taken, is given back when it opens."""
    gate = breaker(Clock(), failures=1, max_concurrent=2)
    await gate.enter()
    await gate.enter()
    waiting = Caller(gate)
    await settle()
    gate.leave(None)
    gate.leave(DOWN)
    with pytest.raises(ProviderUnavailable, match="not called for another 15 s"):
        await waiting.task
    assert (gate.busy, gate.waiting) == (0, 0)


@pytest.mark.gen_test
async def test_gate_a_trial_may_be_ended_by_another_task():
    """Whoever closes the answer of the only call there is ends the trial."""
    clock = Clock()
    gate = await opened(clock)
    clock.now += 15
    await asyncio.create_task(gate.enter())
    gate.leave(None)
    assert not gate.open


@pytest.mark.gen_test
async def test_gate_says_in_the_log_when_it_opens_and_closes(caplog):
    """The log has the first opening as a warning, and that the provider is back."""
    caplog.set_level("INFO", logger="edwin.providers")
    clock = Clock()
    gate = await opened(clock)
    clock.now += 15
    await call(gate, DOWN)
    clock.now += 15
    await call(gate)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "provider 'acme' has failed 3 times in a row; it is not called for 15 s",
        ),
        (
            "INFO",
            "provider 'acme' has failed 4 times in a row; it is not called for 15 s",
        ),
        ("INFO", "provider 'acme' answers again"),
    ]


def providers(**keys: object):
    document = {"acme": {"api": "openai-completions"} | keys}
    return from_document({"models": {"providers": document}}).providers


@pytest.fixture
def pool(io_loop):
    """Return a pool that is stopped after the test."""
    made = ProviderPool()
    yield made
    io_loop.run_sync(made.stop)


async def unused() -> None:
    """Nobody needs the former providers."""


@pytest.mark.gen_test
async def test_gate_is_the_pools_for_each_provider(pool):
    """Each provider has one; a changed configuration brings a new one, an unchanged
    one keeps it, and what was there with it."""
    url = "http://127.0.0.1:1/v1"
    await pool.change(providers(baseUrl=url), idle=unused)
    first = pool.gates
    assert set(first) == set(pool.current) == {"local", "acme"}
    await pool.change(providers(baseUrl=url, maxConcurrent=1), idle=unused)
    second = pool.gates
    assert second["local"] is first["local"]
    assert second["acme"] is not first["acme"]
    await second["acme"].enter()
    waiting = asyncio.create_task(second["acme"].enter())
    await settle()
    assert second["acme"].waiting == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    await pool.stop()
    assert pool.gates == {}


async def ask(pool: ProviderPool, gate: Gate) -> EdwinError | str:
    """Call the provider acme as the executor does; return its text, or the error."""
    try:
        await gate.enter()
    except EdwinError as error:
        return error
    end: BaseException | None = None
    try:
        async with aclosing(pool.current["acme"].stream(REQUEST)) as events:
            return "".join([e.text async for e in events if isinstance(e, TextDelta)])
    except EdwinError as error:
        end = error
        return error
    except BaseException as error:
        end = error
        raise
    finally:
        gate.leave(end)


@pytest.mark.gen_test
async def test_gate_limits_the_calls_that_arrive(pool, upstream):
    """Of many calls only so many reach the provider at once; all are answered."""
    await pool.change(providers(baseUrl=upstream.url, maxConcurrent=3), idle=unused)
    for _ in range(10):
        upstream.hang(["a"], then=["b"])
    gate = pool.gates["acme"]
    tasks = [asyncio.create_task(ask(pool, gate)) for _ in range(10)]
    for answered in range(10):
        request = await upstream.arrival(answered + 1)
        under_way = min(3, 10 - answered)
        await upstream.arrival(answered + under_way)
        assert len(upstream.requests) == answered + under_way
        assert gate.busy == under_way
        request.release()
        await request.over.wait()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in tasks if task.done()]
        assert [task.result() for task in done] == ["ab"]
        tasks = [task for task in tasks if not task.done()]
    assert not tasks


@pytest.mark.gen_test
async def test_gate_opens_and_closes_over_http(pool, upstream):
    """A provider that fails is left alone for a while, then asked once, then by all."""
    await pool.change(providers(baseUrl=upstream.url), idle=unused)
    clock = Clock()
    gate = Gate("acme", failures=2, seconds=15, clock=clock)
    upstream.fail(503)
    upstream.raw(b"")
    for _ in range(2):
        assert isinstance(await ask(pool, gate), ProviderUnavailable)
    assert "failed 2 times in a row and is not called" in str(await ask(pool, gate))
    assert len(upstream.requests) == 2
    clock.now += 15
    upstream.hang([])
    trial = asyncio.create_task(ask(pool, gate))
    await upstream.arrival(3)
    assert "is being tried" in str(await ask(pool, gate))
    upstream.release()
    assert await trial == ""
    assert await ask(pool, gate) == "Hello"
    assert len(upstream.requests) == 4


@pytest.mark.gen_test
async def test_gate_takes_the_breaker_of_the_configuration(pool, upstream):
    """``breaker.failures`` and ``breaker.seconds`` are the pool's gates' own."""
    keys = {"baseUrl": upstream.url, "breaker": {"failures": 1, "seconds": 3000}}
    await pool.change(providers(**keys), idle=unused)
    upstream.fail(500)
    gate = pool.gates["acme"]
    assert isinstance(await ask(pool, gate), ProviderUnavailable)
    fault = await ask(pool, gate)
    assert 2900 < fault.retry_after_s <= 3000
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_gate_leaves_no_error_that_nobody_read(caplog):
    """A refusal whose call was cancelled in the same moment is not reported later."""
    gate = breaker(Clock(), failures=1, max_concurrent=1)
    await gate.enter()
    waiting = Caller(gate)
    await settle()
    gate.leave(DOWN)
    await waiting.cancel()
    del waiting
    gc.collect()
    assert [r.levelname for r in caplog.records if r.levelname == "ERROR"] == []
    assert (gate.busy, gate.waiting) == (0, 0)
