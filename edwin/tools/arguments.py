"""A call's arguments against the tool's JSON Schema, in words for the model.

Used for Python functions and for the tools of MCP servers alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

import jsonschema_rs

from edwin.errors import shorten
from edwin.violations import dotted

Check: TypeAlias = Callable[[Mapping[str, Any]], str | None]

MAX_FAULTS: Final = 3
"""How many faults of one call are told."""

_MAX_LISTED: Final = 1000
_MAX_VALUE: Final = 40
_MAX_FAULT: Final = 240
# Stands for the value in the validator's messages; no message has it otherwise.
_VALUE: Final = "\0"


def checker(schema: Mapping[str, Any]) -> Check:
    """Return what says how arguments break *schema*, None where they do not.

    The schema is compiled once, by the draft that its ``$schema`` names, 2020-12
    without one.  Nothing is ever fetched.  The words name the place and the value, cut
    (``city: 3 is not of type "string"``), of the first ``MAX_FAULTS`` faults.  Of
    arguments with more than a thousand values one fault is told, because each costs
    the validator 10 µs.

    Raises:
        ValueError: If it is no schema, or refers to another document.

    """
    try:
        validator = jsonschema_rs.validator_for(
            dict(schema), retriever=_refuse, mask=_VALUE
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(shorten(error.message, _MAX_FAULT)) from None

    def check(arguments: Mapping[str, Any]) -> str | None:
        try:
            if validator.is_valid(arguments):
                return None
            faults = _faults(validator, arguments)
        except ValueError as error:
            return f"the arguments cannot be read: {error}"
        return "; ".join(dict.fromkeys(_words(fault) for fault in faults))

    return check


def _refuse(uri: str) -> Any:
    raise LookupError(f"{shorten(uri)!r} is another document")


def _faults(
    validator: jsonschema_rs.Validator, arguments: Mapping[str, Any]
) -> list[jsonschema_rs.ValidationError]:
    if sum(1 for _ in islice(_values(arguments), _MAX_LISTED + 1)) <= _MAX_LISTED:
        return list(validator.iter_errors(arguments))[:MAX_FAULTS]
    try:
        validator.validate(arguments)
    except jsonschema_rs.ValidationError as error:
        return [error]
    raise AssertionError("what is not valid has a fault")


def _values(document: Any) -> Iterator[Any]:
    rest = [document]
    while rest:
        node = rest.pop()
        if isinstance(node, dict | list):
            inner = list(node.values()) if isinstance(node, dict) else node
            yield from inner
            rest += inner


def _words(fault: jsonschema_rs.ValidationError) -> str:
    """Return *fault* in one line: its place, and what is wrong there."""
    where = dotted(fault.instance_path)
    value = json.dumps(fault.instance, ensure_ascii=False, default=repr)
    value = shorten(value, _MAX_VALUE)
    told = fault.message.replace(_VALUE, value)
    branches = getattr(fault.kind, "context", None)
    if fault.kind.name in ("anyOf", "oneOf") and branches and all(branches):
        # The message itself says only that nothing fits.
        ways = dict.fromkeys(_way(branch[0], fault) for branch in branches)
        told = f"{value} does not fit: {', and '.join(ways)}"
    return shorten(f"{where}: {told}" if where else told, _MAX_FAULT)


def _way(
    fault: jsonschema_rs.ValidationError, whole: jsonschema_rs.ValidationError
) -> str:
    deeper = fault.instance_path[len(whole.instance_path) :]
    return fault.message.replace(_VALUE, dotted(deeper) or "it")
