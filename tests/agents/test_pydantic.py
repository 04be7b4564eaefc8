"""Agents of Pydantic AI, in front of a scripted provider."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import aclosing

import pytest

from edwin.agents import AgentContext, pydantic
from edwin.agents.python import CodeAgent, load
from edwin.errors import (
    AgentFailed,
    AgentLimitExceeded,
    ContextLengthExceeded,
    InvalidRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.types import (
    Agent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)

pydantic_ai = pytest.importorskip("pydantic_ai")
openai = pytest.importorskip("openai")

from pydantic import BaseModel  # noqa: E402
from pydantic_ai import ModelRetry, RunContext, ToolOutput  # noqa: E402
from pydantic_ai.models.fallback import FallbackModel  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402
from pydantic_ai.models.test import TestModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402
from pydantic_ai.usage import UsageLimits  # noqa: E402

HELLO = [{"role": "user", "content": "Hello"}]
USAGE = Usage(10, 5)
STOP = TurnFinished("stop", USAGE)
DOOR = {
    "type": "function",
    "function": {
        "name": "door",
        "description": "Open a door.",
        "parameters": {"type": "object", "properties": {"which": {"type": "string"}}},
    },
}


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def connect(io_loop):
    """Return a function that makes a model of a provider's address."""
    clients = []

    def make(url, **options):
        client = openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, **options)
        clients.append(client)
        provider = OpenAIProvider(openai_client=client)
        return OpenAIChatModel("scripted", provider=provider)

    yield make
    for client in clients:
        io_loop.run_sync(client.close)


@pytest.fixture
def model(upstream, connect):
    """Return a model whose provider is scripted."""
    return connect(upstream.url)


def of(code, **options):
    agent = Agent("x", "python/m:x", python="m:x", **options)
    return CodeAgent("x", pydantic.calling(agent, code))


def context(instructions="", **params):
    return AgentContext(
        "run_1", "x", "key", "ada", "run_1.1", instructions=instructions, params=params
    )


async def answer(code, messages=HELLO, given=None, **options):
    """Return all that the agent *code* yields."""
    events = of(code, **options).answer(messages, given or context())
    async with aclosing(events):
        return [event async for event in events]


def text(events):
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def call(name, id="call_1", /, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": id, "type": "function", "function": function}


def adder(model, **options):
    """Return an agent with a tool of its own."""
    agent = pydantic_ai.Agent(model, **options)

    @agent.tool
    def add(run: RunContext, a: int, b: int) -> int:
        """Add two numbers."""
        assert run.deps.principal_id == "ada"
        if b == 13:
            raise ValueError("unlucky")
        if b == 14:
            raise ModelRetry("take another number\nany other")
        return a + b

    return agent


plain = pydantic_ai.Agent(TestModel(custom_output_text="Hello Ada"), name="plain")


@pytest.mark.gen_test
async def test_pydantic_agents_are_loaded():
    """An agent of Pydantic AI is named as any agent in Python is."""
    name = "tests.agents.test_pydantic:plain"
    (agent,) = load({"x": Agent("x", "python/x", python=name)}).values()
    events = [event async for event in agent.answer(HELLO, context())]
    assert text(events) == "Hello Ada"
    assert isinstance(events[-1], TurnFinished)


@pytest.mark.gen_test
async def test_pydantic_streams(upstream, model):
    """Text and reasoning come as the model writes them, with usage and reason."""
    upstream.reply(
        deltas=[{"reasoning_content": "hm"}, "Hello", " Ada"], finish_reason="length"
    )
    assert await answer(pydantic_ai.Agent(model)) == [
        ReasoningDelta("hm"),
        TextDelta("Hello"),
        TextDelta(" Ada"),
        TurnFinished("length", USAGE),
    ]


@pytest.mark.gen_test
async def test_pydantic_roles_stay_roles(upstream, model):
    """What the model reads is the conversation, after the agent's own prompts and
    those of the configuration."""
    agent = pydantic_ai.Agent(model, system_prompt="SYSTEM", instructions="OWN")
    messages = [
        {"role": "developer", "content": "DEVELOPER"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"},
                },
                {"type": "image_url", "image_url": {"url": "https://a.test/picture"}},
            ],
        },
        {"role": "assistant", "content": "I see", "tool_calls": [call("door", "c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "open"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is open"}]},
        {"role": "user", "content": "And now?"},
    ]
    given = context("CONFIGURED")
    assert text(await answer(agent, messages, given)) == "And now?"
    sent = upstream.requests[0].body["messages"]
    assert [m["role"] for m in sent if m["role"] != "system"] == [
        *("user", "assistant", "tool", "assistant", "user"),
    ]
    prompts = "|".join(m["content"] for m in sent if m["role"] == "system")
    assert {"SYSTEM", "DEVELOPER"} < set(prompts.split("|"))
    assert prompts.index("OWN") < prompts.index("CONFIGURED")
    user, calls, result, *rest = [m for m in sent if m["role"] != "system"]
    assert user["content"][0] == {"type": "text", "text": "Look"}
    assert user["content"][1]["image_url"] == messages[1]["content"][1]["image_url"]
    assert user["content"][2]["image_url"]["url"] == "https://a.test/picture"
    assert calls["content"] == "I see"
    assert calls["tool_calls"][0]["function"] == {"name": "door", "arguments": "{}"}
    assert (result["tool_call_id"], result["content"]) == ("c1", "open")
    assert [m["content"] for m in rest] == ["It is open", "And now?"]


