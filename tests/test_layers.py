"""The house: imports go down the list, never up and never sideways."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    "cli",
    "testing",
    "gateway",
    "listener",
    "app",
    "handlers",
    "dispatch ledger history people reload openapi doctor",
    "runs",
    "executor",
    "auth routing sessions providers tools agents",
    "store",
    "config state client",
    "validate wire",
    "violations tokens limiter quotas tracing audit origins tls",
    "types addresses",
    "errors resources log presence metrics monitor ids notify",
]
LEVEL = {room: row for row, rooms in enumerate(ROWS) for room in rooms.split()}
TORNADO = {"gateway", "listener", "app", "handlers", "testing"}
PURE = {
    *("wire", "validate", "routing", "addresses", "origins"),
    *("limiter", "quotas", "tokens"),
    *("sessions.keys", "sessions.reconcile", "sessions.canonical", "sessions.window"),
}
EVERYTHING = {"Exception", "BaseException"}
USERS_CODE = {"executor.calls", "agents.python", "agents.threads", "tools.threads"}
MODULES = sorted(p for p in (ROOT / "edwin").rglob("*.py") if p.name != "__init__.py")
CHILD = ROOT / "edwin" / "providers" / "llama_child.py"
MIGRATIONS = ROOT / "edwin" / "store" / "migrations"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "edwin").with_suffix("").parts)


def room(name: str) -> str:
    return name.split(".")[0]


def imports(path: Path) -> Iterator[str]:
    """Yield what *path* imports, save for type checking and as a command."""
    tree = ast.parse(path.read_text("utf-8"))
    exempt = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in exempt:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "edwin":
                yield from (f"edwin.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_layers_imports_go_down(path):
    """A room imports itself and rooms further down, nothing else."""
    mine = room(dotted(path))
    assert mine in LEVEL, f"{mine} has no place in the house"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "edwin" and rest and not rest.startswith("__version__"):
            other = room(rest)
            assert other == mine or LEVEL[other] > LEVEL[mine], f"{mine} -> {other}"
        if top == "tornado":
            assert mine in TORNADO, f"{mine} imports Tornado"
        if top == "aiohttp":
            assert mine in ("providers", "client"), f"{mine} imports an HTTP client"
        if top in ("sqlalchemy", "alembic"):
            assert mine == "store", f"{mine} imports {top}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_layers_pure_rooms_take_no_clock(path):
    """Pure rooms are given the time, randomness and the loop, they take none."""
    name = dotted(path)
    if any(name == pure or name.startswith(pure + ".") for pure in PURE):
        taken = {module.split(".")[0] for module in imports(path)}
        assert not taken & {"time", "datetime", "random", "secrets", "uuid", "asyncio"}


def test_layers_child_process_imports_nothing_of_edwin():
    """The embedded model's process stands alone."""
    assert not [name for name in imports(CHILD) if name.split(".")[0] == "edwin"]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_layers_no_mutable_state_in_modules(path):
    """No module keeps state: no ``global``, no empty container waiting to be filled."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Global)]
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and value is not None:
            assert not isinstance(value, ast.List | ast.Set | ast.Dict) or (
                ast.unparse(value) not in ("[]", "{}", "set()")
            ), ast.unparse(node)


def test_layers_proportions():
    """Modules and functions stay small enough to be read."""
    lengths = [len(p.read_text("utf-8").splitlines()) for p in MODULES]
    assert max(lengths) <= 400
    assert statistics.median(lengths) <= 150
    for path in MODULES:
        if MIGRATIONS in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if node.body and ast.get_docstring(node):
                    length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                assert length <= 50, f"{path.name}: {node.name} has {length} lines"


def test_layers_broad_excepts():
    """Only a run's last guard and the socket's reader catch everything."""
    found = {
        dotted(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in EVERYTHING)
        # Who raises it again has not caught it.
        and ast.unparse(node.body[-1]) != "raise"
    }
    # Beside them, who calls code that is the user's own.
    assert found == {"runs.carry", "handlers.socket", *USERS_CODE}


def test_layers_import_edwin_is_bare():
    """``import edwin`` loads no third-party module."""
    code = (
        "import sys; before = set(sys.modules); import edwin; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before}"
        " - sys.stdlib_module_names)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert (result.stdout.split(), result.stderr) == (["edwin"], "")
