"""Principals: who may do what, what is another's, and how much each may use."""

from __future__ import annotations

import asyncio
import hashlib
import json
from itertools import product

import pytest

from edwin.auth import Authenticator, within
from edwin.config import from_document
from edwin.types import OWNER, SCOPES
from tests.conftest import Client, raw_chat

SECRET = "s" * 43

# Every route, and the scope that it takes; None: it takes none.
ROUTES = {
    ("POST", "/v1/chat/completions"): "runs:create",
    ("GET", "/v1/models"): "models:read",
    ("GET", "/v1/models/edwin"): "models:read",
    ("GET", "/v1/runs"): "runs:read",
    ("POST", "/v1/runs"): "runs:create",
    ("GET", "/v1/runs/run_x"): "runs:read",
    ("GET", "/v1/runs/run_x/events"): "runs:read",
    ("POST", "/v1/runs/run_x/cancel"): "runs:cancel",
    ("GET", "/v1/sessions"): "sessions:read",
    ("GET", "/v1/sessions/item?agent=main&key=x"): "sessions:read",
    ("DELETE", "/v1/sessions/item?agent=main&key=x"): "sessions:write",
    ("POST", "/v1/sessions/reset"): "sessions:write",
    ("GET", "/v1/tokens"): "admin",
    ("POST", "/v1/tokens"): "admin",
    ("DELETE", "/v1/tokens/x"): "admin",
    ("POST", "/v1/tokens/x/rotate"): "admin",
    ("GET", "/metrics"): "metrics:read",
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
}


def token(id: str) -> str:
    return f"edw_{id}_{SECRET}"


def named(id: str, *scopes: str, **rest) -> dict:
    """Return a principal of the configuration."""
    digest = hashlib.sha256(token(id).encode()).hexdigest()
    return {"id": id, "tokenHash": f"sha256:{digest}", "scopes": list(scopes), **rest}


def gateway(*principals: dict, **rest) -> dict:
    config = {"gateway": {"auth": {"principals": list(principals)}}}
    return config | rest


@pytest.mark.gen_test
async def test_principals_routes_and_scopes(make_gateway):
    """Each route takes the one scope that the matrix says, and no other opens it."""
    served = await make_gateway(
        gateway(*(named(scope.replace(":", "-"), scope) for scope in SCOPES))
    )
    client = Client(served)
    for ((method, path), wanted), scope in product(ROUTES.items(), SCOPES):
        answer = await client.request(
            path,
            {} if method == "POST" else None,
            method=method,
            token=token(scope.replace(":", "-")),
        )
        allowed = wanted in (None, scope)
        assert (answer.code != 403) == allowed, (method, path, scope, answer.code)
        if not allowed:
            error = json.loads(answer.body)["error"]
            assert error["code"] == "forbidden"
            assert wanted in error["message"]


def test_principals_matrix_has_every_route(served):
    """The matrix leaves no route out."""
    from edwin.app import routes

    known = {path.split("?")[0].replace("run_x", "x") for _, path in ROUTES}
    public = {"/openapi.json", "/ws"}
    for pattern, _, _ in routes(served.gateway):
        path = pattern.replace("(.+)", "x").replace("/models/x", "/models/edwin")
        path = path.replace("\\.", ".")
        if path not in public and not path.startswith("/schemas"):
            assert path in known, path


BOTH = ("runs:create", "runs:read", "runs:cancel", "sessions:read", "sessions:write")


@pytest.fixture
def pair(io_loop, make_gateway):
    """Return a gateway that Ann and Bob use."""
    return io_loop.run_sync(
        lambda: make_gateway(gateway(named("ann", *BOTH), named("bob", *BOTH)))
    )


async def listed(client: Client, path: str, who: str) -> list:
    answer = await client.request(path, token=token(who))
    assert answer.code == 200
    return json.loads(answer.body)["data"]


