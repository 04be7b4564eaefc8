"""Python functions as tools: found, described, called.

The one place of the tools that knows that the code is somebody else's: a module may
raise anything when it is imported, a function may hang or give anything at all.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from edwin.errors import ConfigError, shorten
from edwin.tools.arguments import checker
from edwin.tools.base import Tool, ToolContext
from edwin.tools.results import result_text
from edwin.tools.signature import Signature, read, underlying
from edwin.tools.threads import Threads
from edwin.types import ToolSource

_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_SAID: Final = 300


def function_tool(source: ToolSource, threads: Threads | None = None) -> Tool:
    """Return the function that *source* names as a tool.

    Imports its module, where Python finds it; one that is loaded already is not read
    again.

    Args:
        source: With ``python``; its name and description win over the function's own.
        threads: Where it runs if it blocks; None: in threads of its own.

    Raises:
        ConfigError: If it cannot be imported, is no function that a model can call, or
            has a name that providers would refuse.

    """
    path = source.python or ""
    code = _imported(path)
    try:
        _check(code)
        signature = read(code)
        fault = checker(signature.schema)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} {error}") from None
    name = source.name or str(getattr(code, "__name__", ""))
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{path} is called {shorten(name)!r}, which providers refuse; give it a "
            "name of letters, digits, '_' and '-', at most 64"
        )
    described = source.description
    return Tool(
        name=name,
        description=signature.description if described is None else described,
        parameters=signature.schema,
        fault=fault,
        call=_Call(path, code, signature, threads or Threads()),
        idempotent=source.idempotent,
        timeout_s=source.timeout_s,
    )


class _Call:
    """Calls a function: a coroutine on the loop, everything else in a thread."""

    def __init__(
        self,
        path: str,
        code: Callable[..., Any],
        signature: Signature,
        threads: Threads,
    ) -> None:
        self._path = path
        self._code = code
        self._signature = signature
        self._threads = threads
        kinds = (code, type(code).__call__)
        self._on_loop = any(map(inspect.iscoroutinefunction, kinds))

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        try:
            if self._on_loop:
                return await self._await(self._call(arguments, context))
            name = f"{context.run_id} {self._path}"
            given = await self._threads.run(
                lambda: self._block(arguments, context), name
            )
            return given if isinstance(given, str) else await self._await(given)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Something that the function waited for was cancelled, not the call.
                raise RuntimeError(f"{self._path} was cancelled from within") from error
            context.cancelled.set()
            raise
        except SystemExit as error:
            raise RuntimeError(f"{self._path} asked the process to exit") from error

    def _call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        return self._code(**self._signature.bind(arguments, context))

    def _block(self, arguments: Mapping[str, Any], context: ToolContext) -> object:
        """Return the function's result as text, or what the loop has to wait for."""
        result = self._call(arguments, context)
        return result if inspect.isawaitable(result) else result_text(result)

    async def _await(self, result: Any) -> str:
        while inspect.isawaitable(result):
            result = await result
        return result_text(result)


def _imported(path: str) -> Any:
    """Return what *path*, ``package.module:function``, stands for."""
    if not _PATH.fullmatch(path):
        raise ConfigError(f"{shorten(path)!r} is not package.module:function")
    module, _, name = path.partition(":")
    # A file that is new since the last look may be what is wanted.
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{path} cannot be imported: {_said(error)}") from error
        raise ConfigError(
            f"{path}: there is no module {error.name}; install it, or put it beside "
            "the configuration's file"
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path} cannot be imported: {_said(error)}") from error
    for part in name.split("."):
        try:
            holder, found = found, getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{path}: the module {module} has no {name}") from None
    if isinstance(holder, type) and inspect.isfunction(
        inspect.getattr_static(holder, part)
    ):
        raise ConfigError(f"{path} is a method; name that of an instance")
    return found


def _said(error: BaseException) -> str:
    """Return type and text of *error*, without the file that it may name."""
    text = str(error)
    if isinstance(error, ImportError) and error.path:
        text = text.replace(f" ({error.path})", "")
    return shorten(f"{type(error).__name__}: {text}", _MAX_SAID)


def _check(code: Any) -> None:
    if isinstance(code, type):
        raise TypeError("is a class; name a function")
    if not callable(code):
        raise TypeError(f"is of type {type(code).__name__}, which cannot be called")
    function = underlying(code)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("is a generator; a tool gives its result at once")
