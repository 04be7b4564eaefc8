"""The configuration: where it comes from, how it is layered, what it holds."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin import resources
from edwin.config import Config, from_document, load
from edwin.errors import ConfigError
from edwin.types import Agent, Caps

SNIPPET = (
    "{ gateway: { http: { endpoints: { chatCompletions: { enabled: true }, }, }, }, }"
)
EXAMPLE = {"OPENAI_API_KEY": "sk-0123456789"}


def enabled(config: Config) -> bool:
    return config.gateway.http.endpoints.chat_completions.enabled


def on_port(file: Path, port: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"gateway: {{ port: {port} }}")
    return file


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def test_config_defaults_are_the_documented_ones(tmp_path):
    """Without a file: loopback, port 18789, endpoint off, agent main on local."""
    config = load(environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    gateway = config.gateway
    assert (gateway.bind, gateway.port) == ("127.0.0.1", 18789)
    assert gateway.state_dir == tmp_path / ".edwin"
    assert gateway.session_secrets == ()
    assert gateway.shutdown_seconds == 30
    assert (gateway.auth.mode, gateway.auth.token) == ("token", None)
    assert (gateway.auth.password, gateway.auth.allow_insecure) == (None, False)
    assert not enabled(config)
    assert gateway.http.endpoints.chat_completions.session_from_user
    assert gateway.http.endpoints.chat_completions.session_headers == ()
    assert gateway.http.max_body_bytes == 20 * 1024 * 1024
    assert gateway.http.head_delay_ms == 2000
    assert gateway.http.keep_alive_seconds == 15
    assert dataclasses.astuple(gateway.runs) == (256, 1024, 64, 570, 60)
    assert dataclasses.astuple(gateway.sessions) == (0, 0, 0)
    assert (gateway.metrics.public, gateway.monitor.blocked_ms) == (False, 50)
    assert config.source is None
    assert config.agents == {
        "main": Agent("main", "local/smollm2-135m-instruct",
                      "You are a helpful assistant.")
    }  # fmt: skip
    (local,) = config.providers.values()
    assert (local.name, local.api, local.base_url) == ("local", "local", None)
    assert (local.api_key, local.headers, local.options) == (None, {}, {})
    assert (local.context_tokens, local.retries) == (None, 2)
    assert (local.connect_seconds, local.first_delta_seconds) == (10, 120)
    assert (local.idle_seconds, local.stream, local.eager) == (60, True, False)


def test_config_file_is_the_first_of_its_places(tmp_path, home):
    """--config, then EDWIN_CONFIG, then ./edwin.yaml, then ~/.edwin/edwin.yaml."""
    environ = {"HOME": str(home)}
    named = on_port(tmp_path / "named.yaml", 1)
    environ["EDWIN_CONFIG"] = str(on_port(home / "by-variable.yaml", 2))
    here = on_port(tmp_path / "edwin.yaml", 3)
    at_home = on_port(home / ".edwin" / "edwin.yaml", 4)

    def found(path: Path | None = None) -> tuple[int, Path | None]:
        config = load(path, environ=environ, cwd=tmp_path)
        return config.gateway.port, config.source

    assert found(named) == (1, named)
    assert found(Path("named.yaml")) == (1, named)
    assert found() == (2, home / "by-variable.yaml")
    environ["EDWIN_CONFIG"] = "~/by-variable.yaml"
    assert found() == (2, home / "by-variable.yaml")
    environ["EDWIN_CONFIG"] = ""
    assert found() == (3, here)
    here.unlink()
    assert found() == (4, at_home)
    environ["EDWIN_STATE_DIR"] = str(tmp_path / "elsewhere")
    assert found() == (4, at_home)
    at_home.unlink()
    assert found() == (18789, None)


def test_config_named_files_must_be_readable(tmp_path, home):
    """A named file that cannot be read is an error; so is a folder in its place."""
    environ = {"HOME": str(home)}
    with pytest.raises(ConfigError, match=r"^no\.yaml: does not exist; name a file"):
        load(Path("no.yaml"), environ=environ, cwd=tmp_path)
    with pytest.raises(ConfigError, match=r"^no/a\.yaml: does not exist"):
        load(environ=environ | {"EDWIN_CONFIG": "no/a.yaml"}, cwd=tmp_path)
    (tmp_path / "edwin.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^edwin\.yaml: cannot be read \(is a dir"):
        load(environ=environ, cwd=tmp_path)
    with pytest.raises(ConfigError, match=r"is not a path"):
        load(Path("a\0b"), environ=environ, cwd=tmp_path)


def test_config_errors_name_the_file_as_it_was_given(tmp_path, home):
    """The file in a message is what the user calls it."""
    (tmp_path / "edwin.yaml").write_text("gateway:\n  port: x\n")
    fault = ":2: gateway.port: 'x' is text; write a whole number"
    for path, name in [(None, "edwin.yaml"), (tmp_path / "edwin.yaml",) * 2]:
        with pytest.raises(ConfigError) as caught:
            load(path, environ={"HOME": str(home)}, cwd=tmp_path)
        assert caught.value.message == f"{name}{fault}"


@pytest.mark.parametrize("switch", ["true", "false"])
def test_config_loads_the_documented_snippet(tmp_path, switch):
    """The documented configuration turns the endpoint on and off, byte for byte."""
    file = tmp_path / "edwin.yaml"
    file.write_text(SNIPPET.replace("true", switch))
    assert enabled(load(file, environ={})) is (switch == "true")


@pytest.mark.parametrize(
    ("file", "environ", "expected"),
    [
        ("", {}, "home/.edwin"),
        ("", {"EDWIN_STATE_DIR": "state"}, "state"),
        ("", {"EDWIN_STATE_DIR": "~/state"}, "home/state"),
        ("", {"EDWIN_STATE_DIR": ""}, "home/.edwin"),
        ("gateway: {stateDir: mine}", {"EDWIN_STATE_DIR": "state"}, "mine"),
        ("gateway: {stateDir: '${X}'}", {"EDWIN_STATE_DIR": "state"}, "state"),
        ("gateway: {stateDir: '${X}'}", {"X": "../x"}, "../x"),
        ("gateway: {stateDir: '~'}", {}, "home"),
        ("gateway: {stateDir: /var/lib/edwin}", {}, "/var/lib/edwin"),
    ],
)
def test_config_state_folder(tmp_path, home, file, environ, expected):
    """The file's folder counts, then EDWIN_STATE_DIR; relative to where one works."""
    path = tmp_path / "folder" / "x.yaml"
    path.parent.mkdir()
    path.write_text(file)
    config = load(path, environ={"HOME": str(home)} | environ, cwd=tmp_path)
    assert str(config.gateway.state_dir) == os.path.abspath(tmp_path / expected)


