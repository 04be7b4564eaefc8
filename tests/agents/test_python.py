"""Agents that are Python code: what they may be, and what becomes of what they do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress

import pytest

from edwin.agents import AgentContext
from edwin.agents.calling import calling
from edwin.agents.python import MAX_LEFT, CodeAgent, load
from edwin.errors import AgentFailed, ConfigError, RateLimited
from edwin.monitor import LoopMonitor
from edwin.types import (
    Agent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from tests.agents import sample
from tests.process import ROOT, environment

ADA = [{"role": "user", "content": "Ada"}]
TOOL = {"type": "function", "function": {"name": "door", "parameters": {}}}
STOP = TurnFinished("stop")
GRACE_S = 0.05


def loaded(name):
    agents = {"x": Agent("x", f"python/{name}", python=name), "y": Agent("y", "s/m")}
    (agent,) = load(agents).values()
    return agent


def of(code):
    return CodeAgent("x", calling(code), GRACE_S)


def context(**params):
    return AgentContext("run_1", "x", "key", "owner", "run_1.1", params=params)


async def answer(agent, messages=ADA, given=None):
    """Return all that *agent* yields."""
    async with aclosing(agent.answer(messages, given or context())) as events:
        return [event async for event in events]


async def started(agent, given=None):
    """Return a task that reads *agent*'s answer."""
    task = asyncio.create_task(answer(agent, given=given))
    await asyncio.sleep(0)
    return task


async def cancelled(task):
    """Cancel *task*, as the run's engine does, and return when it has ended."""
    task.cancel()
    async with asyncio.timeout(4):
        await asyncio.wait({task})
    assert task.cancelled()


async def until(condition):
    async with asyncio.timeout(4):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", sample.KINDS)
async def test_agents_kinds(kind):
    """A function or an object that can be called is an agent, of whatever kind it is,
    with or without the context."""
    *deltas, end = await answer(loaded(f"tests.agents.sample:{kind}"))
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    assert ("".join(delta.text for delta in deltas), end) == ("Hello Ada", STOP)


@pytest.mark.gen_test
async def test_agents_yield_events():
    """Text stands for itself; everything else is one of Edwin's events."""
    assert await answer(loaded("tests.agents.sample:everything")) == [
        ReasoningDelta("hm"),
        ToolStarted("c1", "look", "{}"),
        ToolFinished("c1", "look", None, "seen"),
        TextDelta("done"),
        TurnFinished("length", Usage(3, 2)),
    ]


@pytest.mark.gen_test
async def test_agents_call_tools_of_the_client():
    """An agent may call the tools of the request, which ends its turn."""
    agent = loaded("tests.agents.sample:caller")
    assert await answer(agent, given=context(tools=[TOOL])) == [
        ToolCallDelta(0, "call_1", "door", "{}"),
        TurnFinished("tool_calls"),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("items", [[], [""], [TurnFinished("stop")]])
async def test_agents_may_say_nothing(items):
    """An answer without text is an answer."""
    assert await answer(of(lambda messages: iter(items))) == [STOP]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("item", "text"),
    [
        (5, "gave int, which is neither text nor an event"),
        (None, "gave NoneType, which is neither text nor an event"),
        (b"text", "gave bytes, which"),
        ({"role": "assistant", "content": "hi"}, "gave dict, which"),
        ("\ud800", "gave text with half a character in it"),
        (TextDelta(5), "gave a TextDelta with int as text"),
        (RefusalDelta("\ud800"), "gave text with half a character in it"),
        (ToolCallDelta("0", "c", "n", ""), "gave a ToolCallDelta with str as index"),
        (ToolStarted(None, "n"), "gave a ToolStarted with NoneType as call_id"),
        (TextDelta("a", 5), "gave a TextDelta with int as logprobs"),
        (TurnFinished("enough"), "ended its turn with a reason that is none of"),
        (TurnFinished("stop", 5), "ended its turn with int as usage"),
    ],
)
@pytest.mark.parametrize("kind", ["yields", "returns"])
async def test_agents_give_nothing_else(item, text, kind):
    """What is neither text nor an event fails the run, and the error says what it
    was."""

    async def yields(messages):
        yield item

    with pytest.raises(AgentFailed) as caught:
        await answer(of(yields if kind == "yields" else lambda messages: item))
    assert caught.value.message.startswith(f'the agent "x" {text}')
    assert (caught.value.status, caught.value.code) == (500, "agent_failed")


