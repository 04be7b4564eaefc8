"""Python functions as tools: found, described, called."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edwin.errors import ConfigError
from edwin.tools import Tool, ToolContext, ToolFailed
from edwin.tools.python import function_tool
from edwin.tools.results import MAX_RESULT_BYTES
from edwin.tools.threads import Threads
from edwin.types import ToolSource
from tests.process import ROOT, environment
from tests.tools import functions
from tests.tools.functions import passed

HERE = "tests.tools.functions"


def tool(name: str, threads: Threads | None = None, /, **keys: Any) -> Tool:
    """Return the function *name* of the module beside this one."""
    return function_tool(ToolSource(python=f"{HERE}:{name}", **keys), threads)


def context(call_id: str = "call_1") -> ToolContext:
    """Return what a function may know of a call."""
    return ToolContext("run_1", "main", "key", "owner", call_id, "run_1.1")


async def call(name: str, /, **arguments: Any) -> str:
    """Return what the function gives."""
    return await tool(name).call(arguments, context())


@pytest.fixture
def gate(monkeypatch):
    """Return a gate that functions wait at; it is open at the test's end."""
    made = functions.Gate()
    monkeypatch.setattr(functions, "gate", made, raising=False)
    yield made
    made.go.set()


@pytest.mark.parametrize("style", ["google", "numpy", "sphinx"])
def test_python_docstrings(style):
    """Descriptions come from docstrings in Google's, NumPy's and Sphinx' style."""
    made = tool(style)
    assert (made.name, made.idempotent, made.timeout_s) == (style, False, 60.0)
    assert made.description == (
        "Look up the weather.\n\nReturns what the service says,\nas it stands."
    )
    assert made.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city,\nin English."},
            "days": {
                "type": "integer",
                "default": 1,
                "description": "How many: 1 to 3.",
            },
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_python_docstring_of_two():
    """A docstring may describe several parameters at once."""
    properties = tool("both").parameters["properties"]
    assert properties == {
        "north": {"description": "How far."},
        "south": {"type": "integer", "default": 0, "description": "How far."},
    }


def test_python_docstring_of_no_style():
    """A docstring without sections is the description as it stands."""
    assert tool("plain").description == ("Look it up: quickly.\n\nSteps:\n  first: ask")
    made = tool("bare")
    assert made.description == ""
    assert made.parameters["properties"] == {"thing": {}}


def test_python_configured():
    """Name, description, idempotent and timeout are the configuration's to say."""
    made = tool("google", name="sky", description="", idempotent=True, timeout_s=2.5)
    assert (made.name, made.description) == ("sky", "")
    assert (made.idempotent, made.timeout_s) == (True, 2.5)


def test_python_schema():
    """Types of all kinds have a schema, without titles."""
    schema = tool("typed").parameters
    assert schema["required"] == ["when", "unit", "point", "tree", "kind"]
    assert schema["properties"] == {
        "when": {"type": "string", "format": "date-time", "description": "The time."},
        "unit": {"$ref": "#/$defs/Unit"},
        "point": {"$ref": "#/$defs/Point"},
        "tree": {"$ref": "#/$defs/Node"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "loose": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "many": {
            "type": "array",
            "items": {"type": "integer"},
            "uniqueItems": True,
            "default": [1],
        },
        "bound": {
            "type": "integer",
            "minimum": 1,
            "default": 1,
            "description": "Its own.",
        },
        "short": {"type": "number", "exclusiveMaximum": 1, "default": 0.5},
        "unsaid": {},
    }
    # Here it is a property, and stays.
    assert schema["$defs"]["Node"]["properties"]["title"] == {"type": "string"}
    assert schema["$defs"]["Node"].keys() == {
        *("type", "description", "properties", "required")
    }
    json.dumps(schema)
    tree = tool("planted").parameters["properties"]["tree"]
    assert tree["default"] == {"title": "oak", "below": []}


@pytest.mark.gen_test
async def test_python_conversion():
    """Arguments come as what the function's types say; defaults are its own."""
    given = {
        "when": "2026-01-02T03:04:05",
        "unit": "f",
        "point": {"x": 1},
        "tree": {"title": "a", "below": [{"title": "b"}]},
        "kind": "b",
    }
    made = tool("typed")
    assert made.fault(given) is None
    text = await made.call(given, context())
    assert text == (
        "(datetime.datetime(2026, 1, 2, 3, 4, 5), "
        "<Unit.FAHRENHEIT: 'f'>, Point(x=1, y=0), "
        "Node(title='a', below=[Node(title='b', below=[])]), "
        "'b', None, None, frozenset({1}), 1, 0.5)True"
    )
    given |= {"maybe": 2, "loose": None, "many": [2, 2], "bound": 3, "short": 0}
    assert made.fault(given | {"many": [2]}) is None
    text = await made.call(given, context())
    assert text.endswith("'b', 2, None, frozenset({2}), 3, 0.0)True")


@pytest.mark.gen_test
async def test_python_awkward_names():
    """Parameters may have names that mean something to Pydantic."""
    given = {"_private": 1, "model_config": 2, "self": 3, "title": "a"}
    assert list(tool("awkward").parameters["properties"]) == list(given)
    assert await call("awkward", **given) == '[1,2,3,"a"]'


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"when": "soon"}, "when: Input should be a valid datetime"),
        ({"unit": "k"}, "unit: Input should be 'c' or 'f'"),
        ({"point": {"x": "a"}}, "point.x: Input should be a valid integer"),
        ({"point": {}}, "point.x: Field required"),
        ({"bound": 0}, "bound: Input should be greater than or equal to 1"),
        ({"new": 1}, "new: Extra inputs are not permitted"),
        (
            {"tree": {"title": "a", "below": [{"title": "root"}]}},
            "tree.below[0].title: Value error, there is a root already",
        ),
    ],
)
async def test_python_wrong_arguments(change, words):
    """Arguments that cannot be converted are told to the model, by place."""
    given: Mapping[str, Any] = {
        "when": "2026-01-02",
        "unit": "c",
        "point": {"x": 1},
        "tree": {"title": "a"},
        "kind": "a",
    }
    with pytest.raises(ToolFailed) as caught:
        await call("typed", **(given | change))
    assert str(caught.value).startswith(words)
    assert "pydantic" not in str(caught.value)