@pytest.mark.parametrize(
    ("overrides", "bind", "port"),
    [
        ({}, "::1", 1),
        ({"gateway.port": 0}, "::1", 0),
        ({"gateway.port": None, "gateway.bind": "localhost"}, "localhost", 1),
    ],
)
def test_config_options_lie_over_the_file(overrides, bind, port):
    """An option that is given wins over the file; None is not given."""
    document = {"gateway": {"bind": "::1", "port": 1}}
    config = from_document(document, overrides=overrides)
    assert (config.gateway.bind, config.gateway.port) == (bind, port)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"gateway.port": 70000}, "options: gateway.port: 70000 is too large"),
        ({"gateway.prot": 1}, "options: gateway.prot: is not a known key"),
        ({"gateway.bind": "0.0.0.0"}, "options: gateway.bind: 0.0.0.0 can be reached"),
    ],
)
def test_config_options_are_held_to_the_rules(overrides, text):
    """An option can be as wrong as a line of the file, and is named as such."""
    document = {"gateway": {"auth": {"token": "short"}}}
    with pytest.raises(ConfigError) as caught:
        from_document(document, overrides=overrides)
    assert caught.value.message.startswith(text)


def test_config_agents_lie_over_their_defaults():
    """Maps merge over agents.defaults, lists and single values replace."""
    config = from_document(
        {
            "agents": {
                "defaults": {
                    "instructions": "Be brief.",
                    "params": {"temperature": 1, "top_p": 0.5},
                    "caps": {"maxOutputTokens": 100},
                    "fallbacks": ["local/a", "local/b"],
                    "passthrough": ["top_k"],
                    "sessionFromUser": False,
                    "contextTokens": 5000,
                },
                "list": [
                    {
                        "id": "BETA",
                        "model": "local/x/y",
                        "params": {"temperature": 0},
                        "fallbacks": ["local/c"],
                        "aliases": ["gpt-4o", "GPT-4o"],
                        "maxHistoryMessages": 0,
                    }
                ],
            }
        }
    )
    assert list(config.agents) == ["main", "beta"]
    assert config.agents["beta"] == Agent(
        id="beta",
        model="local/x/y",
        instructions="Be brief.",
        params={"temperature": 0, "top_p": 0.5},
        caps=Caps(100),
        fallbacks=("local/c",),
        aliases=("gpt-4o", "GPT-4o"),
        passthrough=frozenset({"top_k"}),
        session_from_user=False,
        context_tokens=5000,
        max_history_messages=0,
    )
    main = config.agents["main"]
    assert main.params == {"temperature": 1, "top_p": 0.5}
    assert main.fallbacks == ("local/a", "local/b")
    assert (main.aliases, main.max_history_messages) == ((), 200)


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        ([], ["main"]),
        (["b", "a"], ["main", "b", "a"]),
        (["b", "Main", "a"], ["b", "main", "a"]),
    ],
)
def test_config_main_always_exists(ids, order):
    """Agent main is there, first unless it is listed; the rest as listed."""
    document = {"agents": {"list": [{"id": name} for name in ids]}}
    assert list(from_document(document).agents) == order


