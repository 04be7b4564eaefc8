"""The schemas: complete, agreeing with defaults and docs, and put into plain words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edwin import resources
from edwin.config import from_document, load
from edwin.config.file import parse
from edwin.config.schema import Shape
from edwin.config.tree import find, plain
from edwin.errors import ConfigError
from edwin.validate import oracle

SHAPE = Shape.load()
KEYS = [(path, shape) for path, shape in SHAPE.walk() if path and path[-1] != "*"]
NAMES = [".".join(map(str, path)) for path, _ in KEYS]
DEFAULTS = parse(resources.read("conf", "defaults.yaml"), "defaults.yaml", 0)


def lines(tmp_path: Any, text: str, **environ: str) -> list[str]:
    """Return what is wrong with a file, without the file's name."""
    file = tmp_path / "edwin.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ, cwd=tmp_path)
    return caught.value.message.replace(f"{file}:", "").split("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gateway:\n  prot: 1", "2: gateway.prot: is not a known key; did you mean"
         " port?"),
        ("gateway: {state_dir: x}", "1: gateway.state_dir: is not a known key;"
         " did you mean stateDir?"),
        ("port: 1", "1: port: is not a known key; did you mean gateway.port?"),
        ("gateway: {http: {chatCompletions: {enabled: true}}}",
         "1: gateway.http.chatCompletions: is not a known key;"
         " did you mean gateway.http.endpoints.chatCompletions?"),
        ("agents: {list: [{id: a, temperature: 1}]}",
         "1: agents.list[0].temperature: is not a known key;"
         " did you mean agents.list.*.params.temperature?"),
        ("zebra: 1", "1: zebra: is not a known key; the keys here are gateway, agents,"
         " models"),
        ("gateway: {port: 99999}", "1: gateway.port: 99999 is too large;"
         " use at most 65535"),
        ("gateway: {port: -1}", "1: gateway.port: -1 is too small; use at least 0"),
        ("gateway: {port: '80'}", "1: gateway.port: '80' is text;"
         " write it without quotes"),
        ("gateway: {port: 80.5}", "1: gateway.port: 80.5 is a number;"
         " write a whole number"),
        ("gateway: {port: eighty}", "1: gateway.port: 'eighty' is text;"
         " write a whole number"),
        ("gateway: {port: }", "1: gateway.port: is null; write a whole number,"
         " or leave the key out"),
        ("gateway: {port: [80]}", "1: gateway.port: is a list;"
         " write a whole number"),
        ("gateway:\n  port: 80 // web", "2: gateway.port: '80 // web' is text;"
         " write a whole number; comments start with '#'"),
        ("gateway: {runs: {timeoutSeconds: 0}}", "1: gateway.runs.timeoutSeconds: 0"
         " is too small; use more than 0"),
        ("gateway: {auth: {mode: off}}", "1: gateway.auth.mode: 'off' cannot be used;"
         " use token, password, trusted-proxy or none"),
        ("gateway: {auth: {allowInsecure: yes}}", "1: gateway.auth.allowInsecure: 'yes'"
         " is text; write true or false"),
        ("gateway: {auth: {allowInsecure: 1}}", "1: gateway.auth.allowInsecure: 1"
         " is a number; write true or false"),
        ("gateway: 5", "1: gateway: 5 is a number; write a map of keys"),
        ("gateway:\n  http:enabled", "1: gateway: is text, not a map of keys;"
         " a blank belongs after ':', and comments start with '#'"),
        ("gateway: {bind: 'a b'}", "1: gateway.bind: 'a b' cannot be used;"
         " use an IP address such as 127.0.0.1 or ::1, localhost, or a host name"),
        ("gateway: {http: {endpoints: {chatCompletions: {sessionHeaders: x-chat}}}}",
         "1: gateway.http.endpoints.chatCompletions.sessionHeaders: 'x-chat' is text;"
         " write a list"),
        ("agents: {list: [{model: local/x}]}", "1: agents.list[0].id: is missing;"
         " write letters, digits, '_' and '-', at most 64, beginning with a letter or"
         " digit"),
        ("agents: {list: [{id: 12}]}", "1: agents.list[0].id: is a number, not text;"
         " quote it"),
        ("agents:\n  list:\n    -\n", "3: agents.list[0].id: is missing;"
         " write letters, digits, '_' and '-', at most 64, beginning with a letter or"
         " digit"),
        ("agents: {defaults: {model: gpt}}", "1: agents.defaults.model: 'gpt' cannot be"
         " used; use <provider>/<model>, such as local/smollm2-135m-instruct"),
        ("agents: {defaults: {params: {stream: true}}}",
         "1: agents.defaults.params.stream: cannot stand here; use another field:"
         " the gateway decides this one itself"),
        ("agents: {defaults: {passthrough: [n]}}",
         "1: agents.defaults.passthrough[0]: 'n' cannot be used; use another field:"
         " the gateway decides this one itself"),
        ("agents: {defaults: {params: {stop: [a, b, c, d, e]}}}",
         "1: agents.defaults.params.stop: has 5 entries; use at most 4"),
        ("agents: {defaults: {params: {stop: []}}}",
         "1: agents.defaults.params.stop: has 0 entries; use at least 1"),
        ("agents: {defaults: {params: {safety_identifier: " + "x" * 65 + "}}}",
         "1: agents.defaults.params.safety_identifier: has 65 characters;"
         " use at most 64"),
        ("agents: 5", "1: agents: 5 is a number; write a map of keys"),
        ("models: {providers: [x]}", "1: models.providers: is a list;"
         " write a map of keys"),
        ("agents: {defaults: {params: {stop: 5}}}", "1: agents.defaults.params.stop:"
         " 5 is a number; write text or a list"),
        ("agents: {list: [{id: a, aliases: [edwinx]}]}", "1: agents.list[0].aliases[0]:"
         " 'edwinx' cannot be used; use a name that does not begin with edwin or"
         " agent:, nor begin or end with a blank"),
        ("models: {providers: {x: }}", "1: models.providers.x.api: is missing; write"
         " openai-completions, anthropic-messages, local, scripted, or"
         " package.module:Class"),
        ("models: {providers: {x/y: {api: local}}}", "1: models.providers.'x/y': cannot"
         " stand here; use letters, digits, '_', '.' and '-', at most 64, beginning"
         " with a letter or digit"),
        ("models: {providers: {x: {api: openai-completions}}}",
         "1: models.providers.x.baseUrl: is missing; write an address such as"
         " https://host/v1, without user name, query and fragment"),
        ("models: {providers: {x: {api: local, baseUrl: 'http://me:pass@h/v1'}}}",
         "1: models.providers.x.baseUrl: 'http://…@h/v1' cannot be used; use an address"
         " such as https://host/v1, without user name, query and fragment"),
    ],
)  # fmt: skip
def test_config_says_what_is_wrong(tmp_path, text, expected):
    """A fault is named with line, key, value, and what would be right."""
    assert lines(tmp_path, text) == [expected]


