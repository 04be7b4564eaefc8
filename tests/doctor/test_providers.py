"""Providers, their keys, their clocks; asked over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from edwin.doctor.providers import check_providers
from tests.doctor.conftest import told

KEY = "sk-a-key-that-is-never-shown"


class Models(RequestHandler):
    """Answers as it is told to, and keeps what it was asked."""

    def initialize(self, script: dict[str, Any], asked: list[Any]) -> None:
        self.script, self.asked = script, asked

    async def get(self) -> None:
        self.asked.append(self.request)
        if wait := self.script.get("wait"):
            await wait()
        self.set_status(self.script.get("status", 200))
        for name, value in self.script.get("headers", {}).items():
            self.set_header(name, value)
        models = [{"id": name} for name in self.script.get("models", ("m",))]
        self.write(self.script.get("body", json.dumps({"data": models})))


@pytest.fixture
def asked() -> list[Any]:
    """Return what the provider was asked."""
    return []


@pytest.fixture
def provider(io_loop, asked) -> Callable[..., str]:
    """Start a provider that answers with a script; return its base URL."""
    servers = []

    def start(**script: Any) -> str:
        rules = [(r".*", Models, {"script": script, "asked": asked})]
        server = HTTPServer(Application(rules, log_function=lambda handler: None))
        sockets = bind_sockets(0, "127.0.0.1")
        io_loop.run_sync(lambda: serve(server, sockets))
        servers.append(server)
        return f"http://127.0.0.1:{sockets[0].getsockname()[1]}/v1"

    async def serve(server: HTTPServer, sockets: list[socket.socket]) -> None:
        server.add_sockets(sockets)

    yield start
    for server in servers:
        server.stop()
        io_loop.run_sync(server.close_all_connections)


@pytest.fixture
def look(io_loop, make_config):
    """Ask the provider ``p`` at a base URL whose model ``m`` the agent uses."""

    def run(url: str, *, model="p/m", timeout_s=5.0, **settings: Any) -> list[Any]:
        given = {key: value for key, value in settings.items() if value is not None}
        settings = {"api": "openai-completions", "baseUrl": url} | given
        config = make_config(
            agents={"defaults": {"model": model}},
            models={"providers": {"p": settings}},
        )
        findings = io_loop.run_sync(
            lambda: check_providers(config, timeout_s=timeout_s)
        )
        assert KEY not in str(findings)
        return findings

    return run


def test_doctor_asks_a_provider_for_its_models(look, provider, asked):
    """A provider that answers, takes its key and has the model is right."""
    findings = look(provider(models=["m", "n"]), apiKey=KEY, headers={"x-org": "o"})
    assert told(findings) == [
        ("ok", "provider p at 127.0.0.1 answers and takes its key"),
        ("ok", "this machine's clock agrees with provider p's"),
    ]
    (request,) = asked
    assert (request.method, request.path) == ("GET", "/v1/models")
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["x-org"] == "o"


@pytest.mark.parametrize(
    ("status", "key", "level", "words"),
    [
        (401, KEY, "problem", "refuses the key"),
        (401, None, "problem", "wants a key"),
        (403, KEY, "warning", "does not let this key see its models"),
        (404, KEY, "ok", "has no list of models (HTTP 404)"),
        (405, KEY, "ok", "has no list of models (HTTP 405)"),
        (429, KEY, "warning", "refuses at the moment (HTTP 429)"),
        (503, KEY, "warning", "refuses at the moment (HTTP 503)"),
        (200, None, "ok", "answers"),
    ],
)
def test_doctor_reads_a_providers_answer(look, provider, status, key, level, words):
    """What a provider answers is told in words, never with its key."""
    body = json.dumps({"error": {"message": f"your key {KEY} is wrong"}})
    findings = look(provider(status=status, body=body), apiKey=key)
    assert findings[0].level == level
    assert findings[0].what.endswith(words) or words in findings[0].what
    assert findings[0].what.startswith("provider p at 127.0.0.1 ")


def test_doctor_follows_no_redirect(look, provider, asked):
    """A provider that sends elsewhere is a problem; its key goes nowhere."""
    elsewhere = provider()
    url = provider(status=307, headers={"Location": f"{elsewhere}/models"})
    (finding, _) = look(url, apiKey=KEY)
    assert finding.level == "problem"
    assert "sends to another address (HTTP 307)" in finding.what
    assert len(asked) == 1


def test_doctor_finds_unknown_models(look, provider):
    """A model that the provider does not list is told, with one that it does."""
    findings = look(provider(models=["b", "a"]))
    assert told(findings)[1] == ("warning", "provider p does not list the model m")
    assert "such as a" in findings[1].fix


@pytest.mark.parametrize("body", ["[]", "{}", "no JSON", '{"data":[{"name":"m"}]}'])
def test_doctor_takes_any_list(look, provider, body):
    """A list of models in another shape says nothing of the models."""
    assert [f.level for f in look(provider(body=body))] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(3600, "3600 s behind"), (-3600, "3600 s ahead of"), (20, None)],
)
def test_doctor_finds_a_wrong_clock(look, provider, ahead_s, words):
    """A clock that disagrees with a provider's is told."""
    date = formatdate(time.time() + ahead_s, usegmt=True)
    finding = look(provider(headers={"Date": date}))[1]
    assert (finding.level, finding.check) == ("warning" if words else "ok", "clock")
    if words:
        number, _, way = words.partition(" s ")
        found = finding.what.split()
        assert abs(int(found[found.index("s") - 1]) - int(number)) <= 2
        assert way in finding.what