def test_config_providers_have_the_shipped_defaults():
    """Every provider has the defaults of local but its api; local can be changed."""
    config = from_document(
        {
            "models": {
                "providers": {
                    "local": {"eager": True, "retries": 5, "contextTokens": 4000},
                    "x.y": {
                        "api": "my.package:Provider",
                        "baseUrl": "http://[::1]:8000/v1/",
                        "apiKey": "${NONE}",
                        "headers": {"X-A": "b", "X-C": "${NONE}"},
                        "idleSeconds": 0.5,
                        "maxConcurrent": 4,
                        "breaker": {"failures": 0},
                        "options": {"deep": {"er": [1]}},
                    },
                    "empty": {"api": "scripted", "apiKey": ""},
                }
            }
        }
    )
    local, other = config.providers["local"], config.providers["x.y"]
    assert (local.api, local.eager, local.retries) == ("local", True, 5)
    assert (local.context_tokens, local.connect_seconds) == (4000, 10)
    assert (other.name, other.api) == ("x.y", "my.package:Provider")
    assert (other.base_url, other.api_key) == ("http://[::1]:8000/v1", None)
    assert other.headers == {"X-A": "b"}
    assert (other.eager, other.retries, other.idle_seconds) == (False, 2, 0.5)
    assert (other.max_concurrent, other.breaker.failures) == (4, 0)
    assert (local.max_concurrent, local.breaker.failures) == (0, 20)
    assert local.breaker.seconds == other.breaker.seconds == 15
    assert other.options == {"deep": {"er": [1]}}
    assert config.providers["empty"].api_key is None