@pytest.mark.gen_test
async def test_pydantic_prefill(upstream, model):
    """An assistant message at the end is the beginning of the answer."""
    upstream.reply("42")
    messages = [*HELLO, {"role": "assistant", "content": "It is "}]
    assert text(await answer(pydantic_ai.Agent(model), messages)) == "42"
    sent = upstream.requests[0].body["messages"]
    assert [(m["role"], m["content"]) for m in sent] == [
        ("user", "Hello"),
        ("assistant", "It is "),
    ]


@pytest.mark.gen_test
async def test_pydantic_other_contents(upstream, model):
    """Sound and files go up as what they are; a file that only the provider has does
    not."""
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    pdf = "data:application/pdf;base64,aGk="
    file = {"type": "file", "file": {"file_data": pdf, "filename": "a.pdf"}}
    agent = pydantic_ai.Agent(model)
    upstream.reply("heard")
    await answer(agent, [{"role": "user", "content": [sound, file]}])
    kinds = [p["type"] for p in upstream.requests[0].body["messages"][0]["content"]]
    assert kinds == ["input_audio", "file"]
    theirs = {"type": "file", "file": {"file_id": "f_1"}}
    with pytest.raises(InvalidRequest, match="send 'file_data'"):
        await answer(agent, [{"role": "user", "content": [theirs]}])


@pytest.mark.gen_test
async def test_pydantic_settings(upstream, model):
    """Parameters of the request go to the model."""
    agent = adder(model)
    params = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "END",
        "max_tokens": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {"5": 1},
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "user": "ada",
    }
    await answer(agent, given=context(**params))
    sent = upstream.requests[0].body
    assert sent.pop("max_completion_tokens", None) or sent.pop("max_tokens") == 7
    for name in ("max_tokens", "user"):
        params.pop(name)
    assert {name: sent.get(name) for name in params} == params | {"stop": ["END"]}
    await answer(agent, given=context(reasoning_effort=None, stop=["a", "b"]))
    assert upstream.requests[1].body["stop"] == ["a", "b"]


@pytest.mark.gen_test
async def test_pydantic_tools_of_its_own(upstream, model):
    """What its own tools do is told as events; each turn's text is a paragraph."""
    upstream.reply("Let me add.", tool_calls=[call("add", a=1, b=2)])
    upstream.reply("It is 3.")
    assert await answer(adder(model)) == [
        *(TextDelta(t) for t in ("Let", " me", " add.")),
        ToolStarted("call_1", "add", '{"a":1,"b":2}'),
        ToolFinished("call_1", "add", None, "3"),
        *(TextDelta(t) for t in ("\n\nIt", " is", " 3.")),
        TurnFinished("stop", Usage(20, 10)),
    ]


@pytest.mark.gen_test
async def test_pydantic_tools_that_fail(upstream, model, error_log):
    """A tool that asks for other arguments is told of; one that raises fails the
    run."""
    upstream.reply(tool_calls=[call("add", a=1, b=14)])
    upstream.reply("done")
    _, finished, *_ = await answer(adder(model))
    assert finished.error == "take another number"
    upstream.reply(tool_calls=[call("add", a=1, b=13)])
    with pytest.raises(AgentFailed):
        await answer(adder(model))
    assert "unlucky" in str(error_log.pop().exc_info[1])