@pytest.mark.gen_test
async def test_python_several_wrong_arguments():
    """Of many faults three are told, each of them cut."""
    with pytest.raises(ToolFailed) as caught:
        await call("typed", kind="z" * 1000)
    text = str(caught.value)
    assert text.count("; ") == 2
    assert text.startswith("when: Field required; unit: Field required; ")


def test_python_fault():
    """What the schema forbids is found before the function is called."""
    assert tool("google").fault({"city": 3}) == 'city: 3 is not of type "string"'


@pytest.mark.gen_test
async def test_python_context():
    """A parameter of type ToolContext is the call's, and not in the schema."""
    made = tool("informed")
    assert made.parameters["required"] == ["word"]
    assert list(made.parameters["properties"]) == ["word"]
    assert await made.call({"word": "a"}, context()) == "a run_1 call_1 run_1.1"
    assert tool("on_loop").parameters["properties"] == {}
    # Whoever writes it into the arguments gives none.
    with pytest.raises(ToolFailed, match="other: Extra inputs are not permitted"):
        await made.call({"word": "a", "other": {"run_id": "mine"}}, context())


@pytest.mark.gen_test
async def test_python_where_it_runs():
    """Coroutines run on the loop, other functions in daemon threads."""
    functions.WHO.set("somebody")
    assert await call("on_loop") == f"{threading.current_thread().name} main"
    name, path, daemon, who = (await call("in_thread")).split()
    assert (name, path) == ("run_1", f"{HERE}:in_thread")
    assert (daemon, who) == ("True", "somebody")
    assert await call("later") == threading.current_thread().name


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("doubler", "4"),
        ("doubler.wait", "4"),
        ("slow", "4"),
        ("Callable_.static", "4"),
        ("Callable_.of_class", "4"),
        ("decorated", "<4>"),
    ],
)
async def test_python_callables(name, text):
    """Methods, objects that can be called and decorated functions are tools too."""
    made = tool(name, name="double")
    assert made.description.startswith("Double")
    assert made.parameters["properties"] == {"x": {"type": "integer"}}
    assert await made.call({"x": 2}, context()) == text


@pytest.mark.gen_test
async def test_python_partial():
    """What functools.partial has fixed the model cannot change."""
    made = tool("confined", name="find")
    assert list(made.parameters["properties"]) == ["name"]
    assert made.fault({"name": "a", "root": "/"}) is not None
    assert await made.call({"name": "a"}, context()) == "/srv/a"
    with pytest.raises(ToolFailed, match="root: Extra inputs are not permitted"):
        await made.call({"name": "a", "root": "/"}, context())


