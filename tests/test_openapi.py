"""The published contract: complete, standing alone, and true to the code."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from edwin import ledger, resources
from edwin.app import mount, routes
from edwin.gateway import Gateway
from edwin.handlers import query
from edwin.handlers.socket import PROTOCOL
from edwin.openapi import ROUTES, openapi
from edwin.openapi.components import reference
from edwin.openapi.faults import faults
from edwin.openapi.parameters import HEADERS
from edwin.validate import names, oracle, retrieve
from tests.process import ROOT
from tests.test_docs import raised
from tests.test_schemas import nodes

DOCUMENT = openapi()
SERVED = {
    path.replace("(.+)", "{id}").replace("\\", ""): handler
    for path, handler, _ in routes(Gateway({}))
}
# A browser's question, no operation.
PREFLIGHT = "OPTIONS"


def resolved(node: Any) -> Any:
    """Return *node*, or what it refers to."""
    while "$ref" in node and len(node) == 1:
        found = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def verbs(handler: type[RequestHandler]) -> set[str]:
    """Return the methods that *handler* answers."""
    return {
        verb
        for verb in RequestHandler.SUPPORTED_METHODS
        if verb != PREFLIGHT
        and getattr(handler, verb.lower()) is not RequestHandler._unimplemented_method
    }


def operations():
    """Yield every operation with its path and method."""
    for path, item in DOCUMENT["paths"].items():
        for verb, operation in item.items():
            yield path, verb.upper(), operation


def test_openapi_has_every_route_and_verb():
    """Every route and every method of it is in the document, and no other."""
    shown: dict[str, set[str]] = {}
    for path, verb, _ in operations():
        shown.setdefault(path, set()).add(verb)
    assert shown == {path: verbs(handler) for path, handler in SERVED.items()}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_openapi_says_who_may(route):
    """What a route takes of a principal is what its handler asks for."""
    handler = SERVED[route.path]
    if route.path == "/ws":
        return
    assert handler.public == (route.action is None)
    # Those that decide by the method are asked in tests of their own.
    if "admit" not in vars(handler):
        assert handler.action == route.action
        assert handler.schema == route.body
        assert (handler.endpoint is not None) == route.endpoint


def test_openapi_has_every_code():
    """Every error has its code, status and types in the document."""
    assert {
        code: (fault.status, fault.types[0]) for code, fault in faults().items()
    } == raised()
    told = {
        code
        for _, verb, operation in operations()
        if verb != "HEAD"
        for status, response in operation["responses"].items()
        if status >= "400" and operation["operationId"] != "ready"
        for code in response["content"]["application/json"]["examples"]
    } - {"None"}
    # No operation has these: there is none.
    assert set(raised()) - told == {"method_not_allowed"}
    assert set(DOCUMENT["components"]["responses"]) == set(raised())


def test_openapi_stands_alone():
    """Every reference leads to a place in the document, by a name tools take."""
    found = list(nodes(DOCUMENT))
    references = {node["$ref"] for node in found if isinstance(node.get("$ref"), str)}
    assert len(references) > 30
    for pointer in references:
        assert isinstance(resolved({"$ref": pointer}), dict)
    for kind in DOCUMENT["components"].values():
        for name in kind:
            assert set(name) <= set(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
            )


def test_openapi_says_the_same_as_the_schemas():
    """A component gives the same verdicts as the schema that it is made of."""
    for name in ("openai/chat_completion_request", "runs/event", "runs/run"):
        validator = jsonschema.Draft202012Validator(
            {**reference(name), "components": DOCUMENT["components"]}
        )
        theirs = oracle(name)
        for example in retrieve(f"edwin:{name}")["examples"]:
            assert validator.is_valid(example)
            for field in example:
                damaged = {**example, field: ["x"]}
                assert validator.is_valid(damaged) == theirs.is_valid(damaged)
                damaged = {k: v for k, v in example.items() if k != field}
                assert validator.is_valid(damaged) == theirs.is_valid(damaged)


def test_openapi_examples_are_valid():
    """Each example of a body is valid under the schema beside it."""
    count = 0
    for _, _, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media in body.get("content", {}).values():
                validator = jsonschema.Draft202012Validator(
                    {**media["schema"], "components": DOCUMENT["components"]}
                )
                for example in media.get("examples", {}).values():
                    validator.validate(resolved(example)["value"])
                    count += 1
    assert count > 100


def test_openapi_parameters_are_those_of_the_code():
    """Limits and choices of parameters are what the handlers go by."""
    taken = {p.name: p.schema for route in ROUTES for p in route.takes}
    assert tuple(taken["state"]["enum"]) == ledger.STATES
    assert (taken["limit"]["minimum"], taken["limit"]["maximum"]) == (
        1,
        query.MAX_LIMIT,
    )


def test_openapi_has_every_parameter_of_a_url():
    """What handlers read of a query is in the document, and nothing else."""
    read: dict[str, set[str]] = {}
    told: dict[str, set[str]] = {}
    for route in ROUTES:
        module = SERVED[route.path].__module__
        names = {p.name for p in route.takes if p.place == "query"}
        told.setdefault(module, set()).update(names)
        tree = ast.parse(Path(sys.modules[module].__file__).read_text("utf-8"))
        read[module] = {
            call.func.attr if call.func.attr == "limit" else call.args[1].value
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and ast.unparse(call.func).startswith("query.")
            and call.func.attr != "whole"
        }
    assert told == read


def test_openapi_names_headers_of_the_docs():
    """Every header of a request or an answer in it is one that the docs explain."""
    api = (ROOT / "docs" / "api.md").read_text("utf-8").lower()
    taken = {p.name for r in ROUTES for p in r.takes if p.place == "header"}
    for name in (*HEADERS, *taken):
        named = re.sub("-(requests|tokens)$", "", name.lower())
        assert f"`{named}" in api, name


def test_openapi_stability_page_names_the_protocol():
    """The page on what is stable has the WebSocket's number."""
    page = (ROOT / "docs" / "stability.md").read_text("utf-8")
    assert f"close codes of protocol {PROTOCOL}" in page
    assert f"`protocol`, a number; today it is {PROTOCOL}." in page