@pytest.mark.gen_test
async def test_pydantic_tools_of_the_client(upstream, model):
    """The client's tools end the run, and its results go on with it; those of the
    agent's own that were called beside them are told of."""
    calls = [call("door", "c1", which="red"), call("add", "c2", a=1, b=2)]
    upstream.reply(tool_calls=calls)
    given = context(tools=[DOOR])
    assert await answer(adder(model), given=given) == [
        ToolStarted("c2", "add", '{"a":1,"b":2}'),
        ToolFinished("c2", "add", None, "3"),
        ToolCallDelta(0, "c1", "door", '{"which":"red"}'),
        TurnFinished("tool_calls", USAGE),
    ]
    offered = upstream.requests[0].body["tools"]
    shown = {t["function"]["name"]: t["function"] for t in offered}
    assert set(shown) == {"door", "add"}
    assert shown["door"]["parameters"] == DOOR["function"]["parameters"]
    assert shown["door"]["description"] == "Open a door."
    upstream.reply("The door is open.")
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": "it creaks"},
    ]
    assert text(await answer(adder(model), messages, given)) == "The door is open."
    assert upstream.requests[1].body["messages"][-1]["content"] == "it creaks"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("required", "required"),
        (
            {"type": "function", "function": {"name": "door"}},
            {"type": "function", "function": {"name": "door"}},
        ),
    ],
)
async def test_pydantic_tool_choice(upstream, model, choice, sent):
    """A call that the client asks for is asked for once: then there is an answer."""
    upstream.reply(tool_calls=[call("add", a=1, b=2)])
    upstream.reply("done")
    await answer(adder(model), given=context(tools=[DOOR], tool_choice=choice))
    first, second = (request.body["tool_choice"] for request in upstream.requests)
    assert (first, second) == (sent, "auto")


@pytest.mark.gen_test
async def test_pydantic_tool_choice_none(upstream, model):
    """Without a choice the client's tools are not there; an unknown one is refused."""
    await answer(
        pydantic_ai.Agent(model), given=context(tools=[DOOR], tool_choice="none")
    )
    assert "tools" not in upstream.requests[0].body
    wanted = {"type": "function", "function": {"name": "add"}}
    for choice in (wanted, {"type": "allowed_tools", "allowed_tools": {}}):
        given = context(tools=[DOOR], tool_choice=choice)
        with pytest.raises(InvalidRequest) as caught:
            await answer(adder(model), given=given)
        assert caught.value.param == "tool_choice"


@pytest.mark.gen_test
@pytest.mark.parametrize("tools", [[], [DOOR]], ids=["alone", "with tools"])
async def test_pydantic_structured_output(upstream, model, tools):
    """What an agent gives that is not text is JSON."""
    agent = pydantic_ai.Agent(model, output_type=ToolOutput(City, name="city"))
    upstream.reply("Let me see", tool_calls=[call("city", name="Bern", people=3)])
    assert await answer(agent, given=context(tools=tools)) == [
        TextDelta('{"name":"Bern","people":3}'),
        STOP,
    ]


@pytest.mark.gen_test
async def test_pydantic_validated_output(upstream, model):
    """Text that is validated is held back until it is right; such an agent takes no
    tools of the client's."""
    agent = pydantic_ai.Agent(model)

    @agent.output_validator
    def check(output: str) -> str:
        if output == "wrong":
            raise ModelRetry("say something else")
        return output.upper()

    upstream.reply("wrong")
    upstream.reply("right")
    assert await answer(agent) == [
        TextDelta("RIGHT"),
        TurnFinished("stop", Usage(20, 10)),
    ]
    with pytest.raises(InvalidRequest, match="answers are validated") as caught:
        await answer(agent, given=context(tools=[DOOR]))
    assert caught.value.param == "tools"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "said"),
    [
        (429, {"error": {"message": "slow"}}, {"Retry-After": "7"}, 1, "less often"),
        (
            *(429, {"error": {"message": "no", "code": "insufficient_quota"}}, {}),
            *(1, "the account at the provider of the model of the agent"),
        ),
        (500, None, {}, 2, "cannot answer now (HTTP 500)"),
        (503, None, {}, 2, "cannot answer now (HTTP 503)"),
        (400, None, {}, 3, "refused the call (HTTP 400)"),
        (401, None, {}, 3, "refused the call (HTTP 401)"),
        (
            *(400, {"error": {"message": "m", "code": "context_length_exceeded"}}, {}),
            *(4, "is too long for the provider of the model"),
        ),
    ],
)
async def test_pydantic_faults(upstream, model, status, body, headers, kind, said):
    """A provider's fault is one of Edwin's errors, without the provider's words."""
    kinds = {
        1: ProviderRateLimited,
        2: ProviderUnavailable,
        3: ProviderError,
        4: ContextLengthExceeded,
    }
    upstream.fail(status, body, headers=headers)
    with pytest.raises(kinds[kind]) as caught:
        await answer(pydantic_ai.Agent(model))
    assert type(caught.value) is kinds[kind]
    assert said in caught.value.message
    assert caught.value.retry_after_s == (7 if headers else None)


