"""The rules of a configuration that no schema can say: names, secrets, addresses.

Every rule takes the merged tree as it is, right or wrong, so that all that is wrong
can be reported at once; what has the wrong shape is left to ``check``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edwin.addresses import is_loopback
from edwin.config.principals import unix_seconds
from edwin.config.schema import Shape
from edwin.config.tools import PYTHON
from edwin.config.tree import (
    Node,
    Path,
    Place,
    Problem,
    dotted,
    find,
    is_unicode,
    merge,
    nearest,
)
from edwin.errors import shorten

MIN_SECRET = 16

HEADERS: Path = (
    "gateway",
    "http",
    "endpoints",
    "chatCompletions",
    "sessionHeaders",
)
AGENTS: Path = ("agents", "list")
DEFAULTS: Path = ("agents", "defaults")
PROVIDERS: Path = ("models", "providers")
PRINCIPALS: Path = ("gateway", "auth", "principals")

# What an answer would give away, and what has a meaning of its own.
TAKEN_HEADERS = frozenset(
    {
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-edwin-agent-id",
        "x-edwin-session-key",
    }
)


class Secret(NamedTuple):
    """The secret that lets requests in, and where it was given."""

    value: str
    origin: str


def problems(tree: Node, shape: Shape, environ: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with *tree* beyond the schemas."""
    return [
        *_agent_names(tree),
        *_models(tree),
        *_params(tree, shape),
        *_headers(tree),
        *_addresses(tree),
        *_auth(tree, shape, environ),
        *_bind(tree, environ),
        *_proxies(tree),
        *_tls(tree),
        *_principals(tree),
        *_python_agents(tree),
        *_tools(tree),
    ]


def secret(tree: Node, environ: Mapping[str, str]) -> Secret | None:
    """Return the secret of the configured mode, or None; an empty one is none."""
    mode = _text(tree, ("gateway", "auth", "mode"))
    if mode not in ("token", "password"):
        return None
    path = ("gateway", "auth", mode)
    value = _text(tree, path)
    if value:
        node = find(tree, path)
        shown = f" {node.shown}" if node and node.shown else ""
        return Secret(value, f"{dotted(path)}{shown}")
    name = f"EDWIN_GATEWAY_{mode.upper()}"
    value = environ.get(name, "")
    return Secret(value, name) if value else None


def _text(tree: Node, path: Path) -> str:
    node = find(tree, path)
    return node.value if node and isinstance(node.value, str) else ""