@pytest.mark.gen_test
async def test_openapi_is_served_to_everybody(client):
    """``/openapi.json`` and the schemas need no secret, and hold none."""
    answer = await client.request("/openapi.json", token=None)
    assert answer.code == 200
    assert json.loads(answer.body) == DOCUMENT
    for name in names():
        answer = await client.request(f"/schemas/{name}.json", token=None)
        assert answer.code == 200
        assert answer.headers["Content-Type"] == "application/schema+json"
        assert answer.body == resources.read("schemas", f"{name}.json")
    quoted = await client.request("/schemas/runs%2Frun.json", token=None)
    assert json.loads(quoted.body)["$id"] == "edwin:runs/run"
    head = await client.request("/openapi.json", method="HEAD")
    assert (head.code, head.body) == (200, b"")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path",
    [
        *("runs/run", "runs/none.json", "run.json", "runs/", "../setup.py"),
        *("..%2Fsetup.py", "__init__.py", "runs/../runs/run.json", "%00.json"),
    ],
)
async def test_openapi_unknown_schema(connect, client, path):
    """What is no schema is no URL, and no file is read for it."""
    head = f"GET /schemas/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await (await connect(client.served, head.encode())).until(b'"code"')
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"unknown_url" in answer


@pytest.mark.gen_test
async def test_openapi_names_its_prefix(served, client):
    """Mounted under a prefix, the document says so."""
    host = Application()
    mount(host, served.gateway, "/ai")
    listening, port = bind_unused_port()
    server = HTTPServer(host)
    server.add_sockets([listening])
    shown = json.loads((await client.request("/openapi.json")).body)
    assert shown["servers"] == [{"url": "/"}]
    client.served.url = f"http://127.0.0.1:{port}/ai"
    shown = json.loads((await client.request("/openapi.json")).body)
    assert shown == {**DOCUMENT, "servers": [{"url": "/ai"}]}
    server.stop()
    await server.close_all_connections()