@pytest.mark.gen_test
async def test_pydantic_faults_of_the_connection(upstream, connect):
    """So is a provider that cannot be reached, breaks off, or is silent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(ProviderUnavailable, match="cannot answer now"):
        await answer(pydantic_ai.Agent(connect(nobody)))
    upstream.reply("Hello there", cut=True)
    with pytest.raises(ProviderStreamError, match="broke its answer off"):
        await answer(pydantic_ai.Agent(connect(upstream.url)))
    upstream.hang()
    with pytest.raises(ProviderTimeout, match="did not answer in time"):
        await answer(pydantic_ai.Agent(connect(upstream.url, timeout=0.2)))


@pytest.mark.gen_test
async def test_pydantic_faults_of_several_models(upstream, connect):
    """Where several models fail, the last one's fault is told."""
    models = [connect(upstream.url) for _ in range(2)]
    upstream.fail(500)
    upstream.fail(429)
    with pytest.raises(ProviderRateLimited):
        await answer(pydantic_ai.Agent(FallbackModel(*models)))
    assert len(upstream.requests) == 2


@pytest.mark.gen_test
async def test_pydantic_useless_answers(upstream, model):
    """An answer that is never what the agent needs is the model's fault."""
    agent = pydantic_ai.Agent(model, output_type=City)
    for _ in range(4):
        upstream.reply("I do not know")
    with pytest.raises(ProviderError, match="no answer that can be used") as caught:
        await answer(agent)
    assert caught.value.should_retry is False


@pytest.mark.gen_test
async def test_pydantic_limits(upstream, model):
    """The limits of the configuration hold for its turns and its tools."""
    for _ in range(3):
        upstream.reply(tool_calls=[call("add", a=1, b=2)])
    with pytest.raises(AgentLimitExceeded) as caught:
        await answer(adder(model), max_turns=2)
    assert caught.value.code == "max_turns_exceeded"
    assert len(upstream.requests) == 2
    with pytest.raises(AgentLimitExceeded) as caught:
        await answer(adder(model), max_tool_calls=0)
    assert caught.value.code == "max_tool_calls_exceeded"


@pytest.mark.gen_test
async def test_pydantic_limits_of_its_own(upstream, model):
    """So do those of an agent that it asks in turn."""
    agent = pydantic_ai.Agent(model)

    @agent.tool_plain
    async def ask() -> str:
        """Ask another one."""
        limits = UsageLimits(total_tokens_limit=1)
        return (await pydantic_ai.Agent(model).run("?", usage_limits=limits)).output

    upstream.reply(tool_calls=[call("ask")])
    with pytest.raises(AgentLimitExceeded, match="a limit of its own"):
        await answer(agent)


@pytest.mark.gen_test
async def test_pydantic_approvals(upstream, model, error_log):
    """Nobody can approve of a tool of its own: such a call fails the run."""
    agent = pydantic_ai.Agent(
        model, output_type=[str, pydantic_ai.DeferredToolRequests]
    )

    @agent.tool_plain(requires_approval=True)
    def erase() -> str:
        """Erase everything."""
        raise AssertionError("nobody approved")

    upstream.reply(tool_calls=[call("erase")])
    with pytest.raises(AgentFailed):
        await answer(agent)
    assert "waits for an approval" in str(error_log.pop().exc_info[1])


@pytest.mark.gen_test
@pytest.mark.parametrize("after", [None, (), ("Hello",)])
async def test_pydantic_cancelled(upstream, model, after):
    """A run that is cancelled closes the provider's connection at once."""
    upstream.hang(after)
    task = asyncio.create_task(answer(pydantic_ai.Agent(model)))
    request = await upstream.arrival()
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task}, timeout=4)
    assert task.cancelled()
    async with asyncio.timeout(4):
        await request.closed.wait()
