"""Lay what was configured over the defaults, and let nothing wrong through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edwin import resources
from edwin.config import rules
from edwin.config.check import check
from edwin.config.file import parse
from edwin.config.schema import Shape, fit
from edwin.config.tree import (
    Node,
    Path,
    Problem,
    fault,
    find,
    from_python,
    merge,
    put,
)
from edwin.config.variables import substitute

DEFAULTS, ENVIRONMENT, FILE, OPTIONS = range(4)

STATE_DIR = ("gateway", "stateDir")
PROVIDERS = ("models", "providers")


def layered(
    tree: Node, environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> Node:
    """Return the whole configuration: every section is there, and in order.

    From the bottom: the shipped defaults, EDWIN_STATE_DIR, *tree* with its variables
    filled in, *overrides*.  Maps merge, everything else replaces.

    Raises:
        ConfigError: If anything is wrong.

    """
    problems: list[Problem] = []
    unset: dict[Path, str] = {}
    shape = Shape.load()
    defaults = parse(resources.read("conf", "defaults.yaml"), "defaults", DEFAULTS)
    whole = defaults
    if environ.get("EDWIN_STATE_DIR"):
        folder = from_python(environ["EDWIN_STATE_DIR"], "EDWIN_STATE_DIR", ENVIRONMENT)
        whole = put(whole, STATE_DIR, folder)
    filled = substitute(tree, environ, unset, problems) or tree
    whole = _with_provider_defaults(merge(whole, fit(filled, shape)), defaults)
    for key, value in overrides.items():
        if value is not None:
            whole = put(whole, key.split("."), from_python(value, "options", OPTIONS))
    problems += check(whole, shape, unset)
    problems += rules.problems(whole, shape, environ)
    if problems:
        raise fault(problems)
    return whole


def _with_provider_defaults(tree: Node, defaults: Node) -> Node:
    """Lay the shipped provider's settings, but for its api, under every provider."""
    shipped, providers = find(defaults, (*PROVIDERS, "local")), find(tree, PROVIDERS)
    assert shipped and isinstance(shipped.value, dict)
    base = Node({k: v for k, v in shipped.value.items() if k != "api"}, shipped.place)
    if providers and isinstance(providers.value, dict):
        for name, node in providers.value.items():
            if name != "local" and isinstance(node.value, dict):
                tree = put(tree, (*PROVIDERS, name), merge(base, node))
    return tree