def _items(tree: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    """Yield the children of the list or map at *path*, if it is one."""
    node = find(tree, path)
    value = node.value if node else None
    if isinstance(value, list):
        yield from (((*path, i), item) for i, item in enumerate(value))
    elif isinstance(value, dict):
        yield from (((*path, key), child) for key, child in value.items())


def _agent_names(tree: Node) -> Iterator[Problem]:
    """No two agents share an id, whatever its case, or an alias."""
    ids: dict[str, Path] = {}
    aliases: dict[str, Path] = {}
    for path, item in _items(tree, AGENTS):
        name = _text(item, ("id",))
        yield from _twice(ids, name.lower(), (*path, "id"), tree)
        for alias_path, alias in _items(tree, (*path, "aliases")):
            if isinstance(alias.value, str):
                yield from _twice(aliases, alias.value, alias_path, tree)


def _twice(
    seen: dict[str, Path], name: str, path: Path, tree: Node
) -> Iterator[Problem]:
    node = find(tree, path)
    if node is None or not name:
        return
    if name in seen:
        text = f"{shorten(name)!r} is {dotted(seen[name])} already; use another name"
        yield Problem(node.place, path, text)
    seen.setdefault(name, path)


def _models(tree: Node) -> Iterator[Problem]:
    """Every model's provider is configured."""
    configured = find(tree, PROVIDERS)
    if configured is None or not isinstance(configured.value, dict):
        return
    providers = list(configured.value)
    for path in (DEFAULTS, *(path for path, _ in _items(tree, AGENTS))):
        model = find(tree, (*path, "model"))
        named = [((*path, "model"), model)] if model else []
        for where, node in (*named, *_items(tree, (*path, "fallbacks"))):
            name, slash, _ = str(node.value).partition("/")
            if slash and name not in providers:
                near = nearest(name, providers)
                right = f"did you mean {near}?" if near else _known(providers)
                text = f"provider {shorten(name)!r} is not configured; {right}"
                yield Problem(node.place, where, text)


def _python_agents(tree: Node) -> Iterator[Problem]:
    """An agent that is Python code has no model beside it, and no tools."""
    for path, item in _items(tree, AGENTS):
        if find(item, ("python",)) is None:
            continue
        for name in ("model", "fallbacks", "tools"):
            node = find(item, (name,))
            if node is not None:
                text = "is for agents with a model; remove it, or python"
                yield Problem(node.place, (*path, name), text)
    for path, node in _items(tree, PROVIDERS):
        if path[-1] == PYTHON:
            text = f"{PYTHON!r} stands for agents in Python; use another name"
            yield Problem(node.place, path, text)


def _tools(tree: Node) -> Iterator[Problem]:
    """A tool is a function or a server, and a server a program or an address."""
    for path in (DEFAULTS, *(path for path, _ in _items(tree, AGENTS))):
        for where, item in _items(tree, (*path, "tools")):
            kinds = ("python", "mcp")
            yield from _one_of(item, where, kinds)
            other: dict[str, tuple[str, ...]] = {
                "python": ("allow", "prefix"),
                "mcp": ("name", "description"),
            }
            for kind, names in other.items():
                yield from _not_beside(item, where, kind, names)
            server = find(item, ("mcp",))
            if server is not None and isinstance(server.value, dict):
                ways: dict[str, tuple[str, ...]] = {
                    "command": ("headers",),
                    "url": ("args", "env", "cwd"),
                }
                yield from _one_of(server, (*where, "mcp"), tuple(ways))
                for kind, names in ways.items():
                    yield from _not_beside(server, (*where, "mcp"), kind, names)


def _one_of(item: Node, path: Path, names: tuple[str, ...]) -> Iterator[Problem]:
    given = [name for name in names if find(item, (name,)) is not None]
    if len(given) != 1 and isinstance(item.value, dict):
        has = "both" if given else "neither"
        text = f"has {has} of {' and '.join(names)}; give one of them"
        yield Problem(item.place, path, text)


def _not_beside(
    item: Node, path: Path, kind: str, names: tuple[str, ...]
) -> Iterator[Problem]:
    if find(item, (kind,)) is None:
        return
    for name in names:
        node = find(item, (name,))
        if node is not None:
            text = f"means nothing beside {kind}; remove it"
            yield Problem(node.place, (*path, name), text)


def _known(providers: list[str]) -> str:
    return f"use {', '.join(providers)}, or add it to {dotted(PROVIDERS)}"


def _params(tree: Node, shape: Shape) -> Iterator[Problem]:
    """A field the API does not know must be one that the agent passes through."""
    params = shape.at((*DEFAULTS, "params"))
    known = params.keys if params else []
    decided = params.schema["propertyNames"]["not"]["enum"] if params else []
    base = find(tree, DEFAULTS)
    if base is None:
        return
    agents = list(_items(tree, AGENTS))
    if not any(_text(item, ("id",)).lower() == "main" for _, item in agents):
        agents.insert(0, (DEFAULTS, base))
    seen: set[Place] = set()
    for path, item in agents:
        agent = merge(base, item)
        passed = {
            node.value
            for _, node in _items(agent, ("passthrough",))
            if isinstance(node.value, str)
        }
        for (*_, name), node in _items(agent, ("params",)):
            if name in (*known, *decided, *passed) or node.place in seen:
                continue
            seen.add(node.place)
            near = nearest(str(name), known)
            hint = f"did you mean {near}?" if near else "remove it"
            text = f"is not a field of the API; {hint} or list it in passthrough"
            yield Problem(node.place, (*path, "params", name), text)


def _headers(tree: Node) -> Iterator[Problem]:
    """A session header is neither a secret nor one with a meaning of its own."""
    for path, node in _items(tree, HEADERS):
        if str(node.value).lower() in TAKEN_HEADERS:
            text = f"{node.value!r} cannot name a session; use another header"
            yield Problem(node.place, path, text)


def _addresses(tree: Node) -> Iterator[Problem]:
    """The port in a provider's address is one."""
    for path, item in _items(tree, PROVIDERS):
        port = re.match(r"https?://[^/]*:([0-9]+)(/|$)", _text(item, ("baseUrl",)))
        node = find(item, ("baseUrl",))
        if port and node and int(port[1]) > 65535:
            text = f"port {port[1]} is too large; use at most 65535"
            yield Problem(node.place, (*path, "baseUrl"), text)


def _auth(tree: Node, shape: Shape, environ: Mapping[str, str]) -> Iterator[Problem]:
    """The mode has its secret, in a form that a header can carry."""
    mode = _text(tree, ("gateway", "auth", "mode"))
    given = secret(tree, environ)
    node = find(tree, ("gateway", "auth", "mode"))
    if node and mode == "password" and given is None:
        text = "is missing; write one in quotes, or set EDWIN_GATEWAY_PASSWORD"
        yield Problem(node.place, ("gateway", "auth", "password"), text)
    rule = shape.at(("gateway", "auth", mode))
    if rule and given and given.origin.startswith("EDWIN_"):
        fits = re.search(rule.schema["pattern"], given.value)
        if not fits or not is_unicode(given.value):
            place = Place("environment", 0, (4, 0))
            text = f"{given.origin} cannot be used; use {rule.expected}"
            yield Problem(place, (), text)


def _bind(tree: Node, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Others than this machine need a secret that is worth the name."""
    path = ("gateway", "bind")
    node = find(tree, path)
    bind = _text(tree, path).strip("[]")
    if node is None or not bind or is_loopback(bind):
        return
    mode = _text(tree, ("gateway", "auth", "mode"))
    reached = f"{shorten(bind)} can be reached by others"
    if mode == "none":
        text = f"{reached}, and auth.mode none lets them in; use 127.0.0.1, or token"
        yield Problem(node.place, path, text)
    given = secret(tree, environ)
    insecure = find(tree, ("gateway", "auth", "allowInsecure"))
    allowed = insecure is not None and insecure.value is True
    if given and len(given.value) < MIN_SECRET and not allowed:
        text = (
            f"{reached}, and the {mode} has {len(given.value)} characters; use at least"
            f" {MIN_SECRET}, or 127.0.0.1, or auth.allowInsecure: true"
        )
        yield Problem(node.place, path, text)


def _proxies(tree: Node) -> Iterator[Problem]:
    """A trusted proxy is a network, or one address."""
    for path, node in _items(tree, ("gateway", "trustedProxies")):
        if not isinstance(node.value, str):
            continue
        try:
            ipaddress.ip_network(node.value)
        except ValueError:
            text = (
                f"{shorten(node.value)!r} is no network; write an address, or a CIDR"
                " without bits behind its length, such as 10.0.0.0/8"
            )
            yield Problem(node.place, path, text)


def _tls(tree: Node) -> Iterator[Problem]:
    """A certificate goes with its key."""
    path: Path = ("gateway", "tls")
    given = {str(where[-1]): node for where, node in _items(tree, path)}
    for name, other in (("certFile", "keyFile"), ("keyFile", "certFile")):
        if name in given and other not in given:
            text = f"is missing, and {name} is there; name both files"
            yield Problem(given[name].place, (*path, other), text)


def _principals(tree: Node) -> Iterator[Problem]:
    """Principals have names of their own, and days that exist; a proxy is trusted."""
    names: dict[str, Path] = {}
    for path, item in _items(tree, PRINCIPALS):
        name, place = _text(item, ("id",)), (*path, "id")
        yield from _twice(names, name, place, tree)
        node = find(tree, place)
        if node and name == "owner":
            yield Problem(node.place, place, "'owner' is taken; use another name")
        node, expires = find(item, ("expiresAt",)), _text(item, ("expiresAt",))
        if node and expires and not _is_time(expires):
            text = f"{shorten(expires)!r} is no day or time; use such as 2027-01-31"
            yield Problem(node.place, (*path, "expiresAt"), text)
    mode = find(tree, ("gateway", "auth", "mode"))
    proxies = any(_items(tree, ("gateway", "trustedProxies")))
    if mode and mode.value == "trusted-proxy" and not proxies:
        text = "needs gateway.trustedProxies; name the proxy's network there"
        yield Problem(mode.place, ("gateway", "auth", "mode"), text)


def _is_time(text: str) -> bool:
    try:
        unix_seconds(text)
    except ValueError:
        return False
    return True