async def say(client: Client, who: str, text: str, **headers):
    from tests.conftest import Answer, chat

    return Answer(
        await client.request(
            "/v1/chat/completions",
            chat(text, user="same"),
            headers={name.replace("_", "-"): v for name, v in headers.items()},
            token=token(who),
        )
    )


@pytest.mark.gen_test
async def test_principals_share_nothing(pair):
    """The same user, session key and idempotency key are two of each."""
    client, upstream = Client(pair), pair.upstream
    for headers in ({}, {"x_edwin_session_key": "k"}, {"Idempotency_Key": "i"}):
        before = len(upstream.requests)
        one = await say(client, "ann", "from ann", **headers)
        two = await say(client, "bob", "from bob", **headers)
        assert (one.text, two.text) == ("from ann", "from bob")
        assert "x-edwin-replayed" not in two.headers
        assert len(upstream.requests) == before + 2
    for request in upstream.requests:
        said = {m["content"] for m in request.body["messages"]}
        assert not {"from ann", "from bob"} <= said
    for who in ("ann", "bob"):
        runs = await listed(client, "/v1/runs?limit=100", who)
        assert {run["principal"] for run in runs} == {who}
        sessions = await listed(client, "/v1/sessions", who)
        assert {session["principal"] for session in sessions} == {who}


@pytest.mark.gen_test
async def test_principals_cannot_see_or_end_anothers(pair):
    """Another's run or session is not there: 404, and not 403."""
    client = Client(pair)
    pair.upstream.hang(["half"], then=["done"])
    running = asyncio.ensure_future(say(client, "ann", "go", x_edwin_session_key="k"))
    await pair.upstream.arrival()
    (run,) = await listed(client, "/v1/runs", "ann")
    item = "/v1/sessions/item?agent=main&key=k&principal=ann"
    for method, path in (
        ("GET", f"/v1/runs/{run['id']}"),
        ("GET", f"/v1/runs/{run['id']}/events"),
        ("POST", f"/v1/runs/{run['id']}/cancel"),
        ("GET", item),
        ("DELETE", item),
    ):
        answer = await client.request(
            path, {} if method == "POST" else None, method=method, token=token("bob")
        )
        assert answer.code == 404, (method, path)
    # Nor is anybody kept waiting.
    assert (await say(client, "bob", "quick", x_edwin_session_key="k")).text == "quick"
    pair.upstream.release()
    assert (await running).text == "halfdone"


@pytest.mark.gen_test
async def test_principals_owner_sees_all(pair):
    """The owner sees and ends what anybody has."""
    client = Client(pair)
    await say(client, "ann", "hello", x_edwin_session_key="k")
    listed = json.loads((await client.request("/v1/runs")).body)["data"]
    assert listed[0]["principal"] == "ann"
    path = "/v1/sessions/item?agent=main&key=k&principal=ann"
    found = json.loads((await client.request(path)).body)
    assert [e["message"]["content"] for e in found["data"]] == ["hello", "hello"]
    assert (await client.request(path, method="DELETE")).code == 200


AGENTS = {
    "agents": {
        "list": [
            {"id": "main"},
            {"id": "second"},
            {"id": "third", "model": "other/x", "fallbacks": ["upstream/y"]},
        ]
    }
}


@pytest.mark.gen_test
async def test_principals_agents_and_models(make_gateway, upstream):
    """A principal has the agents and models it was given, and lists no other."""
    scopes = ("runs:create", "models:read")
    provider = {"api": "openai-completions", "baseUrl": upstream.url, "retries": 0}
    served = await make_gateway(
        gateway(
            named("a", *scopes, agents=["Second"]),
            named("b", *scopes, models=["other/*"]),
            **AGENTS,
            models={"providers": {"other": provider}},
        )
    )
    client = Client(served)
    for who, agents in (("a", {"second"}), ("b", {"third"})):
        names = {m["id"] for m in await listed(client, "/v1/models", who)}
        assert names == {"edwin", *(f"edwin:{agent}" for agent in agents)}
        for agent in ("main", "second", "third"):
            answer = await client.request(
                "/v1/chat/completions",
                {
                    "model": f"edwin:{agent}",
                    "messages": [{"role": "user", "content": "x"}],
                },
                token=token(who),
            )
            assert answer.code == (200 if agent in agents else 403), (who, agent)