@pytest.mark.gen_test
async def test_agents_end_once():
    """After the end of its turn an agent has nothing more to say."""

    async def agent(messages):
        yield TurnFinished("stop")
        yield "and another thing"

    with pytest.raises(AgentFailed, match="went on after the end of its turn"):
        await answer(of(agent))


@pytest.mark.gen_test
async def test_agents_messages_are_their_own():
    """What an agent does to its messages and parameters is done to copies."""
    seen = []

    async def agent(messages, context):
        messages[0]["content"][0]["text"] = "changed"
        context.params["tools"].clear()
        messages.clear()
        seen.append(context)
        return "done"

    messages = [{"role": "user", "content": [{"type": "text", "text": "Ada"}]}]
    given = context(tools=[TOOL])
    await answer(of(agent), messages, given)
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "Ada"}]}]
    assert given.params == {"tools": [TOOL]}
    assert seen[0].token == "run_1.1"


async def raising_stream(messages, error):
    yield "Hello "
    raise error


async def raising_coroutine(messages, error):
    raise error


def raising_function(messages, error):
    raise error


def raising_generator(messages, error):
    yield "Hello "
    raise error


RAISING = [raising_stream, raising_coroutine, raising_function, raising_generator]
ERRORS = [
    *(ValueError("secret"), StopIteration(), StopAsyncIteration(), SystemExit(3)),
    *(asyncio.CancelledError(), GeneratorExit(), ExceptionGroup("s", [ValueError()])),
]


@pytest.mark.gen_test
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("code", RAISING)
async def test_agents_errors_are_typed(code, error, error_log):
    """Whatever an agent raises is logged, and fails its run and nothing else."""
    with pytest.raises(AgentFailed) as caught:
        await answer(of(functools.partial(code, error=error)))
    assert caught.value.message == 'the agent "x" failed; the log says why'
    assert caught.value.should_retry is False
    (line,) = error_log
    assert (line.name, line.fields["run_id"]) == ("edwin.agents", "run_1")
    assert f"in {code.__name__}\n" in logging.Formatter().formatException(line.exc_info)
    error_log.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize("code", RAISING)
async def test_agents_raise_edwins_errors(code):
    """An agent that raises one of Edwin's errors has chosen what its client gets."""
    error = RateLimited("enough for today", retry_after_s=60)
    with pytest.raises(RateLimited) as caught:
        await answer(of(functools.partial(code, error=error)))
    assert caught.value is error


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["cancelling", "closing"])
@pytest.mark.parametrize("place", ["waiting", "yielding"])
async def test_agents_cancelled_generator(by, place):
    """A run that is cancelled closes its agent at once: what stands in ``finally`` is
    done before the run has ended."""
    ended = []

    async def agent(messages, context):
        try:
            yield "Hello"
            if place == "waiting":
                await asyncio.Event().wait()
            yield "more"
        finally:
            await asyncio.sleep(0)
            ended.append(context.cancelled.is_set())

    events = of(agent).answer(ADA, context())
    assert await anext(events) == TextDelta("Hello")
    if by == "cancelling" and place == "waiting":
        task = asyncio.create_task(anext(events))
        await asyncio.sleep(0.01)
        await cancelled(task)
    await events.aclose()
    assert ended == [True]


@pytest.mark.gen_test
async def test_agents_cancelled_coroutine():
    """A coroutine is cancelled where it waits."""
    ended = []

    async def agent(messages):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = await started(of(agent))
    await asyncio.sleep(0.01)
    await cancelled(task)
    assert ended == [True]


@pytest.mark.gen_test
async def test_agents_cancelled_function():
    """A function in a thread can see that its run was cancelled."""
    began, seen = threading.Event(), []

    def agent(messages, context):
        began.set()
        seen.append(context.cancelled.wait(4))
        return "too late"

    task = await started(of(agent))
    await until(began.is_set)
    await cancelled(task)
    assert seen == [True]