@pytest.mark.parametrize("value", ["12345678", "true", "1.5e3", "~", ""])
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gateway.auth.token", "gateway: {{auth: {{token: {}}}}}"),
        ("gateway.auth.password", "gateway: {{auth: {{password: {}}}}}"),
        ("gateway.sessionSecrets[0]", "gateway:\n  sessionSecrets:\n    - {}"),
        ("models.providers.x.apiKey",
         "models: {{providers: {{x: {{api: local, apiKey: {}}}}}}}"),
        ("models.providers.x.headers.x-a",
         "models: {{providers: {{x: {{api: local, headers: {{x-a: {}}}}}}}}}"),
    ],
)  # fmt: skip
def test_config_secrets_must_be_text(tmp_path, path, text, value):
    """A secret that YAML takes for something else is an error that says to quote it."""
    (line,) = lines(tmp_path, text.format(value))
    assert f": {path}: is " in line
    assert "quote it" in line
    assert not value or value == "true" or value not in line


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("gateway: {auth: {token: ' hunter2'}}", {}),
        ("gateway: {auth: {token: '${T}'}}", {"T": "hunter2\n"}),
        ("gateway: {auth: {token: [hunter2]}}", {}),
        ("gateway: {auth: {token: {hunter2: x}}}", {}),
        ("gateway: {auth: hunter2}", {}),
        ("gateway: {sessionSecrets: hunter2}", {}),
        ("gateway: {sessionSecrets: [hunter2]}", {}),
        ("gateway: {sessionSecrets: ['${T}', '${T}']}", {"T": "hunter2" * 8}),
        ("gateway: {port: '${T}'}", {"T": "hunter2"}),
        ("models: {providers: {x: {api: local, apiKey: ' hunter2'}}}", {}),
        ('models: {providers: {x: {api: local, headers: {a: "hunter2\\n"}}}}', {}),
        ("models: {providers: {x: {api: local, baseUrl: 'http://hunter2@h'}}}", {}),
    ],
)
def test_config_errors_repeat_no_secret(tmp_path, text, environ):
    """No message holds a secret, nor what a variable holds."""
    assert "hunter2" not in "\n".join(lines(tmp_path, text, **environ))


