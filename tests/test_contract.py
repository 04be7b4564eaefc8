"""The contract of the endpoint, line by line."""

from __future__ import annotations

import json
import subprocess

import pytest

from edwin.config import load
from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas
from tests.conftest import Client, chat

SCHEMAS = Schemas()
KEY, AGENT = "x-edwin-session-key", "x-edwin-agent-id"
SNIPPET = (
    """{ gateway: { http: { endpoints: { chatCompletions: { enabled: %s }, }, }, }, }"""
)
INDENTED = """{
  gateway: {
    http: {
      endpoints: {
        chatCompletions: { enabled: %s },
      },
    },
  },
}
"""
BETA = {"agents": {"list": [{"id": "main"}, {"id": "Beta", "aliases": ["gpt-4o"]}]}}


async def model_read(client: Client) -> list[str]:
    return [m["content"] for m in client.served.upstream.requests[-1].body["messages"]]


def check(answer, status: int, code: str | None, param: str | None) -> None:
    """Hold an error against the one envelope."""
    SCHEMAS.check("openai/error", answer.json)
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.gen_test
async def test_contract_http_and_websocket_share_the_port(client):
    """POST /v1/chat/completions and the WebSocket are on the gateway's one port."""
    import aiohttp

    assert (await client.chat()).status == 200
    auth = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=auth) as session,
        session.ws_connect(client.served.url + "/ws") as socket,
    ):
        await socket.send_json(
            {"type": "req", "id": "1", "method": "connect", "params": {}}
        )
        assert (await socket.receive_json())["ok"] is True


def test_contract_default_port(tmp_path):
    """The default port is 18789, on loopback."""
    config = load(None, environ={}, cwd=tmp_path)
    assert (config.gateway.bind, config.gateway.port) == ("127.0.0.1", 18789)


@pytest.mark.parametrize("text", [SNIPPET, INDENTED, INDENTED.replace("  ", "\t")])
@pytest.mark.parametrize("value", [True, False])
def test_contract_documented_configuration_loads(tmp_path, text, value):
    """The documented configuration loads as it stands, indented, and with tabs."""
    path = tmp_path / "edwin.yaml"
    path.write_text(text % str(value).lower())
    config = load(path, environ={})
    assert config.gateway.http.endpoints.chat_completions.enabled is value


def test_contract_disabled_by_default(tmp_path):
    """The endpoint is off until it is turned on."""
    config = load(None, environ={}, cwd=tmp_path)
    assert config.gateway.http.endpoints.chat_completions.enabled is False


@pytest.mark.gen_test
async def test_contract_off(make_gateway):
    """Off: 401 first, then 404 that names the key; health and the socket stay."""
    off = {"http": {"endpoints": {"chatCompletions": {"enabled": False}}}}
    client = Client(await make_gateway({"gateway": off}))
    assert (await client.request("/v1/models", token="wrong")).code == 401
    answer = await client.chat()
    check(answer, 404, "endpoint_disabled", None)
    key = "gateway.http.endpoints.chatCompletions.enabled"
    assert key in answer.error["message"]
    for path, status in [
        ("/v1/models", 404),
        ("/v1/models/edwin", 404),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/ws", 426),
    ]:
        assert (await client.request(path)).code == status


