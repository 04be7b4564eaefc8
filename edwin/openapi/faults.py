"""Every code an error can have, with its status and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

from edwin import errors
from edwin.errors import EdwinError, InvalidRequest, RateLimited


class Fault(NamedTuple):
    """What a code stands for.

    Attributes:
        status: The answer's status.
        types: What ``type`` can be.
        says: When it is answered.

    """

    status: int
    types: tuple[str, ...]
    says: str


# Codes of what a parameter, a header or a body can get wrong, which have no classes.
PARAMETERS = ("invalid_value", "missing_required_parameter")
_WRONG = MappingProxyType(
    {
        "invalid_value": "The value is none of those there are, or has another form.",
        "missing_required_parameter": "A field is missing.",
        "unknown_parameter": "A key that nobody knows.",
        "invalid_type": "The value has another type than the field.",
        "unsupported_value": "The value is legal, but Edwin does not do it.",
        "unsupported_parameter": "The field is legal, but Edwin does not do it.",
        "invalid_image_url": "The image is none that is taken.",
        "empty_string": "The string is empty.",
        "string_above_max_length": "The string is too long.",
        "empty_array": "The array is empty.",
        "array_above_max_length": "The array has too many items.",
        "object_below_min_properties": "The object has too few properties.",
        "object_above_max_properties": "The object has too many properties.",
        "integer_below_min_value": "The number is too small.",
        "integer_above_max_value": "The number is too large.",
        "decimal_below_min_value": "The number is too small.",
        "decimal_above_max_value": "The number is too large.",
    }
)
BODIES = tuple(_WRONG)


def _classes(kind: type[EdwinError] = EdwinError) -> Iterator[type[EdwinError]]:
    for heir in kind.__subclasses__():
        if heir.__module__ == errors.__name__:
            yield heir
            yield from _classes(heir)


def faults() -> dict[str, Fault]:
    """Return every code that an answer over HTTP can have, with what it stands for."""
    found = {
        code: Fault(InvalidRequest.status, (InvalidRequest.type,), says)
        for code, says in _WRONG.items()
    }
    for kind in _classes():
        if isinstance(kind.code, str):
            # A limit's own type says what has been used up.
            more = ("tokens",) if kind is RateLimited else ()
            says = (kind.__doc__ or kind.code).partition("\n")[0]
            found[kind.code] = Fault(kind.status, (kind.type, *more), says)
    found["reader_too_slow"] = Fault(
        *(errors.InternalError.status, (errors.InternalError.type,)),
        "The client read a stream too far behind the answer.",
    )
    return found


def example(code: str | None, fault: Fault) -> dict[str, Any]:
    """Return what the error with *code* looks like."""
    message = fault.says.replace("``", "'").rstrip(".")
    error = {"message": message, "type": fault.types[0], "param": None, "code": code}
    return {"error": error}