def test_doctor_finds_that_nobody_is_there(look):
    """A provider that cannot be reached is a problem for the agents that use it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (finding,) = look(f"http://127.0.0.1:{port}/v1", apiKey=KEY)
    assert (finding.level, finding.check) == ("problem", "providers")
    assert "127.0.0.1: no connection (" in finding.what


def test_doctor_lets_unused_providers_be(look):
    """For nobody's agent it is a warning."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    findings = look(url, model="local/smollm2-135m-instruct")
    (finding,) = (f for f in findings if "provider p" in f.what)
    assert finding.level == "warning"


def test_doctor_waits_for_so_long(look):
    """A provider that says nothing holds nobody up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (finding,) = look(f"http://127.0.0.1:{port}/v1", timeout_s=0.2)
    assert finding.what.endswith("no answer within 0.2 s")


@pytest.mark.parametrize(
    ("scheme", "words"),
    [("https", "it does not speak TLS"), ("http", "no answer that is HTTP")],
)
def test_doctor_finds_what_is_spoken(io_loop, look, scheme, words):
    """What answers in another language than HTTP, or without TLS, is told as such."""

    async def answer(reader: Any, writer: Any) -> None:
        await reader.read(10)
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(answer, "127.0.0.1", 0)

    server = io_loop.run_sync(start)
    port = server.sockets[0].getsockname()[1]
    (finding,) = look(f"{scheme}://127.0.0.1:{port}/v1", apiKey=KEY)
    server.close()
    io_loop.run_sync(server.wait_closed)
    assert finding.level == "problem"
    assert words in finding.what


def test_doctor_shows_the_host_alone(look):
    """Of an address the host alone is told: the rest may hold a secret."""
    (finding,) = look(f"http://127.0.0.1:1/{KEY}")
    assert finding.what.startswith("provider p at 127.0.0.1: ")


def test_doctor_warns_of_keys_in_the_clear(look, provider):
    """A key that goes over plain HTTP to another machine is told."""
    proxy = provider().removesuffix("/v1")
    url, options = "http://models.example/v1", {"proxy": proxy}
    levels = told(look(url, apiKey=KEY, options=options))
    assert ("warning", "provider p gets its key over plain HTTP") in levels
    assert "warning" not in [f.level for f in look(url, options=options)]


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"api": "scripted"}, "ok", "is not asked"),
        ({"api": "nothing.such:Provider"}, "problem", "no provider is called"),
        ({"options": {"prxy": "x"}}, "problem", "options.prxy is unknown"),
    ],
)
def test_doctor_makes_every_provider(look, settings, level, words):
    """A provider that cannot be made is a problem; others are not asked."""
    url = "http://127.0.0.1:1/v1"
    ((found, what),) = told(look(url, **settings))
    assert found == level
    assert words in what


def test_doctor_finds_what_the_embedded_model_needs(io_loop, make_config):
    """The embedded model needs its packages and, where it is one, its file."""
    config = make_config(
        agents={"defaults": {"model": "local/mine"}},
        models={"providers": {"local": {"options": {"path": "/none.gguf"}}}},
    )
    ((level, what),) = told(io_loop.run_sync(lambda: check_providers(config)))
    assert level == "problem"
    assert "/none.gguf" in what or "xllamacpp" in what
