"""What a URL asks for behind its question mark."""

from __future__ import annotations

from collections.abc import Collection

from tornado.web import RequestHandler

from edwin.errors import InvalidRequest, shorten

LIMIT = 20
MAX_LIMIT = 100
MAX_NUMBER = 2**53


def text(handler: RequestHandler, name: str) -> str | None:
    """Return the parameter *name*, or None without one; empty is as absent.

    Raises:
        InvalidRequest: If it was given twice.

    """
    values = handler.get_query_arguments(name, strip=False)
    if len(values) > 1:
        raise InvalidRequest(
            f"'{name}' was given {len(values)} times; give it once",
            param=name,
            code="invalid_value",
        )
    return values[0] or None if values else None


def required(handler: RequestHandler, name: str) -> str:
    """Return the parameter *name*.

    Raises:
        InvalidRequest: If it is missing, or was given twice.

    """
    value = text(handler, name)
    if value is None:
        raise InvalidRequest(
            f"Missing required parameter: '{name}'.",
            param=name,
            code="missing_required_parameter",
        )
    return value


def choice(handler: RequestHandler, name: str, options: Collection[str]) -> str | None:
    """Return the parameter *name*, one of *options*, or None without one.

    Raises:
        InvalidRequest: If it is anything else.

    """
    value = text(handler, name)
    if value is None or value in options:
        return value
    raise InvalidRequest(
        f"Invalid value: {shorten(value)!r}. Supported values are: "
        f"{', '.join(repr(option) for option in options)}.",
        param=name,
        code="invalid_value",
    )


def number(handler: RequestHandler, name: str) -> int | None:
    """Return the parameter *name*, a whole number from 0, or None without one.

    Raises:
        InvalidRequest: If it is anything else.

    """
    value = text(handler, name)
    return None if value is None else whole(value, name)


def whole(value: str, name: str) -> int:
    """Return the whole number, from 0, that *value* of the parameter *name* is.

    Raises:
        InvalidRequest: If it is anything else.

    """
    if value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_NUMBER)):
        return int(value)
    raise InvalidRequest(
        f"Invalid value for '{name}': a whole number is expected.",
        param=name,
        code="invalid_value",
    )


def limit(handler: RequestHandler) -> int:
    """Return how many things a page is to have.

    Raises:
        InvalidRequest: If ``limit`` is not from 1 to 100.

    """
    value = number(handler, "limit")
    if value is None:
        return LIMIT
    if 1 <= value <= MAX_LIMIT:
        return value
    raise InvalidRequest(
        f"Invalid value for 'limit': 1 to {MAX_LIMIT} are allowed.",
        param="limit",
        code="invalid_value",
    )