def test_config_says_which_variable_is_missing(tmp_path):
    """A key that went away with its variable is missing for that reason."""
    text = (
        "models:\n  providers:\n    x: {api: openai-completions, baseUrl: '${X_URL}'}"
    )
    (line,) = lines(tmp_path, text)
    assert line.startswith("3: models.providers.x.baseUrl: is missing, as X_URL is not")


def test_config_reports_several_faults_in_order(tmp_path):
    """All that is wrong is reported at once, schema or rule, as the file has it."""
    text = (
        "models:\n  providers: {openai: {api: opeani}}\n"
        "gateway:\n  bind: 0.0.0.0\n  auth: {token: short}\n  port: x\n"
        "agents:\n  list: [{id: a}, {id: A, model: opnai/x, extra: 1}]\n"
    )
    found = [line.split(": ")[:2] for line in lines(tmp_path, text)]
    assert found == [
        ["2", "models.providers.openai.api"],
        ["4", "gateway.bind"],
        ["6", "gateway.port"],
        ["8", "agents.list[1].id"],
        ["8", "agents.list[1].model"],
        ["8", "agents.list[1].extra"],
    ]


def test_config_variables_become_what_the_schema_wants():
    """Where a number or bool is wanted, a value that is one variable becomes one."""
    document = {
        "gateway": {
            "port": "${PORT}",
            "shutdownSeconds": "${SECONDS:-2.5}",
            "auth": {"token": "${TOKEN}"},
            "http": {"endpoints": {"chatCompletions": {"enabled": "${ON}"}}},
        },
        "agents": {"defaults": {"params": {"temperature": "${TEMP}", "stop": "${N}"}}},
    }
    environ = {
        "PORT": "0", "ON": "true", "TOKEN": "12345678", "TEMP": "0.5", "N": "5",
    }  # fmt: skip
    config = from_document(document, environ=environ)
    assert config.gateway.port == 0
    assert config.gateway.shutdown_seconds == 2.5
    assert config.gateway.auth.token == "12345678"
    assert config.gateway.http.endpoints.chat_completions.enabled is True
    assert config.agents["main"].params == {"temperature": 0.5, "stop": "5"}


@pytest.mark.parametrize("value", ["${A}${B}", "1${A}", "$${A}", "'5'"])
def test_config_mixed_variables_stay_text(value):
    """A value that is more than one variable is text, also where a number is wanted."""
    document = {"gateway": {"port": value}}
    with pytest.raises(ConfigError, match=r"^configuration: gateway.port: .* is text"):
        from_document(document, environ={"A": "1", "B": "2"})


@pytest.mark.parametrize(
    "document",
    [
        {"gateway": None, "agents": None, "models": None},
        {
            "gateway": {
                "auth": None,
                "http": {"endpoints": None},
                "sessionSecrets": None,
            }
        },
        {"agents": {"list": None, "defaults": {"params": None, "fallbacks": None}}},
        {"models": {"providers": {"local": None}}},
    ],
)
def test_config_empty_sections_are_empty(document):
    """A section or list with nothing after it says nothing."""
    assert from_document(document) == from_document({})


def test_config_defaults_are_complete():
    """Every key of the schemas that has a default stands in defaults.yaml with it."""
    for path, shape in KEYS:
        if "default" in shape.schema and path[:3] != ("agents", "list", "*"):
            node = find(DEFAULTS, tuple("local" if p == "*" else p for p in path))
            assert node is not None, path
            assert plain(node) == shape.schema["default"], path