@pytest.mark.gen_test
async def test_agents_cancelled_thread_generator():
    """A generator in a thread is closed there when its run is cancelled."""
    closed, made = [], []

    def words():
        try:
            while True:
                yield "word "
        finally:
            closed.append(threading.current_thread().name)

    def agent(messages):
        # Who keeps a generator does not keep it open.
        made.append(words())
        return made[0]

    events = of(agent).answer(ADA, context())
    assert await anext(events) == TextDelta("word ")
    await events.aclose()
    assert closed == ["run_1 x"]


@pytest.mark.gen_test
async def test_agents_errors_of_a_cancelled_one(caplog):
    """An agent that fails while it is cancelled is a warning: nobody waits for it."""

    async def agent(messages):
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the middle of it")

    task = await started(of(agent))
    await asyncio.sleep(0.01)
    await cancelled(task)
    (line,) = [r for r in caplog.records if r.name == "edwin.agents"]
    assert line.levelname == "WARNING"
    assert line.getMessage() == "agent x raised ValueError when it was cancelled"


@pytest.mark.gen_test
async def test_agents_that_do_not_end_are_given_up(caplog):
    """Who takes no notice of being cancelled holds nobody up, and is named in the
    log."""
    release = asyncio.Event()

    async def agent(messages):
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        yield "still here"

    task = await started(of(agent))
    await asyncio.sleep(0.01)
    began = time.monotonic()
    await cancelled(task)
    assert time.monotonic() - began < 2
    (line,) = [r for r in caplog.records if r.name == "edwin.agents"]
    assert line.getMessage() == "agent x goes on though it was cancelled"
    assert line.fields == {"task": "run_1 x", "agent": "x"}
    release.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.gen_test
async def test_agents_that_clean_up_for_too_long():
    """Cleaning up takes its time, but not for ever."""
    ended = []

    async def agent(messages):
        try:
            yield "Hello"
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

    events = of(agent).answer(ADA, context())
    await anext(events)
    await events.aclose()
    await until(lambda: ended)


@pytest.mark.gen_test
async def test_agents_threads_are_given_up(caplog):
    """Nobody can end a thread: one that hangs is left alone, and named in the log."""
    began, release = threading.Event(), threading.Event()

    def agent(messages):
        began.set()
        release.wait(10)

    task = await started(CodeAgent("x", calling(agent)))
    await until(began.is_set)
    await cancelled(task)
    (line,) = [r for r in caplog.records if r.name == "edwin.agents"]
    assert line.getMessage() == "agent x goes on though it was cancelled, in a thread"
    release.set()
    await until(lambda: "run_1 x" not in {t.name for t in threading.enumerate()})


@pytest.mark.gen_test
async def test_agents_that_are_stuck():
    """Of an agent that never ends only so many go on; then it answers no more, until
    one of them has ended."""
    release = asyncio.Event()

    async def agent(messages):
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        yield "free"

    stuck = CodeAgent("x", calling(agent), 0.0)
    for _ in range(MAX_LEFT):
        task = await started(stuck)
        await asyncio.sleep(0)
        await cancelled(task)
    with pytest.raises(AgentFailed, match="stuck: 64 of its calls go on"):
        await answer(stuck)
    release.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert await answer(stuck) == [TextDelta("free"), STOP]


async def hanging_stream(messages):
    yield "Hello"
    await asyncio.Event().wait()


async def hanging_coroutine(messages):
    await asyncio.Event().wait()


def hanging_function(messages, context):
    context.cancelled.wait(10)