@pytest.mark.gen_test
@pytest.mark.parametrize("function", ["give", "give_async"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text", "as it is\n"),
        ("empty", '""'),
        ("blank", '" \\n"'),
        ("none", "null"),
        ("number", "1.5"),
        ("flag", "true"),
        ("date", '"2026-01-02"'),
        ("path", '"/a/b"'),
        ("enum", "c"),
        ("dataclass", '{"x":1,"y":0}'),
        ("model", '{"title":"a","below":[]}'),
        ("list", '[{"x":1,"y":0},{"when":"01:02:00"},[3]]'),
        ("opaque", '{"a":"fixed"}'),
        ("cycle", "[1, [...]]"),
        ("half", "a\ufffdb"),
        ("halves", "😀"),
        ("inner half", "['\\ud800']"),
        ("bytes", '"abc"'),
        ("no text", "b'\\xff'"),
    ],
)
async def test_python_results(function, name, text):
    """Text stays as it is, everything else is JSON, and never blank."""
    assert await call(function, name=name) == text


@pytest.mark.gen_test
@pytest.mark.parametrize("function", ["give", "give_async"])
async def test_python_large_results(function):
    """A result has at most 1 MiB; one that is larger is told to be, not cut."""
    assert len((await call(function, name="limit")).encode()) == MAX_RESULT_BYTES
    with pytest.raises(ToolFailed, match="the result has 1048577 bytes, more than"):
        await call(function, name="large")


@pytest.mark.gen_test
@pytest.mark.parametrize("function", ["give", "give_async"])
@pytest.mark.parametrize("name", ["generator", "async generator", "map"])
async def test_python_iterators(function, name):
    """What can only be iterated is no result."""
    with pytest.raises(ToolFailed, match="which has no text"):
        await call(function, name=name)


@pytest.mark.gen_test
@pytest.mark.parametrize("function", ["fail", "fail_async"])
@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("error", KeyError),
        ("stop", RuntimeError),
        ("exit", RuntimeError),
        ("cancelled", RuntimeError),
    ],
)
async def test_python_raises(function, kind, raised):
    """What a function raises is raised; what would end more than the call is not."""
    asked = context()
    with pytest.raises(raised):
        await tool(function).call({"kind": kind}, asked)
    assert not asked.cancelled.is_set()


@pytest.mark.gen_test
async def test_python_interrupt_in_thread():
    """What ends a thread ends no more than the call."""
    with pytest.raises(RuntimeError, match="the function raised KeyboardInterrupt"):
        await call("fail", kind="interrupt")


