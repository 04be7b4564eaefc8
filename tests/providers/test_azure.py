"""Azure OpenAI, and other servers that want what OpenAI's own does not."""

from __future__ import annotations

from contextlib import aclosing
from urllib.parse import urlsplit

import pytest

from edwin.config import from_document
from edwin.errors import ConfigError
from edwin.providers.openai_completions import OpenAICompletions
from edwin.types import ModelRequest, TextDelta
from tests.proxy import Proxy

AZURE = "http://my-resource.openai.azure.com/openai"
MESSAGES = [{"role": "user", "content": "Hello"}]


async def ask(provider, **params) -> str:
    """Return the text of one answer."""
    async with aclosing(provider.stream(ModelRequest("m", MESSAGES, params))) as events:
        return "".join([e.text async for e in events if isinstance(e, TextDelta)])


@pytest.fixture
def port(upstream) -> int:
    """Return the port of the upstream."""
    return urlsplit(upstream.url).port


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("base", "options", "target"),
    [
        ("/v1", {}, "/v1/chat/completions"),
        (
            "/v1/",
            {"apiVersion": "preview"},
            "/v1/chat/completions?api-version=preview",
        ),
        (
            "/deployments/my-gpt",
            {"apiVersion": "2024-10-21"},
            "/deployments/my-gpt/chat/completions?api-version=2024-10-21",
        ),
    ],
    ids=["v1", "v1 preview", "deployment"],
)
async def test_azure_is_called_as_it_wants(acme, port, upstream, base, options, target):
    """The key goes up in its own header, the version as a query; both addresses of
    Azure's work."""
    async with Proxy(port) as proxy:
        options = {"keyHeader": "api-key", "proxy": proxy.url} | options
        provider = await acme(baseUrl=AZURE + base, apiKey="the-key", options=options)
        assert await ask(provider) == "Hello"
        ((line, headers),) = proxy.passed
        await provider.stop()
    assert line == f"POST {AZURE}{target} HTTP/1.1"
    assert headers.get_list("api-key") == ["the-key"]
    assert headers["Host"] == "my-resource.openai.azure.com"
    assert "Authorization" not in headers
    assert upstream.requests[0].body["model"] == "m"


@pytest.mark.gen_test
async def test_azure_header_of_the_key_can_be_replaced(acme, upstream):
    """A configured header wins over the key's, and without a key there is none."""
    options = {"keyHeader": "api-key"}
    headers = {"Api-Key": "other"}
    await ask(await acme(apiKey="the-key", options=options, headers=headers))
    await ask(await acme(options=options))
    replaced, without = (request.headers for request in upstream.requests)
    assert replaced.get_list("api-key") == ["other"]
    assert "api-key" not in without and "Authorization" not in without


@pytest.mark.gen_test
async def test_azure_key_is_masked_in_the_log(acme, upstream, caplog):
    """The key is as secret in a header of another name."""
    upstream.fail(400, {"error": {"message": "no deployment for the-long-key here"}})
    provider = await acme(apiKey="the-long-key", options={"keyHeader": "api-key"})
    with pytest.raises(Exception, match="refused"):
        await ask(provider)
    assert "no deployment for *** here" in caplog.text
    assert "the-long-key" not in caplog.text


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("field", "given", "sent"),
    [
        ("max_tokens", {"max_completion_tokens": 7}, {"max_tokens": 7}),
        ("max_tokens", {"max_tokens": 7}, {"max_tokens": 7}),
        (
            "max_tokens",
            {"max_tokens": 9, "max_completion_tokens": 7},
            {"max_tokens": 7},
        ),
        ("max_completion_tokens", {"max_tokens": 7}, {"max_completion_tokens": 7}),
        ("max_tokens", {}, {}),
        (None, {"max_tokens": 9, "max_completion_tokens": 7}, None),
    ],
)
async def test_openai_length_has_the_name_that_is_known(
    acme, upstream, field, given, sent
):
    """``maxTokensField`` is the one name under which an answer's length goes up."""
    options = {} if field is None else {"maxTokensField": field}
    await ask(await acme(options=options), **given)
    body = upstream.requests[0].body
    names = ("max_tokens", "max_completion_tokens")
    assert {name: body[name] for name in names if name in body} == (
        given if sent is None else sent
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keyHeader": "api key"}, "keyHeader must be the name of a header"),
        ({"keyHeader": "api-key\n"}, "keyHeader must be the name of a header"),
        ({"keyHeader": True}, "keyHeader must be the name of a header"),
        ({"apiVersion": "1&model=x"}, "apiVersion must be the name of a version"),
        ({"apiVersion": 20241021}, "apiVersion must be the name of a version"),
        ({"maxTokensField": "n"}, "maxTokensField must be max_completion_tokens or"),
    ],
)
def test_openai_refuses_options(options, words):
    """What cannot be sent is said when the configuration is read."""
    keys = {"api": "openai-completions", "baseUrl": "http://h/v1", "options": options}
    config = from_document({"models": {"providers": {"a": keys}}})
    with pytest.raises(ConfigError) as caught:
        OpenAICompletions(config.providers["a"])
    assert caught.value.message.startswith(f"models.providers.a.options.{words}")
