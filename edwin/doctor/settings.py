"""Is the configuration right, and does it say what it seems to say?"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edwin.config import Config
from edwin.config.file import parse
from edwin.config.layers import FILE
from edwin.config.tree import Node, dotted, nearest
from edwin.config.variables import VARIABLE, substitute
from edwin.doctor.finding import Finding, ok, problem, warning
from edwin.errors import ConfigError

VARIABLES = (
    *("EDWIN_CONFIG", "EDWIN_STATE_DIR"),
    *("EDWIN_GATEWAY_TOKEN", "EDWIN_GATEWAY_PASSWORD"),
)
"""The variables of the environment that Edwin itself looks at."""

_SECRET_KEYS = frozenset(("token", "password", "apiKey", "sessionSecrets", "headers"))
_OF_MODE = {
    "EDWIN_GATEWAY_TOKEN": "token",
    "EDWIN_GATEWAY_PASSWORD": "password",
}


def refused(error: ConfigError) -> Iterator[Finding]:
    """Yield what is wrong with a configuration that cannot be used."""
    for line in error.message.splitlines():
        yield problem(
            "configuration", line, "no gateway starts with it", "correct that line"
        )


def check_settings(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the configuration's file, and at the environment beside it."""
    chat = config.gateway.http.endpoints.chat_completions
    where = config.source or "no file, the defaults alone"
    state = "on" if chat.enabled else "off"
    yield ok("configuration", f"{where}; chat completions are {state}")
    tree = _tree(config.source) if config.source else None
    named = set(_variables(tree)) if tree else set()
    for name in sorted(environ):
        if name.startswith("EDWIN_") and name not in {*VARIABLES, *named}:
            guess = nearest(name, VARIABLES)
            yield warning(
                "environment",
                f"{name} is set, and nothing looks at it",
                "what it was meant to say is not said",
                f"write {guess}" if guess else "remove it",
            )
    yield from _of_another_mode(config, environ)
    if tree is not None and config.source is not None:
        yield from _unset(tree, environ)
        yield from _readable(config.source, tree)


def _of_another_mode(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    mode = config.gateway.auth.mode
    for name, of in _OF_MODE.items():
        if environ.get(name) and of != mode:
            yield warning(
                "environment",
                f"{name} is set, and gateway.auth.mode is {mode}",
                "that secret lets nobody in",
                f"remove it, or set gateway.auth.mode: {of}",
            )


def _unset(tree: Node, environ: Mapping[str, str]) -> Iterator[Finding]:
    gone: dict[Any, str] = {}
    substitute(tree, environ, gone, [])
    for path, name in gone.items():
        yield warning(
            "configuration",
            f"{dotted(path)} is left out, because {name} is not set",
            "the gateway runs as if that line were not there",
            f"set {name}, or write ${{{name}:-a default}}",
        )


def _readable(file: Path, tree: Node) -> Iterator[Finding]:
    """Yield that others on this machine can read the secrets that stand in *file*."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return
    if mode & 0o077 and any(_secrets(tree)):
        yield problem(
            "permissions",
            f"{file} has secrets in it, and mode {mode:04o}",
            "others on this machine can read them",
            f"chmod 600 {file}, or take the secrets from variables",
        )


def _tree(file: Path) -> Node | None:
    try:
        return parse(file.read_bytes(), str(file), FILE)
    except (OSError, ConfigError):
        # It was read a moment ago; whoever changes it will ask again.
        return None


def _variables(node: Node) -> Iterator[str]:
    """Yield the names of the variables that the texts of *node* take."""
    if isinstance(node.value, str):
        yield from (match[1] for match in VARIABLE.finditer(node.value) if match[1])
    for child in _children(node):
        yield from _variables(child)


def _secrets(node: Node, secret: bool = False) -> Iterator[bool]:
    """Yield something for each secret that stands in *node* itself."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _secrets(child, secret or key in _SECRET_KEYS)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _secrets(child, secret)
    elif secret and node.value and not VARIABLE.search(str(node.value)):
        yield True


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node.value, dict):
        yield from node.value.values()
    elif isinstance(node.value, list):
        yield from node.value