@pytest.mark.gen_test
async def test_python_hanging_thread(gate):
    """A function that hangs blocks neither the loop nor who gives it up."""
    asked = context()
    made = tool("gate.wait")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await made.call({}, asked)
    assert asked.cancelled.is_set()
    gate.go.set()
    await passed(gate.ended)
    assert gate.told == ["call_1 True"]


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["gate.fail", "gate.coroutine"])
async def test_python_late_results(gate, name):
    """Nobody hears of what becomes of a call that was given up."""
    threads = Threads(1)
    task = asyncio.ensure_future(tool(name, threads).call({}, context()))
    await passed(gate.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.go.set()
    # The next call waits for the place of the former.
    assert "run_1" in await tool("in_thread", threads).call({}, context())


@pytest.mark.gen_test
async def test_python_cancelled_coroutine(gate):
    """A coroutine is cancelled where it waits."""
    asked = context()
    task = asyncio.ensure_future(tool("gate.hang").call({}, asked))
    await passed(gate.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.told == ["call_1 False"]
    assert asked.cancelled.is_set()


@pytest.mark.gen_test
async def test_python_bounded_threads(gate, caplog):
    """There is a limit to threads; further calls wait, and may be given up."""
    threads = Threads(2)
    waiting = tool("gate.wait", threads)
    first = [
        asyncio.ensure_future(waiting.call({}, context(str(number))))
        for number in range(2)
    ]
    for _ in first:
        await passed(gate.begun)
    third = asyncio.ensure_future(waiting.call({}, context("2")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await waiting.call({}, context("3"))
    assert not gate.begun.acquire(blocking=False)
    assert caplog.text.count("2 functions of tools are running") == 1
    # A call that is given up keeps its place for as long as its thread runs.
    first[0].cancel()
    await asyncio.wait([first[0]])
    assert not gate.begun.acquire(blocking=False)
    gate.go.set()
    assert await asyncio.gather(first[1], third) == ["through", "through"]
    assert sorted(gate.told) == ["0 True", "1 False", "2 False"]


@pytest.mark.gen_test
async def test_python_parallel(gate):
    """Functions run beside each other, each with a context of its own."""
    made = tool("gate.wait")
    calls = [
        asyncio.ensure_future(made.call({}, context(str(number))))
        for number in range(20)
    ]
    for _ in calls:
        await passed(gate.begun)
    gate.go.set()
    assert await asyncio.gather(*calls) == ["through"] * 20
    assert len(set(gate.told)) == 20


def test_python_hanging_thread_at_exit():
    """A function that hangs does not keep the process from ending."""
    code = f"""
import asyncio
from tests.tools import functions
from tests.tools.functions import passed
functions.gate = functions.Gate()
from tests.tools.test_python import tool, context
async def main():
    task = asyncio.ensure_future(tool("gate.wait").call({{}}, context()))
    while not functions.gate.begun.acquire(blocking=False):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
asyncio.run(main())
print("ended", {HERE!r})
"""
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert (result.stdout, result.stderr) == (f"ended {HERE}\n", "")
    assert time.monotonic() - began < 20


@pytest.mark.gen_test
async def test_python_documented(tmp_path, monkeypatch):
    """The functions that the docs show are tools."""
    page = (ROOT / "docs" / "tools.md").read_text("utf-8")
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path(tmp_path, "warehouse.py").write_text(text, "utf-8")
    stock, order = (
        function_tool(ToolSource(python=f"warehouse:{name}"))
        for name in ("stock", "order")
    )
    assert await stock.call({"part": "nut"}, context()) == "0"
    with pytest.raises(ToolFailed, match="there is no part 'cog'; there are bolt, nut"):
        await stock.call({"part": "cog"}, context())
    given = {"part": "nut", "count": 3, "to": {"street": "Via 1", "town": "Rome"}}
    assert order.fault(given) is None
    assert await order.call(given | {"by": "2026-01-02"}, context()) == (
        '{"order":"run_1.1","for":"owner","town":"Rome"}'
    )
    (words,) = re.findall(r"^```text\n(.*?)\n```$", page, re.M | re.S)
    assert order.fault({"part": "nut", "to": {"street": "", "town": 3}}) == words


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{HERE}.nowhere:a", f"there is no module {HERE}.nowhere; install it"),
        ("nowhere_at_all.sub:a", "there is no module nowhere_at_all; install it"),
        (f"{HERE}:nothing", f"the module {HERE} has no nothing"),
        (f"{HERE}:doubler.nothing", f"the module {HERE} has no doubler.nothing"),
        (f"{HERE}:version", "is of type str, which cannot be called"),
        (f"{HERE}:Point", "is a class; name a function"),
        (f"{HERE}:Callable_.wait", "is a method; name that of an instance"),
        (f"{HERE}:letters", "is a generator"),
        (f"{HERE}:letters_async", "is a generator"),
        (f"{HERE}:starred", "takes *args; a model gives its arguments by name"),
        (f"{HERE}:double_starred", "takes **more; a model gives"),
        (f"{HERE}:positional", "takes x before the /; a model gives"),
        (f"{HERE}:unknown_type", "a type that is not there: name 'Missing' is not"),
        (f"{HERE}:opaque_type", "cannot be made from JSON for y: Unable to generate"),
        (f"{HERE}:callback", "cannot be made from JSON for then: Cannot generate"),
        (f"{HERE}:bad_pattern", "cannot be made from JSON for x: Error building"),
        (f"{HERE}:fetches", "http://127.0.0.1:1/x"),
        (f"{HERE}:doubler", "is called '', which providers refuse; give it a name"),
        (f"{HERE}:nameless", "is called '<lambda>', which providers refuse"),
        (f"{HERE}:größe", "is called 'größe', which providers refuse"),
        ("functions", "'functions' is not package.module:function"),
        (":a", "':a' is not package.module:function"),
        ("a:b:c", "'a:b:c' is not package.module:function"),
        (None, "'' is not package.module:function"),
    ],
)
def test_python_refuses(path, words):
    """What cannot be a tool is told when the configuration is read, and why."""
    with pytest.raises(ConfigError) as caught:
        function_tool(ToolSource(python=path))
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no')", "cannot be imported: SystemExit: no"),
        ("import nowhere.a", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def (", "cannot be imported: SyntaxError: invalid syntax ("),
        (
            "from json import nothing",
            "ImportError: cannot import name 'nothing' from 'json'",
        ),
        ("raise ValueError('x' * 1000)", "cannot be imported: ValueError: xxx"),
    ],
)
def test_python_broken_modules(tmp_path, monkeypatch, text, words):
    """What a module raises when it is imported is told, without its folder."""
    monkeypatch.syspath_prepend(str(tmp_path))
    Path(tmp_path, "broken_tools.py").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        function_tool(ToolSource(python="broken_tools:a"))
    assert words in caught.value.message
    assert "/" not in caught.value.message
    assert len(caught.value.message) < 400