@pytest.mark.gen_test
@pytest.mark.parametrize("mode", ["token", "password"])
async def test_contract_bearer(make_gateway, mode):
    """``Authorization: Bearer`` carries the token, or the password."""
    secret = {"token": "tökens-of-oursà", "password": "Ångström of oursÅ"}[mode]
    auth = {"mode": mode, mode: secret}
    client = Client(await make_gateway({"gateway": {"auth": auth}}))
    right = secret
    for value, status in [
        (f"Bearer {right}", 200),
        (f"bearer {right}", 200),
        (f"Bearer {right}x", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {right}", 401),
        (right, 401),
        ("Bearer \xff", 401),
        (None, 401),
    ]:
        headers = {} if value is None else {"Authorization": value}
        response = await client.request("/v1/models", headers=headers, token=None)
        assert response.code == status, value
        if status == 401:
            error = json.loads(response.body)["error"]
            assert (error["code"], error["type"], error["param"]) == (
                "invalid_api_key",
                "invalid_request_error",
                None,
            )
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert right not in error["message"]


@pytest.mark.gen_test
async def test_contract_two_authorization_headers(client, connect):
    """Two Authorization headers are refused, though one of them is right."""
    lines = f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"
    request = f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{lines}\r\n"
    answer = await connect(client.served, request.encode())
    assert b"401" in (await answer.until(b"\r\n\r\n")).split(b"\r\n")[0]


@pytest.mark.gen_test
async def test_contract_auth_comes_before_the_body(client, connect):
    """Who is not known is refused before a byte of the body is read."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        "Authorization: Bearer wrong\r\nContent-Length: 1000\r\n\r\n"
    )
    answer = await connect(client.served, head.encode())
    assert b"401" in (await answer.until(b"invalid_api_key")).split(b"\r\n")[0]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("model", "header", "agent"),
    [
        ("edwin", None, "main"),
        ("edwin:main", None, "main"),
        ("edwin:beta", None, "beta"),
        ("edwin/beta", None, "beta"),
        ("edwin:BETA", None, "beta"),
        ("agent:beta", None, "beta"),
        ("gpt-4o", None, "beta"),
        ("edwin", "beta", "beta"),
        ("edwin", "BETA", "beta"),
        ("edwin", "", "main"),
        ("edwin:main", "beta", "beta"),
        ("anything at all", "beta", "beta"),
        (None, "beta", "beta"),
    ],
)
async def test_contract_agent(make_gateway, model, header, agent):
    """The agent comes from ``model`` or from the header, which wins; ids any case."""
    client = Client(await make_gateway(BETA))
    headers = {} if header is None else {AGENT: header}
    document = chat()
    if model is None:
        del document["model"]
    else:
        document["model"] = model
    response = await client.request("/v1/chat/completions", document, headers=headers)
    assert response.code == 200, response.body
    assert response.headers[AGENT] == agent
    assert json.loads(response.body)["model"] == (model or f"edwin:{agent}")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("model", "header", "status", "code", "param"),
    [
        ("edwin:nobody", None, 404, "model_not_found", "model"),
        ("GPT-4o", None, 404, "model_not_found", "model"),
        ("Edwin", None, 404, "model_not_found", "model"),
        ("edwin:", None, 404, "model_not_found", "model"),
        ("", None, 400, "missing_required_parameter", "model"),
        ("edwin", "nobody", 404, "agent_not_found", AGENT),
        ("edwin", "a b", 400, "invalid_value", AGENT),
        ("edwin", "-a", 400, "invalid_value", AGENT),
        ("edwin", "a" * 65, 400, "invalid_value", AGENT),
    ],
)
async def test_contract_agent_unknown(make_gateway, model, header, status, code, param):
    """Who asks for nobody is told so, by the field that does."""
    client = Client(await make_gateway(BETA))
    headers = {} if header is None else {AGENT: header}
    check(await client.chat(model=model, headers=headers), status, code, param)


@pytest.mark.gen_test
async def test_contract_model_is_missing(client):
    """Without the header, ``model`` is required."""
    document = chat()
    del document["model"]
    response = await client.request("/v1/chat/completions", document)
    error = json.loads(response.body)["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


@pytest.mark.gen_test
@pytest.mark.parametrize("header", [AGENT, KEY])
async def test_contract_header_sent_twice(client, header):
    """A routing header that is sent twice is refused."""
    from multidict import CIMultiDict

    headers = CIMultiDict([(header, "main"), (header, "main")])
    check(await client.chat(headers=headers), 400, "invalid_value", header)


@pytest.mark.gen_test
async def test_contract_session_key(make_gateway):
    """``x-edwin-session-key`` fully controls the session, and wins over ``user``."""
    client = Client(await make_gateway(BETA))
    key = "my/own-key:~!"
    one = await client.chat("1", headers={KEY: key}, user="ann")
    assert one.headers[KEY] == key
    await client.chat("2", headers={KEY: key}, user="bob")
    assert await model_read(client) == ["1", "1", "2"]
    await client.chat("3", user="ann")
    assert await model_read(client) == ["3"]
    # Another agent's session of the same key is another session.
    other = await client.chat("4", headers={KEY: key, AGENT: "beta"})
    assert (other.headers[KEY], await model_read(client)) == (key, ["4"])


@pytest.mark.gen_test
@pytest.mark.parametrize("key", ["", "a b", "x" * 513, "é", "tab\there"])
async def test_contract_session_key_malformed(client, key):
    """A session key is 1 to 512 printable ASCII characters."""
    check(await client.chat(headers={KEY: key}), 400, "invalid_value", KEY)


@pytest.mark.gen_test
async def test_contract_session_key_names_an_agent(make_gateway):
    """A key ``agent:<id>:…`` selects that agent, and never contradicts the request."""
    client = Client(await make_gateway(BETA))
    key = {KEY: "agent:beta:chat-1"}
    assert (await client.chat(headers=key)).headers[AGENT] == "beta"
    answer = await client.chat(headers=key, model="edwin:beta")
    assert answer.headers[AGENT] == "beta"
    for given in ({"model": "edwin:main"}, {"headers": {**key, AGENT: "main"}}):
        answer = await client.chat(**{"headers": key, **given})
        check(answer, 400, "session_agent_mismatch", KEY)
    answer = await client.chat(headers={KEY: "agent:nobody:x"})
    check(answer, 404, "agent_not_found", KEY)


@pytest.mark.gen_test
async def test_contract_stateless_without_user(client):
    """Without ``user`` each call has a fresh session key."""
    keys = {(await client.chat("hi")).headers[KEY] for _ in range(3)}
    assert len(keys) == 3
    assert all(key.startswith("agent:main:openai:") for key in keys)
    assert await model_read(client) == ["hi"]


@pytest.mark.gen_test
@pytest.mark.parametrize("user", [None, "", "   ", "\t"])
async def test_contract_blank_user_is_no_user(client, user):
    """A null or blank ``user`` is as none."""
    await client.chat("one", user=user)
    answer = await client.chat("two", user=user)
    assert answer.headers[KEY].startswith("agent:main:openai:")
    assert await model_read(client) == ["two"]


@pytest.mark.gen_test
async def test_contract_user_is_a_session(client):
    """With ``user``, repeated calls share a session, under a stable key."""
    one = await client.chat("one", user="ann")
    two = await client.chat("two", user="ann")
    assert one.headers[KEY] == two.headers[KEY]
    assert one.headers[KEY].startswith("agent:main:openai-user:")
    assert await model_read(client) == ["one", "one", "two"]
    assert (await client.chat("x", user="u" * 4096)).status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("u" * 4097, "string_above_max_length"),
        (7, "invalid_type"),
        ({"id": "x"}, "invalid_type"),
        (["x"], "invalid_type"),
        (True, "invalid_type"),
    ],
)
async def test_contract_user_malformed(client, user, code):
    """``user`` is a string of at most 4,096 characters."""
    check(await client.chat(user=user), 400, code, "user")


@pytest.mark.gen_test
async def test_contract_user_is_never_sent_on(client):
    """The provider does not see ``user``, unless an agent passes it through."""
    await client.chat(user="ann", safety_identifier="x", metadata={"a": "b"}, top_k=4)
    body = client.served.upstream.requests[-1].body
    assert set(body) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.gen_test
async def test_contract_passthrough(make_gateway):
    """Unknown fields are dropped, unless the agent passes them through."""
    agent = {"id": "main", "passthrough": ["top_k", "user"]}
    client = Client(await make_gateway({"agents": {"list": [agent]}}))
    await client.chat(user="ann", top_k=4, min_p=0.1)
    body = client.served.upstream.requests[-1].body
    assert (body["top_k"], body["user"], "min_p" in body) == (4, "ann", False)


@pytest.mark.gen_test
@pytest.mark.parametrize("per_agent", [True, False])
async def test_contract_session_from_user_off(make_gateway, per_agent):
    """``sessionFromUser: false`` turns the derivation off, everywhere or per agent."""
    off = {"sessionFromUser": False}
    config = (
        {"agents": {"list": [{"id": "main", **off}]}}
        if per_agent
        else {"gateway": {"http": {"endpoints": {"chatCompletions": off}}}}
    )
    client = Client(await make_gateway(config))
    await client.chat("one", user="ann")
    await client.chat("two", user="ann")
    assert await model_read(client) == ["two"]


@pytest.mark.gen_test
async def test_contract_session_headers(make_gateway):
    """Further headers give a session key, after the own one and before ``user``."""
    names = {"sessionHeaders": ["X-OpenWebUI-Chat-Id"]}
    endpoints = {"endpoints": {"chatCompletions": names}}
    client = Client(await make_gateway({"gateway": {"http": endpoints}}))
    chat_id = {"x-openwebui-chat-id": "chat-1"}
    one = await client.chat("one", headers=chat_id, user="ann")
    assert one.headers[KEY] == "chat-1"
    await client.chat("two", headers=chat_id, user="bob")
    assert await model_read(client) == ["one", "one", "two"]
    both = await client.chat("three", headers={**chat_id, KEY: "own"})
    assert both.headers[KEY] == "own"
    bad = await client.chat("four", headers={"x-openwebui-chat-id": "a b"})
    check(bad, 400, "invalid_value", "x-openwebui-chat-id")


@pytest.mark.gen_test
async def test_contract_params_and_caps(make_gateway):
    """An agent's params lie under the request's, and its caps are not exceeded."""
    agent = {
        "id": "main",
        "params": {"temperature": 0.1, "max_tokens": 50},
        "caps": {"maxOutputTokens": 100},
    }
    client = Client(await make_gateway({"agents": {"list": [agent]}}))
    for given, sent in [
        ({}, {"temperature": 0.1, "max_tokens": 50}),
        ({"temperature": 1}, {"temperature": 1, "max_tokens": 50}),
        ({"max_tokens": 500}, {"temperature": 0.1, "max_tokens": 100}),
        (
            {"max_completion_tokens": 7},
            {"temperature": 0.1, "max_completion_tokens": 7},
        ),
        (
            {"max_completion_tokens": 700, "stop": ["x"], "seed": None},
            {"temperature": 0.1, "max_completion_tokens": 100, "stop": ["x"]},
        ),
    ]:
        await client.chat(**given)
        body = dict(client.served.upstream.requests[-1].body)
        for name in ("model", "messages", "stream", "stream_options"):
            del body[name]
        assert body == sent


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
    ],
)
async def test_contract_refused_fields(client, fields, param):
    """What Edwin does not do is refused, by the field that asks for it."""
    check(await client.chat(**fields), 400, "unsupported_value", param)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"modalities": ["text"]},
        {"audio": None, "functions": None},
        {"service_tier": "auto", "store": False, "metadata": None},
        {"stream_options": {"include_usage": True}},
        {"chat_template_kwargs": {"a": 1}, "num_ctx": 5},
    ],
)
async def test_contract_harmless_fields(client, fields):
    """Fields that ask for nothing special do not fail a call."""
    assert (await client.chat(**fields)).status == 200


@pytest.mark.gen_test
async def test_contract_ids_on_every_answer(client):
    """Every answer, errors included, has x-request-id, and each its own."""
    ids = {
        (await client.chat(*messages, **fields)).headers["x-request-id"]
        for messages, fields in [
            ((), {}),
            ((), {"stream": True}),
            ((), {"model": "nobody"}),
            ((), {"messages": []}),
        ]
    }
    for path in ("/nowhere", "/healthz", "/v1/models"):
        ids.add((await client.request(path)).headers["x-request-id"])
    ids.add((await client.request("/v1/models", token=None)).headers["x-request-id"])
    assert len(ids) == 8


@pytest.mark.gen_test
async def test_contract_instructions_come_first(make_gateway):
    """The agent's instructions come before the request's system messages."""
    agents = {"defaults": {"instructions": "Be kind."}}
    client = Client(await make_gateway({"agents": agents}))
    await client.chat({"role": "system", "content": "Be brief."}, "Hello", user="ann")
    await client.chat("Again", user="ann")
    first, second = (r.body["messages"] for r in client.served.upstream.requests)
    assert [m["content"] for m in first] == ["Be kind.", "Be brief.", "Hello"]
    assert [m["content"] for m in second] == ["Be kind.", "Hello", "Hello", "Again"]


@pytest.mark.gen_test
async def test_contract_roles_go_up_as_roles(client):
    """Every message goes up in its own role; any role may come last."""
    url = "data:image/png;base64,iVBORw0KGgo="
    image = {"type": "image_url", "image_url": {"url": url}}
    messages = [
        {"role": "system", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, image]},
        {"role": "user", "content": "d", "name": "Dee"},
        {"role": "assistant", "content": "e"},
        {"role": "developer", "content": "f"},
        {"role": "assistant", "content": "g"},
    ]
    assert (await client.chat(*messages)).status == 200
    assert client.served.upstream.requests[-1].body["messages"] == messages


@pytest.mark.gen_test
async def test_contract_sessions_belong_to_their_principal(client):
    """A session is the triple of principal, agent and key."""

    from edwin.dispatch import submit
    from edwin.types import ChatRequest, SessionId

    gateway = client.served.gateway
    await client.chat("one", headers={KEY: "shared"})
    transcript = await gateway.registry.transcript(SessionId("owner", "main", "shared"))
    assert len(transcript.entries) == 2
    other = SessionId("somebody", "main", "shared")
    assert (await gateway.registry.transcript(other)).entries == ()
    request = ChatRequest(messages=[{"role": "user", "content": "x"}], model="edwin")
    from edwin.errors import Forbidden
    from edwin.types import Principal

    with pytest.raises(Forbidden):
        await submit(gateway, request, Principal("somebody"))


@pytest.mark.gen_test
async def test_contract_curl(client, tmp_path):
    """curl gets a whole answer and a stream, in the documented form."""
    import asyncio

    client.served.upstream.reply("Hello from the model")
    client.served.upstream.reply("Hello in pieces")
    texts = []
    for extra in ([], ["-N"]):
        document = {
            "model": "edwin",
            "messages": [{"role": "user", "content": "hi"}],
            **({"stream": True} if extra else {}),
        }
        command = [
            "curl",
            "-sS",
            *extra,
            client.served.url + "/v1/chat/completions",
            *("-H", f"Authorization: Bearer {TOKEN}"),
            *("-H", "Content-Type: application/json"),
            *("-H", "x-edwin-agent-id: main"),
            *("-d", json.dumps(document)),
        ]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0
        texts.append(out.decode())
    assert json.loads(texts[0])["choices"][0]["message"]["content"].startswith("Hello")
    assert texts[1].endswith("data: [DONE]\n\n")
