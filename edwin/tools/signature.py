"""What a function takes: as a JSON Schema for models, and from JSON into its types.

Pydantic makes the schema and converts the arguments, docstring-parser reads what the
docstring says of them; both are imported when there is a first function to read.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union

from edwin.tools import schema
from edwin.tools.base import ToolContext, ToolFailed

if TYPE_CHECKING:
    from pydantic import BaseModel

_REFUSED: Final[Mapping[Any, str]] = MappingProxyType(
    {
        inspect.Parameter.POSITIONAL_ONLY: "{} before the /",
        inspect.Parameter.VAR_POSITIONAL: "*{}",
        inspect.Parameter.VAR_KEYWORD: "**{}",
    }
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes.

    Attributes:
        description: What its docstring says of it, without its parameters.
        schema: JSON Schema of its arguments, an object.

    """

    description: str
    schema: Mapping[str, Any]
    _model: type[BaseModel]
    _parameters: Mapping[str, str]
    _always: frozenset[str]
    _contexts: tuple[str, ...]

    def bind(
        self, arguments: Mapping[str, Any], context: ToolContext
    ) -> dict[str, Any]:
        """Return what the function is called with, by name.

        Args:
            arguments: What the model wrote.
            context: For the parameters that want it.

        Raises:
            ToolFailed: If they cannot be converted; says what is wrong with which.

        """
        from pydantic_core import PydanticSerializationError, ValidationError, to_json

        try:
            # As JSON: there Pydantic takes text for a date, but not 3 for a text.
            model = self._model.model_validate_json(to_json(arguments))
        except PydanticSerializationError as error:
            raise ToolFailed(f"the arguments are no JSON: {error}") from None
        except ValidationError as error:
            raise ToolFailed(schema.words(error)) from None
        given = model.model_fields_set | self._always
        bound = {
            parameter: getattr(model, field)
            for field, parameter in self._parameters.items()
            if field in given
        }
        return bound | dict.fromkeys(self._contexts, context)


def read(code: Callable[..., Any]) -> Signature:
    """Return what *code* takes.

    A parameter of type :class:`ToolContext` is left out of the schema; what
    ``functools.partial`` has given already is, too.

    Raises:
        TypeError: If it cannot be called with arguments by name, or if they cannot be
            made from JSON.  The message goes on after the function's name.

    """
    parameters = _parameters(code)
    hints = _hints(code, parameters)
    contexts = tuple(name for name in parameters if _is_context(hints[name]))
    asked = {n: p.default for n, p in parameters.items() if n not in contexts}
    model = schema.model({name: (hints[name], asked[name]) for name in asked})
    description, told = _documented(code)
    form = schema.schema(model)
    for name, part in form["properties"].items():
        if name in told:
            part.setdefault("description", told[name])
    fields = dict(zip(model.model_fields, asked, strict=True))
    # The function itself would take such a default as it stands.
    always = (field for field, name in fields.items() if schema.is_field(asked[name]))
    return Signature(description, form, model, fields, frozenset(always), contexts)


def _parameters(code: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        found = dict(inspect.signature(code).parameters)
    except ValueError:
        raise TypeError("does not say which arguments it takes") from None
    given = code.keywords if isinstance(code, functools.partial) else {}
    for name, parameter in found.items():
        if parameter.kind in _REFUSED:
            shown = _REFUSED[parameter.kind].format(name)
            raise TypeError(
                f"takes {shown}; a model gives its arguments by name, so that each "
                "must have one"
            )
    return {name: found[name] for name in found if name not in given}


def _hints(
    code: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """Return the types of *parameters*, those that are text resolved."""

    def carrier() -> None:
        """Carry the annotations, without that of the result."""

    carrier.__annotations__ = {
        name: Any if parameter.annotation is parameter.empty else parameter.annotation
        for name, parameter in parameters.items()
    }
    names = getattr(underlying(code), "__globals__", {})
    # Modules often import it for type checking alone.
    names = {"ToolContext": ToolContext} | names
    try:
        hints = typing.get_type_hints(carrier, names, include_extras=True)
    except (NameError, AttributeError, SyntaxError) as error:
        raise TypeError(f"has a type that is not there: {error}") from None
    return {name: hints[name] for name in parameters}


def underlying(code: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that *code* comes down to."""
    while isinstance(code, functools.partial):
        code = code.func
    if not inspect.isroutine(code):
        code = type(code).__call__
    found: Callable[..., Any] = inspect.unwrap(code)
    return found


def _is_context(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return _is_context(hint.__origin__)
    if typing.get_origin(hint) in (Union, UnionType):
        return any(map(_is_context, typing.get_args(hint)))
    return hint is ToolContext


def _documented(code: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what the docstring says of the function, and of each parameter."""
    from docstring_parser import ParseError, parse

    text = inspect.getdoc(underlying(code)) or ""
    try:
        found = parse(text)
    except ParseError:
        return text.strip(), {}
    told = {
        name.strip().lstrip("*"): parameter.description.strip()
        for parameter in found.params
        for name in parameter.arg_name.split(",")
        if parameter.description
    }
    return (found.description or "").strip(), told