def test_config_session_headers_are_lower_case():
    """Header names are compared in lower case, each once."""
    headers = ["X-Chat-Id", "x-chat-id", "x-b"]
    chat = {"sessionHeaders": headers, "sessionFromUser": False}
    document = {"gateway": {"http": {"endpoints": {"chatCompletions": chat}}}}
    found = from_document(document).gateway.http.endpoints.chat_completions
    assert found.session_headers == ("x-chat-id", "x-b")
    assert not found.session_from_user


def test_config_numbers_have_their_types():
    """A whole number is an int, whatever way it is written; seconds are floats."""
    document = {
        "gateway": {"port": 80.0, "runs": {"maxQueued": 5.0, "timeoutSeconds": 5}},
        "agents": {"defaults": {"caps": {"maxOutputTokens": 7.0}}},
    }
    config = from_document(document)
    runs = config.gateway.runs
    numbers = [config.gateway.port, runs.max_queued, runs.timeout_seconds]
    assert [type(number) for number in numbers] == [int, int, float]
    assert type(config.agents["main"].caps.max_output_tokens) is int


def test_config_from_document_sees_no_environment(monkeypatch):
    """A dictionary is looked up in the variables that are passed, and no others."""
    monkeypatch.setenv("EDWIN_GATEWAY_TOKEN", "from-outside")
    monkeypatch.setenv("EDWIN_STATE_DIR", "/from-outside")
    config = from_document({"gateway": {"auth": {"token": "${EDWIN_GATEWAY_TOKEN}"}}})
    assert config.gateway.auth.token is None
    assert config.gateway.state_dir == Path.home() / ".edwin"


def test_config_is_a_snapshot():
    """Nothing of a configuration can be changed, not even through what it came from."""
    document: dict[str, Any] = {
        "agents": {"defaults": {"params": {"stop": ["a"]}}},
        "models": {"providers": {"local": {"options": {"a": [1]}}}},
    }
    config = from_document(document)
    document["agents"]["defaults"]["params"]["stop"].append("b")
    document["models"]["providers"]["local"]["options"]["a"].append(2)
    assert config.agents["main"].params == {"stop": ["a"]}
    assert config.providers["local"].options == {"a": [1]}
    for mapping in (config.agents, config.providers, config.agents["main"].params):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gateway.port = 1  # type: ignore[misc]


SECRETS = {
    "gateway": {
        "auth": {"token": "hunter2-token"},
        "sessionSecrets": ["hunter2" + "x" * 32],
        "bind": "::1",
    },
    "models": {
        "providers": {
            "x": {
                "api": "openai-completions",
                "baseUrl": "https://h/v1",
                "apiKey": "hunter2-key",
                "headers": {"x-key": "hunter2-header"},
                "options": {"secret": "hunter2-option"},
            }
        }
    },
}


def test_config_describes_itself_without_secrets():
    """What would run: address, endpoints, agents and providers; secrets hidden."""
    described = from_document(SECRETS).describe()
    assert described["source"] is None
    assert described["address"] == "http://[::1]:18789"
    assert described["endpoints"]["chatCompletions"]["enabled"] is False
    assert described["auth"] == {"mode": "token", "secret": "gateway.auth.token"}
    assert described["sessionSecrets"] == 1
    assert described["agents"] == {
        "main": {"model": "local/smollm2-135m-instruct", "fallbacks": [], "aliases": []}
    }
    assert described["providers"]["x"] == {
        "api": "openai-completions",
        "baseUrl": "https://h/v1",
        "apiKey": "hidden",
        "headers": {"x-key": "hidden"},
        "options": {"secret": "hidden"},
    }
    assert described["providers"]["local"]["apiKey"] is None
    assert "hunter2" not in json.dumps(described)


def test_config_representation_shows_no_secret():
    """A configuration in a log or a traceback gives no secret away."""
    assert "hunter2" not in repr(from_document(SECRETS))


@pytest.mark.parametrize("document", [[], "x", None])
def test_config_from_document_wants_a_map(document):
    """What is not a map is no configuration."""
    with pytest.raises(ConfigError, match=r"^configuration: is not a map"):
        from_document(document)


