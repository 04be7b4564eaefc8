"""The settings of a provider's own."""

from __future__ import annotations

import pytest

from edwin.config import from_document
from edwin.errors import ConfigError
from edwin.providers.options import FLAG, check_options, key_header, text_option


def provider(**keys: object):
    document = {"acme": {"api": "scripted"} | keys}
    return from_document({"models": {"providers": document}}).providers["acme"]


OWN = {"shiny": FLAG, "colour": text_option("red|blue", "must be red or blue")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shiny": True, "colour": "blue"},
        {"proxy": "http://proxy:3128"},
        {"proxy": "https://user:pass@proxy"},
    ],
)
def test_options_that_fit_are_taken(options):
    """Every provider over HTTP has a proxy beside its own options."""
    check_options(provider(options=options), OWN)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shiny": "true"}, "shiny must be true or false"),
        ({"shiny": 1}, "shiny must be true or false"),
        ({"colour": "reddish"}, "colour must be red or blue"),
        ({"colour": "red\n"}, "colour must be red or blue"),
        ({"colour": ["red"]}, "colour must be red or blue"),
        ({"proxy": "proxy:3128"}, "proxy must be an http address"),
        ({"proxy": "socks5://proxy"}, "proxy must be an http address"),
        ({"proxy": None}, "proxy must be an http address"),
        ({"poxy": "http://p"}, "poxy is unknown; there are colour, proxy and shiny"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    """The message names the option, and what it must be."""
    with pytest.raises(ConfigError) as caught:
        check_options(provider(options=options), OWN)
    assert caught.value.message == f"models.providers.acme.options.{words}"


def test_options_of_a_provider_without_its_own():
    """Where there is only the proxy, the message says so."""
    with pytest.raises(ConfigError, match="unknown; there is proxy"):
        check_options(provider(options={"poxy": "x"}), {})


def test_options_say_where_the_key_goes():
    """A key goes up as a bearer's token, or as it is in the header that is named."""
    assert key_header(provider()) == {}
    assert key_header(provider(apiKey="k")) == {"Authorization": "Bearer k"}
    named = provider(apiKey="k", options={"keyHeader": "api-key"})
    assert key_header(named) == {"api-key": "k"}
