"""The embedded model as a provider: the real engine, the real weights."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from edwin.config import from_document
from edwin.errors import (
    ConfigError,
    InvalidRequest,
    ProviderError,
    ProviderUnavailable,
)
from edwin.providers.base import provider_class
from edwin.providers.local import MODEL, LocalProvider
from edwin.types import ModelRequest, TextDelta, TurnFinished

ROOT = Path(__file__).parent.parent.parent
GENTLE = {"role": "system", "content": "You are a helpful assistant."}
START = """
import asyncio
from edwin.config import from_document
from edwin.providers.local import LocalProvider
from edwin.types import ModelRequest

async def main():
    provider = LocalProvider(from_document({}).providers["local"])
    await provider.start()
    messages = [{"role": "user", "content": "Write a poem"}]
    params = {"ignore_eos": True}
    request = ModelRequest("smollm2-135m-instruct", messages, params)
    async for delta in provider.stream(request):
        print("delta", flush=True)

asyncio.run(main())
"""


def configured(**keys: object) -> LocalProvider:
    """Return a provider with *keys* in its configuration, not started."""
    keys = {"api": "local"} | keys
    document = {"models": {"providers": {"local": keys}}}
    return LocalProvider(from_document(document).providers["local"])


@pytest.fixture
def local(io_loop) -> Iterator[Callable[..., Awaitable[LocalProvider]]]:
    """Return a function that starts a provider with what it is given configured."""
    started = []

    async def make(**keys: object) -> LocalProvider:
        provider = configured(**keys)
        await provider.start()
        started.append(provider)
        return provider

    yield make
    for provider in started:
        io_loop.run_sync(provider.stop)


def request(text: str, **params: object) -> ModelRequest:
    return ModelRequest(MODEL, [GENTLE, {"role": "user", "content": text}], params)


async def ask(provider: LocalProvider, text: str, **params: object):
    """Return the text of the answer, and how it ended."""
    async with aclosing(provider.stream(request(text, **params))) as events:
        *deltas, end = [event async for event in events]
    assert isinstance(end, TurnFinished)
    return "".join(d.text for d in deltas if isinstance(d, TextDelta)), end


async def pause(provider: LocalProvider) -> float:
    """Return how long calls must wait now that the child was killed."""
    while True:
        with pytest.raises(ProviderUnavailable) as caught:
            await ask(provider, "hi")
        if caught.value.retry_after_s is not None:
            assert "start again" in caught.value.message
            return caught.value.retry_after_s
        # The death itself takes a moment; until then there is only no connection.
        await asyncio.sleep(0.02)


async def endless(provider: LocalProvider, began: asyncio.Event) -> None:
    """Take an answer that goes on for longer than any test."""
    endless = request("Write a poem", ignore_eos=True)
    async with aclosing(provider.stream(endless)) as events:
        async for _ in events:
            began.set()


def cmdline(pid: int) -> bytes:
    """Return the words the process was started with; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(parent: int | None = None) -> list[int]:
    """Return the process ids of the embedded models that *parent* runs."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold blanks; the parent's id comes after it.
            fields = (proc / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(proc.name)
        if int(fields[1]) == (parent or os.getpid()) and b"llama_child" in cmdline(pid):
            found.append(pid)
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.gen_test(timeout=60)
async def test_local_answers_from_one_child_however_many_ask(local):
    """The first calls share one start, later ones the same child, three share two."""
    provider = await local()
    assert children() == []
    assert provider.context_tokens == 7000
    question = "What is the capital of France?"
    answers = await asyncio.gather(
        ask(provider, question),
        ask(provider, question),
        ask(provider, "Write a poem", max_tokens=5),
    )
    assert "Paris" in answers[0][0] and "Paris" in answers[1][0]
    assert answers[2][1].finish_reason == "length"
    assert answers[2][1].usage.completion_tokens == 5
    (pid,) = children()
    poems = [await ask(provider, "Write a poem", max_tokens=24) for _ in range(3)]
    # Temperature 0; the first one is computed without what the others find cached.
    assert poems[1] == poems[2]
    assert children() == [pid]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 10
    await provider.stop()
    assert children() == []


@pytest.mark.gen_test(timeout=60)
async def test_local_stops_an_answer_whose_caller_leaves(local):
    """A cancelled call ends the model's work on it; the next one is answered."""
    provider = await local()
    began = asyncio.Event()
    call = asyncio.create_task(endless(provider, began))
    await began.wait()
    (pid,) = children()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()

    async def idle() -> None:
        before = -1
        while (now := cpu_ticks(pid)) - before > 1:
            before = now
            await asyncio.sleep(0.3)

    await asyncio.wait_for(idle(), 5)
    assert (await ask(provider, "hi"))[1].finish_reason == "stop"
    assert children() == [pid]


@pytest.mark.gen_test(timeout=60)
async def test_local_start_goes_on_when_its_caller_leaves(local):
    """A caller that leaves while the child starts does not end the start."""
    provider = await local()
    call = asyncio.create_task(ask(provider, "hi"))
    await until(children)
    (pid,) = children()
    call.cancel()
    await asyncio.wait([call])
    assert (await ask(provider, "hi"))[1].finish_reason == "stop"
    assert children() == [pid]


@pytest.mark.gen_test(timeout=60)
async def test_local_starts_again_after_a_pause_when_its_child_dies(local):
    """Calls in the pause fail and say how long it is; it doubles until an answer."""
    provider = await local()
    pauses = []
    for _ in range(2):
        call = asyncio.create_task(ask(provider, "hi"))
        await until(children)
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(ProviderUnavailable, match="ended unexpectedly"):
            await call
        pauses.append(await pause(provider))
        assert children() == []
        await asyncio.sleep(pauses[-1])
    assert pauses == [pytest.approx(0.5, abs=0.1), pytest.approx(1.0, abs=0.1)]
    began = asyncio.Event()
    await ask(provider, "hi")
    call = asyncio.create_task(endless(provider, began))
    await began.wait()
    os.kill(children()[0], signal.SIGKILL)
    with pytest.raises(ProviderError):
        await call
    assert await pause(provider) <= 0.5


