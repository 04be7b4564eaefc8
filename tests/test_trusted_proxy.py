"""Mode trusted-proxy: the user is who a trusted proxy says, and nobody else's word."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Client, chat
from tests.test_principals import named, token


def behind(*networks: str, **auth) -> dict:
    return {
        "gateway": {
            "trustedProxies": list(networks),
            "auth": {"mode": "trusted-proxy", "token": "", **auth},
        }
    }


ANN = named("ann", "admin")


async def ask(client: Client, path: str = "/v1/models", document=None, **headers):
    return await client.request(path, document, headers=headers, token=None)


@pytest.mark.gen_test
async def test_proxy_names_the_user(make_gateway):
    """Each user is a principal of its own, with the rights of all users."""
    served = await make_gateway(behind("127.0.0.0/8"))
    client = Client(served)
    for user in ("ann", "bob"):
        said = chat(f"I am {user}", user="same")
        path = "/v1/chat/completions"
        answer = await ask(client, path, said, **{"X-Forwarded-User": user})
        assert answer.code == 200
    assert [m["content"] for m in served.upstream.requests[-1].body["messages"]] == [
        "I am bob"
    ]
    runs = json.loads(
        (await ask(client, "/v1/runs", **{"X-Forwarded-User": "ann"})).body
    )["data"]
    assert [run["principal"] for run in runs] == ["proxy:ann"]
    tokens = await ask(client, "/v1/tokens", **{"X-Forwarded-User": "ann"})
    assert tokens.code == 403


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-User": ""},
        {"X-Forwarded-User": "a b"},
        {"X-Forwarded-User": "x" * 201},
        {"Authorization": "Bearer " + token("ann")},
    ],
    ids=["none", "empty", "blank", "long", "token"],
)
async def test_proxy_without_a_name(make_gateway, headers):
    """A request without the header, or with a name that is none, is 401."""
    served = await make_gateway(
        behind("127.0.0.0/8", principals=[named("ann", "models:read")])
    )
    assert (await ask(Client(served), **headers)).code == 401


@pytest.mark.gen_test
@pytest.mark.parametrize("forwarded", [None, "10.0.0.1"])
async def test_proxy_that_is_not_trusted(make_gateway, forwarded):
    """From anybody else the header is worth nothing, whatever else he says."""
    served = await make_gateway(behind("10.0.0.0/8"))
    headers = {"X-Forwarded-User": "ann"}
    if forwarded:
        headers["X-Forwarded-For"] = forwarded
    assert (await ask(Client(served), **headers)).code == 401


@pytest.mark.gen_test
@pytest.mark.parametrize("user", ["owner", "ann", "proxy:ann"])
async def test_proxy_never_names_another_principal(make_gateway, user):
    """A user called like a principal is not that principal."""
    served = await make_gateway(behind("127.0.0.0/8", principals=[ANN]))
    client = Client(served)
    assert (await ask(client, "/v1/tokens", **{"X-Forwarded-User": user})).code == 403
    await ask(client, "/v1/chat/completions", chat("x"), **{"X-Forwarded-User": user})
    (run,) = served.gateway.engine.live() or [None]
    assert run is None
    runs = json.loads(
        (await ask(client, "/v1/runs", **{"X-Forwarded-User": user})).body
    )["data"]
    assert {run["principal"] for run in runs} <= {f"proxy:{user}"}


@pytest.mark.gen_test
async def test_proxy_rights_and_limits(make_gateway):
    """Scopes and limits of all users hold for each by itself."""
    served = await make_gateway(
        behind(
            "127.0.0.0/8",
            userHeader="X-Auth-Email",
            proxyPrincipal={
                "scopes": ["runs:create"],
                "limits": {"requestsPerMinute": 1},
            },
        )
    )
    client = Client(served)
    path = "/v1/chat/completions"
    codes = [
        (await ask(client, path, chat("x"), **{"X-Auth-Email": user})).code
        for user in ("a@x", "a@x", "b@x")
    ]
    assert codes == [200, 429, 200]
    assert (await ask(client, **{"X-Auth-Email": "c@x"})).code == 403