def hanging_generator(messages, context):
    yield "Hello"
    context.cancelled.wait(10)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "code",
    [hanging_stream, hanging_coroutine, hanging_function, hanging_generator],
)
async def test_agents_hanging_ones_meet_the_deadline(code):
    """An agent that hangs is ended by its run's deadline, whatever it is."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await answer(of(code))


@pytest.mark.gen_test
@pytest.mark.parametrize("in_thread", [False, True])
async def test_agents_are_asked_for_each_piece(in_thread):
    """An agent makes its next piece when the last one is read, and no sooner."""
    made = []

    def words(messages):
        for number in range(5):
            made.append(number)
            yield str(number)

    async def stream(messages):
        for word in words(messages):
            yield word

    async with aclosing(of(words if in_thread else stream).answer(ADA, context())) as e:
        await anext(e)
        await asyncio.sleep(0.02)
        assert len(made) <= 2
        await anext(e)
        await asyncio.sleep(0.02)
        assert len(made) <= 3


@pytest.mark.gen_test
async def test_agents_functions_do_not_hold_up_the_loop():
    """A plain function blocks a thread of its own, which sees the run's context
    variables."""
    variable = contextvars.ContextVar("variable", default="")
    variable.set("of the run")
    release, names = threading.Event(), []

    def agent(messages):
        names.append(threading.current_thread())
        release.wait(4)
        return variable.get()

    task = await started(of(agent))
    await asyncio.sleep(0.01)
    release.set()
    assert await task == [TextDelta("of the run"), STOP]
    assert names[0].daemon
    assert names[0] is not threading.current_thread()


@pytest.mark.gen_test
async def test_agents_blocking_ones_are_named(caplog):
    """An agent that blocks the loop is named in the log, with the line that does."""
    blocks = []
    monitor = LoopMonitor(0.05, lag=lambda s: None, blocked=lambda: blocks.append(1))
    monitor.start()
    await asyncio.sleep(0.06)

    async def agent(messages):
        time.sleep(0.25)
        yield "Hello"

    await answer(of(agent))
    await until(lambda: blocks)
    monitor.stop()
    (line,) = [r for r in caplog.records if r.name == "edwin.monitor"]
    assert line.fields["task"] == "run_1 x"
    assert line.getMessage().endswith("ms, by run_1 x")
    assert "time.sleep(0.25)" in line.fields["stack"]


BROKEN = {
    "syntax": ("def f(:\n", "cannot be imported: SyntaxError: "),
    "raises": (
        "\nraise ValueError('no key')\n",
        "cannot be imported: ValueError: no key (h6_raises.py, line 2)",
    ),
    "exits": ("import sys\nsys.exit(1)\n", "cannot be imported: it ends the process"),
    "lacks": (
        "import h6_no_such_package\n",
        "cannot be imported: ModuleNotFoundError: No module named 'h6_no_such_package'"
        " (h6_lacks.py, line 1)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_agents_modules_that_fail(kind, tmp_path, monkeypatch):
    """A module that cannot be imported is a configuration that cannot be used."""
    text, said = BROKEN[kind]
    (tmp_path / f"h6_{kind}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        loaded(f"h6_{kind}:agent")
    assert caught.value.message.startswith(
        f"agents.list: x.python: h6_{kind}:agent {said}"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h6_nowhere:agent", ": there is no module h6_nowhere; install it, or put it"),
        ("h6_nowhere.inner:agent", ": there is no module h6_nowhere; install it"),
        ("tests.agents.nowhere:agent", ": there is no module tests.agents.nowhere;"),
        ("tests.agents.sample:nobody", ": the module has no nobody"),
        ("tests.agents.sample:greeter.nobody", ": the module has no greeter.nobody"),
        ("tests.agents.sample:number", " is int, which cannot be called"),
        ("tests.agents.sample:Greeter", " is a class; name an instance of it"),
        ("tests.agents.sample:three", " must take (messages, context), or (messages)"),
        ("tests.agents.sample:nothing", " must take (messages, context), or (mess"),
    ],
)
def test_agents_what_is_none(name, text):
    """What cannot answer is refused when the configuration is loaded."""
    with pytest.raises(ConfigError) as caught:
        loaded(name)
    assert caught.value.message.startswith(f"agents.list: x.python: {name}{text}")


def test_agents_load_nothing_heavy():
    """Agents that do without it do not load Pydantic AI."""
    code = (
        "import sys\nfrom edwin.agents.python import load\n"
        "from edwin.types import Agent\n"
        "load({'x': Agent('x', 'm/m', python='tests.agents.sample:stream')})\n"
        "print([m for m in sys.modules if m.startswith('pydantic')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