def shipped(name: str, tmp_path: Path, environ: dict[str, str]) -> Config:
    file = tmp_path / name
    file.write_bytes(resources.read("conf", name))
    return load(file, environ=environ, cwd=tmp_path)


def test_config_quickstart_turns_the_endpoint_on(tmp_path):
    """conf/quickstart.yaml turns the endpoint on, and says so."""
    config = shipped("quickstart.yaml", tmp_path, {})
    assert enabled(config)
    main = config.agents["main"]
    assert main.params == {"temperature": 0}
    assert main.instructions == "You are a helpful assistant."
    text = resources.read("conf", "quickstart.yaml").decode()
    assert "turns POST /v1/chat/completions on" in text


def test_config_example_shows_beta_and_openai(tmp_path):
    """conf/edwin.example.yaml has agent beta and a provider with its key outside."""
    config = shipped("edwin.example.yaml", tmp_path, EXAMPLE)
    assert enabled(config)
    assert list(config.agents) == ["main", "beta"]
    beta = config.agents["beta"]
    assert beta.model.startswith("openai/")
    assert config.providers["openai"].api_key == "sk-0123456789"
    assert (
        shipped("edwin.example.yaml", tmp_path, {}).providers["openai"].api_key is None
    )


def test_config_example_comments_are_providers(tmp_path):
    """The commented lines of the example, uncommented, configure Ollama and vLLM."""
    text = resources.read("conf", "edwin.example.yaml").decode()
    file = tmp_path / "edwin.yaml"
    file.write_text(re.sub(r"(?m)^    # ((?:  )?[a-zA-Z]+:)", r"    \1", text))
    config = load(file, environ={}, cwd=tmp_path)
    assert set(config.providers) == {"local", "openai", "ollama", "vllm"}
    assert config.providers["ollama"].base_url == "http://127.0.0.1:11434/v1"
    assert config.providers["vllm"].base_url == "http://127.0.0.1:8000/v1"


def test_config_defaults_file_says_nothing_new(tmp_path):
    """Loading conf/defaults.yaml as a file is loading no file."""
    config = shipped("defaults.yaml", tmp_path, {})
    assert dataclasses.replace(config, source=None) == from_document({}, cwd=tmp_path)


def test_config_loads_in_silence_and_without_jsonschema(tmp_path):
    """A good file loads under -W error, and does not wait for the fault finder."""
    (tmp_path / "edwin.yaml").write_text(SNIPPET)
    program = (
        "import os, sys; from edwin.config import load\n"
        "print(load(environ=os.environ).gateway.http.endpoints)\n"
        "print('jsonschema' in sys.modules)\n"
    )
    environ = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environ,
    )  # fmt: skip
    assert done.stderr == ""
    assert "enabled=True" in done.stdout
    assert done.stdout.endswith("False\n")


WORDS = st.sampled_from(
    ["{", "}", "[", "]", ": ", "- ", "\n", "\n  ", "\t", "#", "*", "&a ", "!", "'", '"',
     "null", "true", "5", "-1", "1e9", "${X}", "${", "id: a", "port: 0", "defaults",
     "fallbacks: [x]", "params: {n: 1}", "aliases: [edwin]", "\x00", "é", "local/x"]
)  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 20), WORDS), max_size=3))
def test_config_any_file_is_loaded_or_refused(tmp_path_factory, changes):
    """Whatever a file holds, it is loaded, or refused with file and line."""
    text = resources.read("conf", "edwin.example.yaml").decode()
    text = re.sub(r"(?m)^ *#.*\n", "", text)
    for begin, length, word in changes:
        text = text[:begin] + word + text[begin + length :]
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text)
    try:
        config = load(file, environ={}, cwd=file.parent)
    except ConfigError as error:
        lines = error.message.split("\n")
        assert all(re.match(rf"{file}(:\d+)?: .*; ", line) for line in lines)
    else:
        assert "main" in config.agents
        json.dumps(config.describe())
