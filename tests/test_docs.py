"""The documents: what they say is so, and what they show can be run."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
import time
import typing
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

import edwin
from edwin import errors, types, violations
from edwin.app import routes
from edwin.cli import agent, gateway
from edwin.config import load
from edwin.gateway import Gateway
from edwin.validate import Schemas, retrieve
from edwin.wire.fields import FIELDS
from tests.process import ROOT, GatewayProcess, environment
from tests.test_layers import MIGRATIONS, MODULES, ROWS

README = ROOT / "README.md"
DOCS = {path.stem: path for path in (ROOT / "docs").glob("*.md")}
PAGES = [README, ROOT / "CHANGELOG.md", *DOCS.values()]
SCHEMAS = Schemas()
ADDRESS = ("127.0.0.1", 18789)
TOKEN = "YOUR_TOKEN"
SCRIPTED = {
    "agents": {"defaults": {"model": "scripted/echo"}},
    "models": {"providers": {"scripted": {"api": "scripted"}}},
}


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of *path* that are written in *language*."""
    fenced = rf"^```{language}\n(.*?)^```$"
    return re.findall(fenced, path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def section(path: Path, heading: str) -> str:
    """Return what stands under *heading* in *path*, down to the next of its rank."""
    rank = heading.split()[0]
    text = path.read_text("utf-8")
    assert f"\n{heading}\n" in text, f"{path.name} has no heading {heading!r}"
    return re.split(
        rf"^#{{1,{len(rank)}}} ", text.split(f"\n{heading}\n")[1], flags=re.M
    )[0]


def table(text: str) -> list[list[str]]:
    """Return the rows of every table in *text*, their heads left out."""
    rows = [
        [
            cell.strip().replace("\\|", "|")
            for cell in re.split(r"(?<!\\)\|", line)[1:-1]
        ]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    heads = [place - 1 for place, row in enumerate(rows) if set(row[0]) == {"-"}]
    return [
        row
        for place, row in enumerate(rows)
        if place not in heads and place - 1 not in heads
    ]


def quoted(cell: str) -> str:
    """Return what stands between the back quotes of *cell*."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found, f"{cell!r} is not one name in back quotes"
    return found[1]


def free(address: tuple[str, int]) -> bool:
    """Return whether nobody listens on *address*."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) != 0


@pytest.fixture(scope="module")
def documented(tmp_path_factory) -> Iterator[GatewayProcess]:
    """Return the gateway that the documents talk of: its port, its token."""
    until = time.monotonic() + 10
    while not free(ADDRESS):
        if time.monotonic() > until:
            pytest.fail(
                f"something else listens on port {ADDRESS[1]}, which the documented "
                "commands use; stop it and run the tests again",
                pytrace=False,
            )
        time.sleep(0.2)
    config = {**SCRIPTED, "gateway": {"port": ADDRESS[1], "auth": {}}}
    folder = tmp_path_factory.mktemp("documented")
    with GatewayProcess(folder, config, EDWIN_GATEWAY_TOKEN=TOKEN) as process:
        yield process


def run(*command: str, home: Path) -> str:
    """Run *command* as somebody who reads the documents, and return what it prints."""
    result = subprocess.run(
        command,
        env=environment(HOME=str(home), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1"),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_docs_readme_is_short():
    """The README is read in one go."""
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_docs_readme_curl(documented, tmp_path):
    """Both documented curl calls work word for word."""
    whole, streamed = blocks(README, "bash")
    answer = json.loads(run("bash", "-c", whole, home=tmp_path))
    SCHEMAS.check("openai/chat_completion", answer)
    assert answer["model"] == "edwin"
    assert answer["choices"][0]["message"]["content"] == "hi"

    assert streamed.startswith("curl -N ")
    events = run("bash", "-c", streamed, home=tmp_path).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    for chunk in chunks:
        SCHEMAS.check("openai/chat_completion_chunk", chunk)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "",
        "hi",
        None,
    ]


def test_docs_sessions_curl(documented, tmp_path):
    """So do the calls that read the token from where the gateway keeps it."""
    (tmp_path / ".edwin").mkdir()
    (tmp_path / ".edwin" / "token").write_text(f"{TOKEN}\n")
    (call,) = blocks(DOCS["sessions"], "sh")
    answer = json.loads(run("bash", "-c", call, home=tmp_path))
    assert answer["choices"][0]["message"]["content"] == "My name is Ada."


def test_docs_readme_sdk(documented, tmp_path):
    """The OpenAI SDK's lines run as they stand."""
    snippet = next(s for s in blocks(README, "python") if "openai" in s)
    assert run(sys.executable, "-c", snippet, home=tmp_path) == "hi\n"


def test_docs_readme_embedding(tmp_path):
    """The embedding lines serve under their prefix, save for a free port."""
    snippet = next(s for s in blocks(README, "python") if "mount" in s)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "listen(8888, " in snippet
    process = subprocess.Popen(
        [sys.executable, "-c", snippet.replace("8888", str(port))],
        env=environment(HOME=str(tmp_path)),
        cwd=tmp_path,
    )
    try:
        assert models(process, f"http://127.0.0.1:{port}/ai", tmp_path) == [
            "edwin",
            "edwin:main",
        ]
    finally:
        process.kill()
        process.wait()


def models(process: subprocess.Popen[bytes], url: str, home: Path) -> list[str]:
    """Return what a gateway that is still starting lists, with the token it made."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:
        try:
            token = (home / ".edwin" / "token").read_text().strip()
            request = urllib.request.Request(f"{url}/v1/models")
            request.add_header("Authorization", f"Bearer {token}")
            with opener.open(request, timeout=10) as response:
                return [model["id"] for model in json.load(response)["data"]]
        except (FileNotFoundError, urllib.error.URLError):
            time.sleep(0.05)
    raise AssertionError("the embedded gateway never answered")


@pytest.mark.gen_test
async def test_docs_websocket_frames(documented):
    """The documented frames are what the gateway says."""
    shown = [json.loads(b) for b in blocks(DOCS["api"], "json")]
    assert len(shown) == 4
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{documented.url}/ws") as connection,
    ):
        for sent, received in zip(shown[::2], shown[1::2], strict=True):
            SCHEMAS.check("ws/request", sent)
            SCHEMAS.check("ws/response", received)
            await connection.send_json(sent)
            assert json.loads((await connection.receive()).data) == received


def test_docs_error_example():
    """The documented error has the shape of all errors."""
    (example,) = blocks(DOCS["errors"], "json")
    SCHEMAS.check("openai/error", json.loads(example))


def test_docs_yaml_loads(tmp_path):
    """Every configuration that a document shows loads; other programs' are left out."""
    count = 0
    for page in PAGES:
        for snippet in blocks(page, "yaml"):
            first = snippet.split("\n")[0]
            if re.match(r"# [\w.-]+\.ya?ml$", first) and first != "# edwin.yaml":
                continue
            file = tmp_path / "edwin.yaml"
            file.write_text(snippet, "utf-8")
            load(file, environ={"HOME": str(tmp_path)})
            count += 1
    assert count >= 6


def test_docs_readme_configuration_switches_the_endpoint_on(tmp_path):
    """The README's first configuration does what it says."""
    file = tmp_path / "edwin.yaml"
    file.write_text(blocks(README, "yaml")[0], "utf-8")
    config = load(file, environ={"HOME": str(tmp_path)})
    assert config.gateway.http.endpoints.chat_completions.enabled


def test_docs_python_compiles():
    """Every piece of Python in a document is Python."""
    snippets = [(page, s) for page in PAGES for s in blocks(page, "python")]
    assert snippets
    for page, snippet in snippets:
        compile(snippet, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_links(page):
    """Every relative link leads to a file, and to a heading in it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
            slugs = [
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in headings
            ]
            assert anchor[1:] in slugs, f"{page.name}: {target}{anchor}"


def test_docs_request_fields():
    """The table of fields is the one that the code goes by, each with its reason."""
    rows = table(section(DOCS["api"], "## Request fields"))
    assert [(quoted(row[0]), row[1]) for row in rows] == list(FIELDS.items())
    assert all(row[2] for row in rows)


def test_docs_routes():
    """The table of routes is the URL table."""
    rows = table(section(DOCS["api"], "## Routes"))
    shown = {quoted(row[0]): row[1] for row in rows}
    served = {
        path.replace("(.+)", "{id}").replace("\\", ""): handler
        for path, handler, _ in routes(Gateway({}))
    }
    assert {route.split()[1] for route in shown} == set(served)
    for route, auth in shown.items():
        method, path = route.split()
        assert method.lower() in vars(served[path]) or path == "/ws"
        public = getattr(served[path], "public", None)
        assert auth == {True: "no", False: "yes", None: "in it"}[public]


def test_docs_run_events():
    """The table of a run's events is the one that the schema knows, with payloads."""
    schema = retrieve("edwin:runs/event")
    rows = table(section(DOCS["api"], "### Events of a run"))
    shown = {
        quoted(row[0]): set(re.findall(r"`(\w+)`", re.split("[:;]", row[1])[0]))
        for row in rows
    }
    assert list(shown) == schema["properties"]["event"]["enum"]
    for name, fields in shown.items():
        assert fields == set(schema["$defs"][name]["properties"])


def test_docs_run_fields():
    """The table of a run's fields is the schema's."""
    text = section(DOCS["api"], "## Runs").split("shows one")[1].split("###")[0]
    shown = [name for row in table(text) for name in re.findall(r"`(\w+)`", row[0])]
    assert shown == retrieve("edwin:runs/run")["required"]


def raised() -> dict[str, tuple[int, str]]:
    """Return every code that an error can have, with its status and type."""
    codes = {}
    classes = [errors.EdwinError]
    for kind in classes:
        classes += kind.__subclasses__()
        assert kind.__module__ == "edwin.errors"
        if kind.code is not None:
            codes[kind.code] = (kind.status, kind.type)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            kind = getattr(errors, called(node), None)
            if isinstance(kind, type) and issubclass(kind, errors.EdwinError):
                for code in literals(node, "code"):
                    codes[code] = (kind.status, kind.type)
    for code, _ in violations._ANSWERS.values():
        for number in ("integer", "decimal"):
            codes[code.format(number=number)] = (400, errors.INVALID)
    return codes


def called(node: ast.AST) -> str:
    """Return the name of what *node* calls, if it is a call by name."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return node.func.id if named else ""


def literals(node: ast.AST, keyword: str) -> list[str]:
    """Return what the call *node* gives as *keyword*, where that is a literal."""
    return [
        item.value.value
        for item in getattr(node, "keywords", ())
        if item.arg == keyword and isinstance(item.value, ast.Constant)
    ]


def test_docs_error_codes():
    """Every code stands in the docs with its status and type, and no other does."""
    shown = {
        quoted(row[0]): (int(row[1]), quoted(row[2]))
        for row in table(section(DOCS["errors"], "## What can go wrong"))
    }
    for row in table(section(DOCS["errors"], "## What a request can get wrong")):
        assert quoted(row[0]) not in shown
        shown[quoted(row[0])] = (400, errors.INVALID)
    assert shown == raised()


def test_docs_ledger_codes():
    """So does every code that stands in the ledger alone."""
    rows = table(section(DOCS["errors"], "## In the ledger alone"))
    written = {
        code
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for code in literals(node, "error_code")
    }
    assert {quoted(row[0]) for row in rows} == written


@pytest.mark.parametrize("command", [gateway, agent], ids=lambda c: c.name)
def test_docs_command_options(command):
    """Every option of a command stands in the docs, and no other does."""
    rows = table(section(DOCS["api"], f"### `edwin {command.name}`"))
    shown = {
        option
        for row in rows
        for option in re.findall(r"(?<![\w-])--?\w[\w-]*", row[0])
    }
    assert shown == {option for param in command.params for option in param.opts}


def test_docs_design_house():
    """The map shows every module, and no other."""
    rows = table(section(DOCS["design"], "## The house"))
    shown = {row[0].strip("`") for row in rows if row[0].endswith(".py`")}
    assert shown == {
        str(path.relative_to(ROOT / "edwin"))
        for path in MODULES
        if MIGRATIONS / "versions" not in path.parents
    }


def test_docs_design_import_rule():
    """The import rule in the map is the one that is enforced."""
    assert blocks(DOCS["design"], "text")[0].splitlines() == ROWS


def test_docs_design_events():
    """The map names every event."""
    text = section(DOCS["design"], "## Runs")
    listed = text.split("Events: ")[1].split(". ")[0]
    events = {kind.__name__ for kind in typing.get_args(types.Event)}
    assert set(re.findall(r"`(\w+)`", listed)) == events


def test_docs_public_names():
    """Every public name imports, and the changelog promises it."""
    promised = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for name in edwin.__all__:
        assert callable(getattr(edwin, name))
        assert f"`edwin.{name}`" in promised