def test_config_defaults_are_those_of_the_schemas():
    """Every key of defaults.yaml is in the schemas, with that default."""

    def leaves(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                yield from leaves(child, (*path, key))
        else:
            yield path, value

    for path, value in leaves(plain(DEFAULTS), ()):
        shape = SHAPE.at(path)
        assert shape is not None, path
        if path != ("models", "providers", "local", "api"):
            assert shape.schema["default"] == value, path


def test_config_defaults_have_comments():
    """A comment stands above every key of defaults.yaml that is not a mere section."""
    text = resources.read("conf", "defaults.yaml").decode().split("\n")
    for path, shape in KEYS:
        node = find(DEFAULTS, tuple("local" if p == "*" else p for p in path))
        if node is not None and "default" in shape.schema and path[3:4] != ("*",):
            assert text[node.place.line - 2].lstrip().startswith("#"), path


@pytest.mark.parametrize(("path", "shape"), KEYS, ids=NAMES)
def test_config_schemas_describe_every_key(path, shape):
    """Every key has a description, and every pattern says what it wants."""
    assert shape.schema.get("description", "").endswith("."), path
    if "pattern" in shape.schema:
        assert shape.schema["x-expected"]
        # "$" alone lets a line break through in Python's dialect.
        assert shape.schema["pattern"].endswith("(?!\\n)$")


@pytest.mark.parametrize("name", ["edwin", "gateway", "agents", "models"])
def test_config_schemas_are_valid_with_their_examples(name):
    """Each schema is one of Draft 2020-12, and has examples that hold."""
    schema = json.loads(resources.read("schemas", f"config/{name}.json"))
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"edwin:config/{name}"
    assert schema["examples"]
    for example in schema["examples"]:
        assert list(oracle(f"config/{name}").iter_errors(example)) == []


def rows() -> dict[str, str]:
    """Return the documentation's tables: key to default."""
    found = {}
    docs = resources.folder("conf").joinpath("../docs/configuration.md")
    for line in docs.read_text("utf-8").split("\n"):
        if line.startswith("| `"):
            key, default, _ = (cell.strip() for cell in line[1:].split("|", 2))
            found[key.strip("`")] = default.strip("` ")
    return found


def test_config_docs_have_every_key():
    """docs/configuration.md has every key of the schemas with its default."""
    docs = resources.folder("conf").joinpath("../docs/configuration.md")
    text, table = docs.read_text("utf-8"), rows()
    wanted = set()
    for path, shape in KEYS:
        if "properties" in shape.schema and "default" not in shape.schema:
            continue
        name = ".".join(map(str, path)).replace("agents.list.*.", "agents.*.")
        name = name.replace("agents.defaults.", "agents.*.")
        if ".params." in name:
            assert f"`{path[-1]}`" in text, name
            continue
        if name in ("agents.*.id", "agents.*.aliases"):
            name = name.replace("*", "list[]")
        wanted.add(name)
        default = shape.schema.get("default", "")
        said = default if isinstance(default, str) else json.dumps(default)
        assert table.get(name) == said, name
    assert set(table) == wanted


VALUES = st.recursive(
    st.booleans() | st.integers(-5, 10**6) | st.floats(-2, 2) | st.text(max_size=8)
    | st.sampled_from(["local/x", "token", "main", "http://h", "openai-completions"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([str(path[-1]) for path, _ in KEYS]), inner),
    max_leaves=6,
)  # fmt: skip
LEAVES = st.sampled_from([path for path, _ in KEYS])


@settings(deadline=None)
@given(st.lists(st.tuples(LEAVES, VALUES), min_size=1, max_size=3))
def test_config_verdict_is_that_of_jsonschema(changes):
    """What is accepted is valid by jsonschema; what is refused is explained."""
    document: dict[str, Any] = {}
    for path, value in changes:
        place: Any = document
        for part in path[:-1]:
            part = "local" if part == "*" else part
            child = place.get(part) if isinstance(place, dict) else None
            if not isinstance(child, dict):
                child = {}
                if isinstance(place, dict):
                    place[part] = child
            place = child
        place[path[-1]] = value
    try:
        from_document(document)
    except ConfigError as error:
        assert "schemas/config" not in error.message
        assert all(": " in line and ";" in line for line in error.message.split("\n"))
    else:
        document.setdefault("models", {}).setdefault("providers", {})
        for provider in document["models"]["providers"].values():
            provider.setdefault("api", "local")
        assert list(oracle("config/edwin").iter_errors(document)) == []
