"""Functions as people write them, for the tests of tools."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import enum
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

from pydantic import BaseModel, Field, field_validator

if TYPE_CHECKING:
    from nowhere import Elsewhere

    from edwin.tools import ToolContext

WHO = contextvars.ContextVar("WHO", default="nobody")
UNSAID = object()


class Unit(enum.Enum):
    """A scale."""

    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Point:
    """A place."""

    x: int
    y: int = 0


class Node(BaseModel):
    """A node of a tree."""

    title: str
    below: list[Node] = []

    @field_validator("title")
    @classmethod
    def not_root(cls, value: str) -> str:
        """Refuse the root."""
        if value == "root":
            raise ValueError("there is a root already")
        return value


class Opaque:
    """Nothing that JSON has."""


def google(city: str, days: int = 1) -> str:
    """Look up the weather.

    Returns what the service says,
    as it stands.

    Args:
        city: Name of the city,
            in English.
        days (int, optional): How many: 1 to 3.

    Returns:
        The weather.

    """
    return f"{city}, {days}"


def numpy(city: str, days: int = 1) -> str:
    """Look up the weather.

    Returns what the service says,
    as it stands.

    Parameters
    ----------
    city : str
        Name of the city,
        in English.
    days : int, optional
        How many: 1 to 3.

    Returns
    -------
    str
        The weather.

    """
    return f"{city}, {days}"


def sphinx(city: str, days: int = 1) -> str:
    """Look up the weather.

    Returns what the service says,
    as it stands.

    :param city: Name of the city,
        in English.
    :param int days: How many: 1 to 3.
    :returns: The weather.
    """
    return f"{city}, {days}"


def both(north, south: int = 0):
    """Go.

    Parameters
    ----------
    north, south
        How far.

    """


def plain(city: str) -> str:
    """Look it up: quickly.

    Steps:
      first: ask
    """
    return city


def bare(thing):
    return thing


def typed(
    when: datetime.datetime,
    unit: Unit,
    point: Point,
    tree: Node,
    kind: Literal["a", "b"],
    *,
    maybe: Optional[int] = None,  # noqa: UP045
    loose: int = None,  # noqa: RUF013
    many: frozenset[int] = frozenset({1}),
    bound: Annotated[int, Field(ge=1, description="Its own.")] = 1,
    short: float = Field(0.5, lt=1),
    unsaid: Any = UNSAID,
) -> Elsewhere:
    """Take all kinds.

    Args:
        when: The time.
        bound: Not this one.

    """
    return repr(
        (when, unit, point, tree, kind, maybe, loose, many, bound, short)
    ) + str(unsaid is UNSAID)


def awkward(_private: int, model_config: int, self: int, title: str) -> list[Any]:
    """Have names that a model of Pydantic could not have."""
    return [_private, model_config, self, title]


def planted(tree: Node = Node(title="oak")) -> str:  # noqa: B008
    """Have a default with a title."""
    return tree.title


def informed(word: str, context: ToolContext, other: ToolContext | None = None) -> str:
    """Tell what it knows."""
    assert other is context
    return f"{word} {context.run_id} {context.call_id} {context.token}"


async def on_loop(context: Annotated[ToolContext, "the call's"]) -> str:
    """Tell where it runs."""
    asyncio.get_running_loop()
    return f"{threading.current_thread().name} {context.agent}"


def in_thread() -> str:
    """Tell where it runs."""
    thread = threading.current_thread()
    return f"{thread.name} {thread.daemon} {WHO.get()}"


def later() -> Any:
    """Give what the loop has to wait for."""

    async def answer() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    return answer()


def give(name: str) -> Any:
    """Give one of many kinds."""
    return GIVEN[name]()


async def give_async(name: str) -> Any:
    """Give one of many kinds, on the loop."""
    return GIVEN[name]()


def cyclic() -> list[Any]:
    """Return a list that holds itself."""
    found: list[Any] = [1]
    found.append(found)
    return found


def letters() -> Iterator[str]:
    """Yield letters."""
    yield "a"


async def letters_async():
    """Yield letters."""
    yield "a"


GIVEN: dict[str, Callable[[], Any]] = {
    "text": lambda: "as it is\n",
    "empty": lambda: "",
    "blank": lambda: " \n",
    "none": lambda: None,
    "number": lambda: 1.5,
    "flag": lambda: True,
    "date": lambda: datetime.date(2026, 1, 2),
    "path": lambda: Path("/a/b"),
    "enum": lambda: Unit.CELSIUS,
    "dataclass": lambda: Point(1),
    "model": lambda: Node(title="a"),
    "list": lambda: [Point(1), {"when": datetime.time(1, 2)}, {3}],
    "opaque": lambda: {"a": Fixed()},
    "cycle": cyclic,
    "half": lambda: "a\ud800b",
    "halves": lambda: "\ud83d\ude00",
    "inner half": lambda: ["\ud800"],
    "bytes": lambda: b"abc",
    "no text": lambda: b"\xff",
    "limit": lambda: "é" * (512 * 1024),
    "large": lambda: "é" * (512 * 1024) + "x",
    "generator": letters,
    "async generator": letters_async,
    "map": lambda: map(str, [1]),
}


class Fixed:
    """Has no JSON, but a text."""

    def __str__(self) -> str:
        return "fixed"


def fail(kind: str) -> None:
    """Raise."""
    raise FAULTS[kind]


async def fail_async(kind: str) -> None:
    """Raise."""
    raise FAULTS[kind]


FAULTS: dict[str, BaseException] = {
    "error": KeyError("a"),
    "stop": StopIteration("end"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "cancelled": asyncio.CancelledError(),
}


class Gate:
    """Holds functions back until it is opened, and tells who has come and gone."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.told: list[str] = []

    def wait(self, context: ToolContext) -> str:
        """Wait until the gate opens."""
        self.begun.release()
        self.go.wait(30)
        self.told.append(f"{context.call_id} {context.cancelled.is_set()}")
        self.ended.release()
        return "through"

    def fail(self) -> None:
        """Wait until the gate opens, and fail."""
        self.begun.release()
        self.go.wait(30)
        self.ended.release()
        raise KeyError("late")

    def coroutine(self) -> Any:
        """Wait until the gate opens, and give what has to be awaited."""
        self.begun.release()
        self.go.wait(30)
        self.ended.release()
        return on_loop(None)

    async def hang(self, context: ToolContext) -> str:
        """Wait for ever."""
        self.begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append(f"{context.call_id} {context.cancelled.is_set()}")
        return ""


