"""Who may come in, and from where."""

from __future__ import annotations

import pytest

from edwin.app import routes
from edwin.errors import ConfigError
from edwin.handlers.api import ApiHandler
from edwin.handlers.socket import SocketHandler
from tests.conftest import Client, chat

OPEN = {"gateway": {"auth": {"mode": "none"}}}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "127.9.9.9"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "https://localhost"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/healthz"])
async def test_auth_none_trusts_this_machine_only(make_gateway, headers, status, path):
    """Without authentication, other hosts' names and pages are refused."""
    client = Client(await make_gateway(OPEN))
    document = chat() if path.endswith("completions") else None
    response = await client.request(path, document, headers=headers, token=None)
    assert response.code == status, response.body
    if status == 403:
        assert b'"code":"forbidden"' in response.body


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "gateway",
    [
        {"bind": "0.0.0.0", "auth": {"mode": "none"}},
        {"bind": "0.0.0.0", "auth": {"mode": "none", "allowInsecure": True}},
        {"bind": "0.0.0.0", "auth": {"token": "short"}},
        {"bind": "::", "auth": {"mode": "password", "password": "short"}},
        {"auth": {"mode": "password", "password": ""}},
    ],
)
async def test_auth_a_reachable_gateway_needs_a_secret(make_gateway, gateway):
    """A gateway that others can reach does not start without a proper secret."""
    with pytest.raises(ConfigError):
        await make_gateway({"gateway": {"auth": {"token": None}, **gateway}})


def test_auth_every_route_has_it(served):
    """Every route authenticates, unless it says that it is public."""
    public = set()
    for _, handler, _ in routes(served.gateway):
        if issubclass(handler, ApiHandler):
            if handler.public:
                public.add(handler.route)
            else:
                assert handler.action, handler.route
        else:
            assert issubclass(handler, SocketHandler)
    assert public == {"/healthz", "/readyz", "/openapi.json", "/schemas/{id}"}


@pytest.mark.gen_test
async def test_auth_every_route_refuses_strangers(client):
    """A request without the secret gets 401 on every route that is not public."""
    for path, expected in [
        ("/v1/chat/completions", 401),
        ("/v1/models", 401),
        ("/v1/models/edwin", 401),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/nowhere", 404),
    ]:
        for token in (None, "wrong", ""):
            method = "POST" if path.endswith("completions") else "GET"
            answer = await client.request(path, token=token, method=method)
            assert answer.code == expected, (path, token)


@pytest.mark.gen_test
async def test_auth_an_empty_secret_opens_nothing(make_gateway):
    """An empty secret is none: the gateway makes its own."""
    client = Client(await make_gateway({"gateway": {"auth": {"token": ""}}}))
    for headers in ({"Authorization": "Bearer "}, {"Authorization": "Bearer"}, {}):
        response = await client.request("/v1/models", headers=headers, token=None)
        assert response.code == 401
