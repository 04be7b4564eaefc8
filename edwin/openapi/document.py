"""The document, put together from routes, faults and schemas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from edwin import __version__
from edwin.openapi import parameters
from edwin.openapi.components import components, reference
from edwin.openapi.faults import BODIES, PARAMETERS, Fault, example, faults
from edwin.openapi.table import JSON, ROUTES, Answer, Route, Stream

_ERROR = "openai/error"
_ANYWHERE = ("forbidden", "body_too_large", "internal_error")
_WITH_SECRET = ("invalid_api_key", "too_many_failures", "gateway_stopping")
_UNREAD = Fault(400, ("invalid_request_error",), "The request cannot be read.")
_HEADERS_OF = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After", "x-should-retry"),
    500: ("x-should-retry",),
    502: ("Retry-After", "x-should-retry"),
    503: ("Retry-After",),
    504: ("x-should-retry",),
}


def openapi(*, prefix: str = "") -> dict[str, Any]:
    """Return the document; what it refers to is in it.

    Args:
        prefix: Path that stands before every URL, without a slash at its end.

    """
    known = faults()
    schemas, examples = components(_schemas())
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in ROUTES:
        for verb in (route.verb, "HEAD") if route.head else (route.verb,):
            paths[route.path][verb.lower()] = _operation(route, verb, known, examples)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Edwin Gateway",
            "summary": "Agents behind one port that speaks the OpenAI API.",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": prefix or "/"}],
        "security": [{"bearer": []}],
        "paths": dict(paths),
        "components": {
            "schemas": schemas,
            "examples": examples,
            "responses": {code: _response({code: known[code]}) for code in known},
            "headers": {
                name: {"description": says, "schema": {"type": "string"}}
                for name, says in parameters.HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The gateway's token or password, or a token of "
                    "one's own; the roles of an operation are the scopes it takes.",
                }
            },
        },
    }


@lru_cache(maxsize=4)
def encoded(prefix: str) -> bytes:
    """Return the document as JSON; made once, because anybody may ask for it."""
    return orjson.dumps(openapi(prefix=prefix))


def _schemas() -> Iterator[str]:
    """Yield the names of the schemas that routes name."""
    yield _ERROR
    for route in ROUTES:
        if route.body:
            yield route.body
        for answer in route.answers.values():
            for given in answer.content.values():
                if isinstance(given, Stream):
                    yield from given.data
                elif isinstance(given, str):
                    yield given


def _operation(
    route: Route, verb: str, known: dict[str, Fault], examples: dict[str, Any]
) -> dict[str, Any]:
    """Return what *verb* of the *route* takes and gives."""
    head = verb == "HEAD"
    found: dict[str, Any] = {
        "operationId": route.name + ("Head" if head else ""),
        "summary": "As GET, without the body." if head else route.says,
        "tags": [route.path.removeprefix("/v1").split("/")[1].partition(".")[0]],
        "parameters": [parameter.document() for parameter in route.takes],
        "responses": _responses(route, head, known, examples),
    }
    if route.action:
        found["security"] = [{"bearer": [route.action]}]
    else:
        # On the WebSocket a first frame may have the secret instead.
        found["security"] = [{"bearer": []}, {}] if route.path == "/ws" else []
    if route.body:
        found["requestBody"] = {
            "required": True,
            "content": {JSON: _media(route.body, examples)},
        }
    return found


def _responses(
    route: Route, head: bool, known: dict[str, Fault], examples: dict[str, Any]
) -> dict[str, Any]:
    """Return what a route answers, by status."""
    wrong: dict[int, dict[str | None, Fault]] = defaultdict(dict)
    wrong[400][None] = _UNREAD
    for code in _codes(route):
        wrong[known[code].status][code] = known[code]
    found = {
        str(status): _success(answer, head, examples)
        for status, answer in route.answers.items()
    }
    for status, some in sorted(wrong.items()):
        found.setdefault(str(status), _response(some, head))
    if route.name == "createRun":
        found["202"]["links"] = _LINKS
    return found


def _codes(route: Route) -> Iterator[str]:
    """Yield every code that a route can answer with."""
    yield from _ANYWHERE
    if route.action:
        yield from _WITH_SECRET
    if route.path == "/ws":
        yield "gateway_stopping"
    if route.endpoint:
        yield "endpoint_disabled"
    if route.takes:
        yield from PARAMETERS
    if route.body:
        yield from BODIES
    yield from route.errors


def _success(answer: Answer, head: bool, examples: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": answer.says,
        "headers": _headers("x-request-id", *answer.headers),
    }
    if answer.content and not head:
        found["content"] = {
            kind: _stream(given)
            if isinstance(given, Stream)
            else _media(given, examples)
            for kind, given in answer.content.items()
        }
    return found


def _response(some: dict[Any, Fault], head: bool = False) -> dict[str, Any]:
    """Return the answer with one of *some* errors, which have a status in common."""
    (status,) = {fault.status for fault in some.values()}
    says = [f"`{code}`: {fault.says}" for code, fault in some.items()]
    found: dict[str, Any] = {
        "description": "\n".join(f"- {line}" for line in says),
        "headers": _headers("x-request-id", *_HEADERS_OF.get(status, ())),
    }
    if not head:
        types = {kind: None for fault in some.values() for kind in fault.types}
        error = {"code": {"enum": list(some)}, "type": {"enum": list(types)}}
        found["content"] = {
            JSON: {
                "schema": {
                    **reference(_ERROR),
                    "properties": {"error": {"properties": error}},
                },
                "examples": {
                    str(code): {"value": example(code, fault)}
                    for code, fault in some.items()
                },
            }
        }
    return found


def _media(schema: Any, examples: dict[str, Any]) -> dict[str, Any]:
    """Return a body of *schema*, with its examples where it is a shipped one."""
    if not isinstance(schema, str):
        return {"schema": schema}
    stem = schema.replace("/", ".")
    shown = {
        name: {"$ref": f"#/components/examples/{name}"}
        for name in examples
        if name.rpartition(".")[0] == stem
    }
    return {"schema": reference(schema), "examples": shown}


def _stream(stream: Stream) -> dict[str, Any]:
    """Return a stream; the schema of its media type is that of each event in it."""
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"anyOf": [reference(name) for name in stream.data]},
    }
    if stream.end:
        data = {"anyOf": [{"const": stream.end}, data]}
    event = {"data": data, "id": {"type": "string"}, "event": {"type": "string"}}
    return {
        "schema": {
            "description": "An event of the stream.",
            "type": "object",
            "required": ["data"],
            "properties": event,
        }
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_SESSION = {"agent": "$response.body#/agent", "key": "$response.body#/session_key"}
# What can be asked about a run that was begun.
_LINKS = {
    **{
        name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
        for name in ("retrieveRun", "listRunEvents", "cancelRun")
    },
    **{
        name: {"operationId": name, "parameters": _SESSION}
        for name in ("retrieveSession", "deleteSession")
    },
    "resetSession": {"operationId": "resetSession", "requestBody": _SESSION},
}