@pytest.mark.gen_test
async def test_principals_fallbacks_that_do_not_fit(make_gateway, upstream):
    """A model that a principal may not use does not answer it by a fallback either."""
    provider = {"api": "openai-completions", "baseUrl": upstream.url, "retries": 0}
    served = await make_gateway(
        gateway(
            named("b", "runs:create", models=["other/*"]),
            **AGENTS,
            models={"providers": {"other": provider}},
        )
    )
    upstream.fail(status=500)
    answer = await Client(served).request(
        "/v1/chat/completions",
        {"model": "edwin:third", "messages": [{"role": "user", "content": "x"}]},
        token=token("b"),
    )
    assert answer.code == 502
    assert not served.upstream.requests


@pytest.mark.parametrize(
    ("tools", "left"),
    [
        (None, {"papers_read_text", "papers_list", "clock"}),
        (["papers_*"], {"papers_read_text", "papers_list"}),
        (["*_text", "clock"], {"papers_read_text", "clock"}),
        (["*"], {"papers_read_text", "papers_list", "clock"}),
        (["papers_write_text", "Clock"], set()),
        ([], set()),
    ],
)
@pytest.mark.parametrize("proxied", [False, True])
def test_principals_tools(tools, left, proxied):
    """A principal narrows an agent's tools by its patterns, and never widens them."""
    given = {} if tools is None else {"tools": tools}
    access = {"allow": ["papers_*", "clock"], "deny": ["papers_write_*"]}
    auth = {"principals": [named("a", "runs:create", **given)]}
    if proxied:
        auth = {"mode": "trusted-proxy", "proxyPrincipal": given}
    agent = {"id": "main", "permissions": {"tools": access}}
    trusted = {"trustedProxies": ["10.0.0.1/32"]} if proxied else {}
    config = from_document(
        {"gateway": {"auth": auth, **trusted}, "agents": {"list": [agent]}}
    )
    known = Authenticator(
        config.gateway.auth, token="another", proxies=config.gateway.trusted_proxies
    )
    headers = {
        "Authorization": f"Bearer {token('a')}",
        "X-Forwarded-User": "ann",
    }
    principal, _ = known.by_headers(headers, "10.0.0.9", peer="10.0.0.1")
    offered = ("papers_read_text", "papers_write_text", "papers_list", "clock", "shell")
    main = config.agents["main"]
    permits = within(principal, main).tool_access.permits
    assert {name for name in offered if permits(name)} == left
    assert within(OWNER, main) is main
    assert within(principal, main).fallbacks == main.fallbacks


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "secret",
    [
        "edw_ann_" + "x" * 43,
        "edw_nobody_" + SECRET,
        "edw_ann",
        "edw__" + SECRET,
        "edw_",
    ],
)
async def test_principals_wrong_tokens(pair, secret):
    """A token of nobody's is 401, however much of it is right."""
    answer = await Client(pair).request("/v1/runs", token=secret)
    assert answer.code == 401


@pytest.mark.gen_test
async def test_principals_expire(make_gateway):
    """From its day on a principal is nobody."""
    served = await make_gateway(
        gateway(
            named("old", "runs:read", expiresAt="2020-01-31"),
            named("new", "runs:read", expiresAt="2199-01-31T12:00:00Z"),
        )
    )
    client = Client(served)
    assert (await client.request("/v1/runs", token=token("old"))).code == 401
    assert (await client.request("/v1/runs", token=token("new"))).code == 200


