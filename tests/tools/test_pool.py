"""The tools of all agents, from one configuration to the next."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edwin.errors import ConfigError
from edwin.tools import ToolFailed
from edwin.tools.pool import ToolPool
from edwin.types import Agent, McpServer, ToolSource
from tests.process import environment
from tests.tools import functions
from tests.tools.conftest import CONTEXT, odd
from tests.tools.functions import passed

HERE = "tests.tools.functions"


def python(name: str, /, **keys: Any) -> ToolSource:
    """Return the entry of a function."""
    return ToolSource(python=f"{HERE}:{name}", **keys)


def mcp(*words: str, **keys: Any) -> ToolSource:
    """Return the entry of a server that behaves as *words* say."""
    server: dict[str, Any] = odd(*words)
    return ToolSource(mcp=McpServer(**server, connect_seconds=20), **keys)


def agents(**tools: list[ToolSource]) -> dict[str, Agent]:
    """Return agents with these tools."""
    return {id: Agent(id, "a/b", tools=tuple(entries)) for id, entries in tools.items()}


@pytest.fixture
def pool(io_loop) -> Iterator[ToolPool]:
    """Return a pool; it is stopped at the test's end."""
    made = ToolPool()
    yield made
    io_loop.run_sync(made.stop)


@pytest.fixture
def gate(monkeypatch):
    """Return a gate that functions wait at; it is open at the test's end."""
    made = functions.Gate()
    monkeypatch.setattr(functions, "gate", made, raising=False)
    yield made
    made.go.set()


async def never() -> None:
    """Return never: somebody uses the former tools for ever."""
    await asyncio.Event().wait()


def unasked() -> Any:
    """Fail: nothing former is there to wait for."""
    raise AssertionError("nobody is to be asked")


async def names(pool: ToolPool, agent: str) -> list[str]:
    """Return the names of an agent's tools."""
    return [tool.name for tool in await pool.current[agent].tools()]


@pytest.mark.gen_test
async def test_pool_functions(pool):
    """Each agent has its own tools, in the order of the configuration."""
    clerk = [python("google"), python("plain", name="find")]
    await pool.change(agents(clerk=clerk, idle=[], boss=[clerk[0]]), idle=unasked)
    assert pool.current.keys() == {"clerk", "boss"}
    assert await names(pool, "clerk") == ["google", "find"]
    tools = await pool.current["clerk"].tools()
    assert await pool.current["clerk"].tools() is tools
    assert (await pool.current["boss"].tools())[0] is tools[0]
    assert pool.servers() == []


@pytest.mark.gen_test
async def test_pool_change_keeps(pool):
    """What did not change stays as it is."""
    await pool.change(agents(a=[python("google")], b=[python("plain")]), idle=unasked)
    before = dict(pool.current)
    google = (await before["a"].tools())[0]
    await pool.change(
        agents(a=[python("google"), python("numpy")], b=[python("plain")]),
        idle=unasked,
    )
    assert pool.current["b"] is before["b"]
    assert (await pool.current["a"].tools())[0] is google
    await pool.change({}, idle=unasked)
    assert pool.current == {}
    # Who holds a former toolset can use it.
    assert await google.call({"city": "Rome"}, CONTEXT) == "Rome, 1"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("tools", "words"),
    [
        (
            [python("google"), python("nothing")],
            f"agents.list: new.tools: {HERE}:nothing: the module {HERE} has no nothing",
        ),
        (
            [python("google"), python("plain", name="google")],
            f"agents.list: new.tools: {HERE}:google and {HERE}:plain are both called "
            "google; give one of them another name",
        ),
        (
            [python("google"), python("google", idempotent=True)],
            f"{HERE}:google and {HERE}:google are both called google",
        ),
    ],
)
async def test_pool_change_is_whole(pool, tools, words):
    """Where something is wrong nothing is new, and the agent is named."""
    await pool.change(agents(old=[python("plain")]), idle=unasked)
    before = pool.current
    with pytest.raises(ConfigError) as caught:
        await pool.change(agents(old=[python("google")], new=tools), idle=unasked)
    assert words in caught.value.message
    assert pool.current is before
    assert await names(pool, "old") == ["plain"]


@pytest.mark.gen_test
async def test_pool_changing(pool):
    """A change that is made ready happens when it is said to, or not at all."""
    async with pool.changing(agents(a=[python("google"), mcp("names=x")])):
        assert pool.current == {}
        # Whatever else belongs to the change did not work out.
    assert (pool.current, pool.servers()) == ({}, [])
    async with pool.changing(agents(a=[python("google")])) as commit:
        commit(unasked)
        assert await names(pool, "a") == ["google"]
    assert await names(pool, "a") == ["google"]