@pytest.mark.gen_test(timeout=60)
async def test_local_stop_fails_calls_that_run_and_calls_that_wait(local):
    """With the provider its child ends, at once, whatever it is doing."""
    provider = await local(eager=True)
    await until(children)
    began = [asyncio.Event() for _ in range(3)]
    calls = [asyncio.create_task(endless(provider, event)) for event in began]
    await began[0].wait()
    await began[1].wait()
    assert not began[2].is_set()
    await provider.stop()
    assert children() == []
    for call in calls:
        with pytest.raises(ProviderError):
            await call


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("spawned", [False, True])
async def test_local_stop_ends_a_start(local, spawned):
    """A provider that is stopped while its child starts leaves none behind."""
    provider = await local()
    call = asyncio.create_task(ask(provider, "hi"))
    if spawned:
        await until(children)
    else:
        # Once for the call to begin, once for the start that it asks for.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.wait_for(provider.stop(), 5)
    assert children() == []
    with pytest.raises(ProviderUnavailable):
        await call
    with pytest.raises(ProviderUnavailable, match="is stopped"):
        await ask(provider, "hi")


def test_local_child_does_not_outlive_a_killed_gateway(tmp_path):
    """A gateway that is killed takes its model along, busy as it may be."""
    process = subprocess.Popen(
        [sys.executable, "-c", START], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"delta\n"
    (pid,) = children(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while cmdline(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.gen_test(timeout=60)
async def test_local_says_why_its_model_cannot_run(local, tmp_path, caplog):
    """The error names the cause and the way out, and is not worth a repetition."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"no weights at all")
    provider = await local(options={"path": str(path)})
    failures = await asyncio.gather(
        ask(provider, "hi"), ask(provider, "hi"), return_exceptions=True
    )
    for failure in failures:
        assert type(failure) is ProviderError
        assert (failure.status, failure.code) == (502, "provider_error")
        assert failure.should_retry is False
        assert "cannot load the model's weights" in failure.message
        assert "agents.list[].model" in failure.message
        assert str(tmp_path) not in failure.message
    # The engine's own words are for the operator.
    assert "invalid magic characters" in caplog.text
    # No pause: what was missing may be there now.
    with pytest.raises(ProviderError, match="cannot load"):
        await ask(provider, "hi")
    assert children() == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("model", "content", "said"),
    [
        (
            "gpt-4.1",
            "hi",
            "no model 'gpt-4.1'; its only one is 'smollm2-135m-instruct'",
        ),
        (MODEL, [{"type": "image_url", "image_url": {"url": "data:,"}}], "text alone"),
    ],
)
async def test_local_refuses_what_its_model_cannot_do(local, model, content, said):
    """Another model, or an image, fails the call for good, without a start."""
    provider = await local()
    messages = [GENTLE, {"role": "user", "content": content}]
    with pytest.raises(ProviderError) as caught:
        async for _ in provider.stream(ModelRequest(model, messages, {})):
            pass
    assert said in caught.value.message
    assert (caught.value.status, caught.value.should_retry) == (502, False)
    assert children() == []


@pytest.mark.parametrize("options", [{"paht": "x"}, {"path": 3}])
def test_local_refuses_options_it_does_not_know(options):
    """A misspelt option is an error of the configuration."""
    with pytest.raises(ConfigError, match=r"models\.providers\.local\.options\."):
        configured(options=options)


def test_local_is_found_by_its_name():
    """``api: local`` names this provider."""
    assert provider_class("local") is LocalProvider


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.mark.gen_test(timeout=60)
async def test_local_calls_no_tools(local):
    """The embedded model is too small for tools: it answers as if there were none, and
    whoever insists on a call is refused."""
    provider = await local()
    text, end = await ask(
        provider, "What is the weather in Graz?", tools=[WEATHER], max_tokens=60
    )
    assert text and end.finish_reason in ("stop", "length")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        with pytest.raises(InvalidRequest) as caught:
            await ask(provider, "Graz?", tools=[WEATHER], tool_choice=choice)
        assert caught.value.param == "tool_choice"


@pytest.mark.gen_test(timeout=60)
async def test_local_reads_results_of_tools(local):
    """It takes a conversation that has calls and results in it."""
    provider = await local()
    function = {"name": "weather", "arguments": '{"city": "Graz"}'}
    messages = [
        GENTLE,
        {"role": "user", "content": "What is the weather in Graz?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Graz: sunny"},
        {"role": "user", "content": "Thank you. Say hello."},
    ]
    params = {"tools": [WEATHER], "max_tokens": 30}
    model_request = ModelRequest(MODEL, messages, params)
    async with aclosing(provider.stream(model_request)) as events:
        *deltas, end = [event async for event in events]
    assert isinstance(end, TurnFinished)
    assert any(isinstance(delta, TextDelta) for delta in deltas)


@pytest.mark.gen_test(timeout=60)
async def test_local_keeps_to_a_schema(local):
    """It keeps to a JSON schema: the engine lets it write nothing else."""
    provider = await local()
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    text, end = await ask(
        provider,
        "Which city is the capital of Austria?",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema},
        },
        max_tokens=200,
    )
    assert end.finish_reason == "stop"
    found = json.loads(text)
    assert list(found) == ["city"] and isinstance(found["city"], str)
