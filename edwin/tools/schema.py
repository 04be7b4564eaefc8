"""Parameters as a model of Pydantic, as a JSON Schema, and its faults in words.

Used by ``signature`` alone; Pydantic is imported when it is first needed.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Optional

from edwin.errors import shorten
from edwin.violations import dotted

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ValidationError

MAX_FAULTS: Final = 3
"""How many faults of one call are told."""

_MAX_FAULT: Final = 240
_NAMED: Final = ("properties", "patternProperties", "$defs", "dependentSchemas")
_PLAIN: Final = ("default", "const", "enum", "examples")


def is_field(default: object) -> bool:
    """Return whether *default* is what Pydantic's ``Field`` makes."""
    from pydantic.fields import FieldInfo

    return isinstance(default, FieldInfo)


def model(asked: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    """Return a model of arguments, a field for each of *asked*, in its order.

    Args:
        asked: Type and default by name; the default as in ``inspect.Parameter``.

    Raises:
        TypeError: If one of them cannot be made from JSON, or has no schema.

    """
    from pydantic import ConfigDict, Field, TypeAdapter, create_model
    from pydantic.errors import PydanticUserError
    from pydantic_core import SchemaError

    fields: dict[str, Any] = {}
    for place, (name, (hint, default)) in enumerate(asked.items()):
        # The names of parameters may be ones that a model cannot have.
        if default is inspect.Parameter.empty:
            field = (hint, Field(alias=name))
        elif is_field(default):
            field = (Annotated[hint, default], Field(alias=name))
        else:
            hint = _optional(hint) if default is None else hint
            field = (hint, Field(default, alias=name))
        fields[f"argument_{place}"] = field
    faults = (PydanticUserError, SchemaError, NameError)
    try:
        made: type[BaseModel] = create_model(
            "Arguments", __config__=ConfigDict(extra="forbid"), **fields
        )
        made.model_json_schema(schema_generator=_generator())
    except faults as error:
        for name, (hint, _) in asked.items():
            try:
                TypeAdapter(hint).json_schema(schema_generator=_generator())
            except faults as fault:
                raise TypeError(_cannot(fault, f" for {name}")) from None
        raise TypeError(_cannot(error)) from None
    return made


def _cannot(error: Exception, of: str = "") -> str:
    said = " ".join(str(error).partition("\n\nFor further")[0].split())
    return f"takes what cannot be made from JSON{of}: {shorten(said, _MAX_FAULT)}"


def _optional(hint: Any) -> Any:
    """Return *hint* or None: what a default of None stands for."""
    if typing.get_origin(hint) is Annotated:
        return Annotated[(Optional[hint.__origin__], *hint.__metadata__)]  # noqa: UP045
    return Optional[hint]  # noqa: UP045


def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Quiet(GenerateJsonSchema):
        """Leaves out defaults that are no JSON, and does not warn of it."""

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Emit none."""

    return Quiet


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of *model*, an object, in the form that providers take."""
    made = _untitled(model.model_json_schema(schema_generator=_generator()))
    form = {
        "type": "object",
        "properties": made.get("properties", {}),
        "required": made.get("required", []),
        "additionalProperties": False,
    }
    return form | ({"$defs": made["$defs"]} if "$defs" in made else {})


def _untitled(schema: Any) -> Any:
    """Return *schema* without the titles, which only repeat the names."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {}
    for key, part in schema.items():
        if key in _PLAIN:
            bare[key] = part
        elif key in _NAMED:
            bare[key] = {name: _untitled(inner) for name, inner in part.items()}
        elif key != "title":
            bare[key] = _untitled(part)
    return bare


def words(error: ValidationError) -> str:
    """Return what *error* says of the arguments, for the model that wrote them."""
    told = []
    for fault in error.errors(
        include_url=False, include_context=False, include_input=False
    )[:MAX_FAULTS]:
        where = dotted(fault["loc"])
        text = f"{where}: {fault['msg']}" if where else fault["msg"]
        told.append(shorten(text, _MAX_FAULT))
    return "; ".join(told)