async def passed(semaphore: threading.Semaphore) -> None:
    """Return once a thread has released *semaphore*."""
    assert await asyncio.to_thread(semaphore.acquire, timeout=10)


class Callable_:
    """An object that can be called."""

    def __call__(self, x: int) -> int:
        """Double."""
        return 2 * x

    async def wait(self, x: int) -> int:
        """Double, on the loop."""
        return 2 * x

    @staticmethod
    def static(x: int) -> int:
        """Double as well."""
        return 2 * x

    @classmethod
    def of_class(cls, x: int) -> int:
        """Double, too."""
        return 2 * x


class Slow:
    """An object that is called on the loop."""

    async def __call__(self, x: int) -> int:
        """Double, slowly."""
        asyncio.get_running_loop()
        return 2 * x


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function around *function*."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return f"<{function(*args, **kwargs)}>"

    return wrapper


@wrapped
def decorated(x: int) -> int:
    """Double, and more."""
    return 2 * x


def area(root: str, name: str) -> str:
    """Find a file."""
    return f"{root}/{name}"


doubler = Callable_()
slow = Slow()
confined = functools.partial(area, root="/srv")


def starred(*args: int) -> None: ...
def double_starred(**more: int) -> None: ...
def positional(x: int, /) -> None: ...
def unknown_type(x: Missing) -> None: ...  # noqa: F821
def opaque_type(x: int, y: Opaque) -> None: ...
def callback(then: Callable[[], None]) -> None: ...
def bad_pattern(x: Annotated[str, Field(pattern="(")]) -> None: ...
def fetches(
    x: Annotated[int, Field(json_schema_extra={"$ref": "http://127.0.0.1:1/x"})],
) -> None: ...
def größe(x: int) -> None: ...


nameless = lambda x: x  # noqa: E731
version = sys.version