@pytest.mark.gen_test
async def test_pool_bounds_threads_of_all(gate):
    """The functions of all agents share the limit of threads."""
    pool = ToolPool(max_threads=1)
    await pool.change(
        agents(a=[python("gate.wait")], b=[python("plain")]), idle=unasked
    )
    (wait,) = await pool.current["a"].tools()
    (plain,) = await pool.current["b"].tools()
    first = asyncio.ensure_future(wait.call({}, CONTEXT))
    await passed(gate.begun)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await plain.call({"city": "Rome"}, CONTEXT)
    gate.go.set()
    assert await plain.call({"city": "Oslo"}, CONTEXT) == "Oslo"
    assert await first == "through"


@pytest.mark.gen_test
async def test_pool_servers(pool):
    """Servers that are described alike are one; each has a label of its own."""
    await pool.change(
        agents(
            a=[mcp("names=x,y", prefix="one_"), python("plain")],
            b=[mcp("names=x,y", allow=("y",)), mcp("names=z")],
        ),
        idle=unasked,
    )
    assert len(pool.servers()) == 2
    assert await names(pool, "a") == ["one_x", "one_y", "plain"]
    assert await names(pool, "b") == ["y", "z"]
    first, second = pool.servers()
    assert (first.state, first.tools) == ("ready", 2)
    assert second.label == f"{first.label} #2"


@pytest.mark.gen_test
async def test_pool_same_names(pool, caplog):
    """Of two tools with one name the first counts; the log says so, once."""
    tools = [python("plain", name="x"), mcp("names=x,y"), mcp("names=y,z")]
    await pool.change(agents(a=tools), idle=unasked)
    for _ in range(2):
        assert await names(pool, "a") == ["x", "y", "z"]
    first = (await pool.current["a"].tools())[0]
    assert list(first.parameters["properties"]) == ["city"]
    warned = [r.getMessage() for r in caplog.records if "two tools" in r.getMessage()]
    assert [line.split(":")[0] for line in warned] == [
        "agent a has two tools called x",
        "agent a has two tools called y",
    ]


@pytest.mark.gen_test
async def test_pool_change_of_servers(pool):
    """A server that is no longer needed is stopped once nobody uses it any more."""
    await pool.change(agents(a=[mcp("names=x")], b=[mcp("names=y")]), idle=unasked)
    x = (await pool.current["a"].tools())[0]
    y = (await pool.current["b"].tools())[0]
    left = asyncio.Event()
    await pool.change(
        agents(a=[mcp("names=y"), mcp("names=z")]), idle=lambda: left.wait()
    )
    assert await names(pool, "a") == ["y", "z"]
    assert await x.call({}, CONTEXT) == "x"
    left.set()
    with pytest.raises(ToolFailed):
        while True:
            assert await x.call({}, CONTEXT) == "x"
    assert await y.call({}, CONTEXT) == "y"
    assert [status.restarts for status in pool.servers()] == [0, 0]


@pytest.mark.gen_test
async def test_pool_stop(pool):
    """Stopping stops all servers, those that are still in use included."""
    await pool.change(agents(a=[mcp("names=x")]), idle=unasked)
    x = (await pool.current["a"].tools())[0]
    await pool.change(agents(a=[mcp("names=y")]), idle=never)
    y = (await pool.current["a"].tools())[0]
    await pool.stop()
    await pool.stop()
    assert pool.current == {}
    assert pool.servers() == []
    for tool in (x, y):
        with pytest.raises(ToolFailed):
            await tool.call({}, CONTEXT)


@pytest.mark.gen_test
async def test_pool_stop_while_a_server_stops(pool):
    """Stopping waits for servers that were on their way out already."""
    await pool.change(agents(a=[mcp("names=x")]), idle=unasked)
    x = (await pool.current["a"].tools())[0]
    asked = asyncio.Event()

    async def idle() -> None:
        asked.set()

    await pool.change({}, idle=idle)
    await asked.wait()
    # One step further the server is being stopped; a program takes longer to end.
    await asyncio.sleep(0)
    await pool.stop()
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert left == []
    with pytest.raises(ToolFailed):
        await x.call({}, CONTEXT)


def test_pool_loads_what_is_needed():
    """Without tools nothing that they need is imported."""
    code = """
import asyncio, sys
import edwin.gateway
from edwin.tools.pool import ToolPool
from edwin.types import Agent, ToolSource
def loaded():
    return sorted({"pydantic", "docstring_parser", "mcp"} & set(sys.modules))
async def main():
    pool = ToolPool()
    await pool.change({"a": Agent("a", "b/c")}, idle=None)
    print(loaded())
    entry = ToolSource(python="fnmatch:translate")
    await pool.change({"a": Agent("a", "b/c", tools=(entry,))}, idle=None)
    print(loaded())
asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert result.stdout.split("\n")[:2] == ["[]", "['docstring_parser', 'pydantic']"]
    assert result.stderr == ""