@pytest.mark.gen_test
async def test_principals_requests_per_minute(make_gateway):
    """Requests above the limit are 429, with OpenAI's code and headers."""
    limits = {"requestsPerMinute": 2}
    served = await make_gateway(gateway(named("ann", "runs:create", limits=limits)))
    client = Client(served)
    one = await say(client, "ann", "one")
    assert one.headers["x-ratelimit-limit-requests"] == "2"
    assert one.headers["x-ratelimit-remaining-requests"] == "1"
    assert float(one.headers["x-ratelimit-reset-requests"].rstrip("s")) > 0
    await say(client, "ann", "two")
    refused = await say(client, "ann", "three")
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert len(served.upstream.requests) == 2


@pytest.mark.gen_test
async def test_principals_concurrent_runs(make_gateway):
    """Runs above the limit are 429; a place is free when a run has ended."""
    limits = {"concurrentRuns": 1}
    served = await make_gateway(gateway(named("ann", "runs:create", limits=limits)))
    client = Client(served)
    served.upstream.hang(then=["done"])
    first = asyncio.ensure_future(say(client, "ann", "one"))
    await served.upstream.arrival()
    assert (await say(client, "ann", "two")).status == 429
    served.upstream.release()
    await first
    assert (await say(client, "ann", "three")).status == 200


@pytest.mark.gen_test
async def test_principals_place_is_given_back(make_gateway, connect):
    """A run that was refused, or whose client left, leaves its place."""
    served = await make_gateway(
        gateway(
            named("ann", "runs:create", limits={"concurrentRuns": 1}),
            agents={"list": [{"id": "main", "contextTokens": 10}]},
        )
    )
    client = Client(served)
    assert (await say(client, "ann", "x" * 500)).status == 400
    served.upstream.hang(["half"])
    data = raw_chat("go", stream=True)
    from edwin.testing.gateway import TOKEN

    left = await connect(served, data.replace(TOKEN.encode(), token("ann").encode()))
    await left.until(b"half")
    await left.close()
    while served.gateway.engine.live():
        await asyncio.sleep(0.01)
    assert (await say(client, "ann", "two")).status == 200


@pytest.mark.gen_test
async def test_principals_tokens_per_day(make_gateway, tmp_path, upstream):
    """Tokens are counted as they were used, and known after a restart."""
    config = gateway(named("ann", "runs:create", limits={"tokensPerDay": 40}))
    served = await make_gateway(config, state_dir=tmp_path / "s", upstream=upstream)
    client = Client(served)
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    upstream.reply("one", usage=usage)
    upstream.reply("two", usage=usage)
    one = await say(client, "ann", "one")
    assert one.headers["x-ratelimit-limit-tokens"] == "40"
    two = await say(client, "ann", "two")
    assert (one.status, two.status) == (200, 200)
    refused = await say(client, "ann", "three")
    assert (refused.status, refused.error["type"]) == (429, "tokens")
    assert refused.headers["x-should-retry"] == "false"
    await served.stop()
    served = await make_gateway(config, state_dir=tmp_path / "s", upstream=upstream)
    assert (await say(Client(served), "ann", "four")).status == 429
    assert len(upstream.requests) == 2


@pytest.mark.gen_test
async def test_principals_tokens_at_the_edge(make_gateway):
    """Of 100 parallel calls at the edge, those under way overshoot by one each."""
    limits = {"tokensPerDay": 500}
    served = await make_gateway(gateway(named("ann", "runs:create", limits=limits)))
    client = Client(served)
    usage = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}
    for _ in range(100):
        served.upstream.reply("x", usage=usage)
    from tests.conftest import chat

    text = "x" * 160
    answers = await asyncio.gather(
        *(
            client.request("/v1/chat/completions", chat(text), token=token("ann"))
            for _ in range(100)
        )
    )
    done = sum(answer.code == 200 for answer in answers)
    assert {answer.code for answer in answers} == {200, 429}
    assert 10 <= done <= 13
