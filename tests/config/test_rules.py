"""The rules beyond the schemas: names, providers, secrets and addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edwin.config import from_document
from edwin.config.rules import is_loopback
from edwin.errors import ConfigError

ALIAS = [{"id": "a", "aliases": ["gpt-4o"]}]
OPENAI = {"openai": {"api": "openai-completions", "baseUrl": "https://h/v1"}}


def agents(*listed: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    return {"agents": {"list": list(listed), "defaults": defaults}}


def wrong(
    document: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_document(document, environ=environ)
    return caught.value.message.replace("configuration: ", "").split("\n")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (agents({"id": "Beta"}, {"id": "beta"}),
         "agents.list[1].id: 'beta' is agents.list[0].id already; use another name"),
        (agents(*ALIAS, {"id": "b", "aliases": ["x", "gpt-4o"]}),
         "agents.list[1].aliases[1]: 'gpt-4o' is agents.list[0].aliases[0] already;"
         " use another name"),
        (agents(model="openai/x"),
         "agents.defaults.model: provider 'openai' is not configured;"
         " use local, or add it to models.providers"),
        (agents({"id": "a", "fallbacks": ["local/x", "opnai/y"]})
         | {"models": {"providers": OPENAI}},
         "agents.list[0].fallbacks[1]: provider 'opnai' is not configured;"
         " did you mean openai?"),
        (agents(params={"temprature": 1}),
         "agents.defaults.params.temprature: is not a field of the API;"
         " did you mean temperature? or list it in passthrough"),
        (agents({"id": "a", "params": {"zzz": 1}}),
         "agents.list[0].params.zzz: is not a field of the API;"
         " remove it or list it in passthrough"),
        ({"gateway": {"http": {"endpoints": {"chatCompletions": {
            "sessionHeaders": ["x-chat", "Authorization"]}}}}},
         "gateway.http.endpoints.chatCompletions.sessionHeaders[1]: 'Authorization'"
         " cannot name a session; use another header"),
        ({"models": {"providers": {"x": {"api": "local", "baseUrl": "http://h:99999"}}}},
         "models.providers.x.baseUrl: port 99999 is too large; use at most 65535"),
    ],
)  # fmt: skip
def test_config_names_must_fit(document, text):
    """Ids and aliases are unique, providers exist, parameters are known."""
    assert wrong(document) == [text]


def test_config_params_beyond_the_api_are_passed_through():
    """A field that the API does not know is welcome where the agent passes it on."""
    document = agents(
        {"id": "main"},
        {"id": "b", "passthrough": ["min_p"], "params": {"min_p": 0.1}},
        passthrough=["top_k", "min_p"],
        params={"min_p": 0.2},
    )
    config = from_document(document)
    assert config.agents["main"].params == {"min_p": 0.2}
    assert config.agents["b"].params == {"min_p": 0.1}
    assert config.agents["b"].passthrough == {"min_p"}


def test_config_params_of_the_defaults_need_each_agents_leave():
    """Lists replace: an agent with a passthrough of its own passes only that."""
    document = agents(
        {"id": "b", "passthrough": []}, passthrough=["top_k"], params={"top_k": 40}
    )
    assert wrong(document) == [
        "agents.list[0].params.top_k: is not a field of the API;"
        " did you mean top_p? or list it in passthrough"
    ]


LONG, SHORT = "0123456789abcdef", "0123456789abcde"


@pytest.mark.parametrize(
    ("bind", "auth", "environ", "fault"),
    [
        ("127.0.0.1", {"mode": "none"}, {}, None),
        ("localhost", {"mode": "none"}, {}, None),
        ("::1", {"mode": "none"}, {}, None),
        ("[::1]", {"mode": "none"}, {}, None),
        ("127.9.9.9", {"token": "x"}, {}, None),
        ("0.0.0.0", {}, {}, None),
        ("0.0.0.0", {"token": LONG}, {}, None),
        ("0.0.0.0", {"token": SHORT}, {}, "the token has 15 characters"),
        ("::", {"token": SHORT}, {}, "the token has 15 characters"),
        ("example.org", {"token": SHORT}, {}, "the token has 15 characters"),
        ("127.1", {"token": SHORT}, {}, "the token has 15 characters"),
        ("0.0.0.0", {"token": SHORT, "allowInsecure": True}, {}, None),
        ("0.0.0.0", {}, {"EDWIN_GATEWAY_TOKEN": SHORT}, "the token has 15"),
        ("0.0.0.0", {}, {"EDWIN_GATEWAY_TOKEN": LONG}, None),
        ("0.0.0.0", {"mode": "password", "password": LONG}, {}, None),
        ("0.0.0.0", {"mode": "password", "password": SHORT}, {}, "the password has 15"),
        ("0.0.0.0", {"mode": "password", "password": SHORT, "token": LONG}, {},
         "the password has 15 characters"),
        ("0.0.0.0", {"mode": "none"}, {}, "auth.mode none lets them in"),
        ("0.0.0.0", {"mode": "none", "allowInsecure": True, "token": LONG}, {},
         "auth.mode none lets them in"),
    ],
)  # fmt: skip
def test_config_open_addresses_need_a_good_secret(bind, auth, environ, fault):
    """Anything but loopback needs 16 characters or allowInsecure, and never none."""
    document = {"gateway": {"bind": bind, "auth": auth}}
    if fault is None:
        config = from_document(document, environ=environ)
        assert config.gateway.bind == bind.strip("[]")
    else:
        (line,) = wrong(document, environ)
        assert line.startswith(f"gateway.bind: {bind} can be reached by others")
        assert fault in line


@pytest.mark.parametrize(
    ("auth", "environ", "token", "password", "origin"),
    [
        ({}, {}, None, None, "/state/token"),
        ({"token": "a"}, {"EDWIN_GATEWAY_TOKEN": "b"}, "a", None, "gateway.auth.token"),
        ({}, {"EDWIN_GATEWAY_TOKEN": "b"}, "b", None, "EDWIN_GATEWAY_TOKEN"),
        ({"token": ""}, {"EDWIN_GATEWAY_TOKEN": ""}, None, None, "/state/token"),
        ({"token": "${T}"}, {"T": "x"}, "x", None, "gateway.auth.token ${T}"),
        ({"token": "${T}"}, {"EDWIN_GATEWAY_TOKEN": "b"}, "b", None,
         "EDWIN_GATEWAY_TOKEN"),
        ({"token": "${T:-}"}, {}, None, None, "/state/token"),
        ({"password": "p"}, {}, None, None, "/state/token"),
        ({}, {"EDWIN_GATEWAY_PASSWORD": "p"}, None, None, "/state/token"),
        ({"mode": "password", "password": "p q"}, {}, None, "p q",
         "gateway.auth.password"),
        ({"mode": "password", "token": "a"}, {"EDWIN_GATEWAY_PASSWORD": "p"}, None, "p",
         "EDWIN_GATEWAY_PASSWORD"),
        ({"mode": "none", "token": "a", "password": "p"},
         {"EDWIN_GATEWAY_TOKEN": "b"}, None, None, None),
    ],
)  # fmt: skip
def test_config_secret_is_the_first_of_its_places(
    auth, environ, token, password, origin
):
    """The configuration's secret counts, then the environment's; an empty one never."""
    document = {"gateway": {"auth": auth, "stateDir": "/state"}}
    config = from_document(document, environ=environ)
    assert config.gateway.auth.token == token
    assert config.gateway.auth.password == password
    assert config.describe()["auth"]["secret"] == origin


@pytest.mark.parametrize("password", [None, "", "${NONE}"])
def test_config_mode_password_needs_one(password):
    """Mode password without a password does not start."""
    auth = {"mode": "password", "token": LONG}
    auth |= {} if password is None else {"password": password}
    assert wrong({"gateway": {"auth": auth}}, {"EDWIN_GATEWAY_PASSWORD": ""}) == [
        "gateway.auth.password: is missing; write one in quotes,"
        " or set EDWIN_GATEWAY_PASSWORD"
    ]


@pytest.mark.parametrize("secret", ["a\n", " a", "a\tb", "\udcff"])
def test_config_secret_of_the_environment_must_fit_a_header(secret):
    """A secret that no header can carry is named by its variable, and not repeated."""
    (line,) = wrong({}, {"EDWIN_GATEWAY_TOKEN": secret})
    assert line == (
        "environment: EDWIN_GATEWAY_TOKEN cannot be used;"
        " use text without blanks and line breaks"
    )


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:127.0.0.1", True),
        ("localhost.example.org", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_config_knows_loopback(bind, loopback):
    """What only this machine can reach; in doubt, others can."""
    assert is_loopback(bind) is loopback
