"""Fill in ``${NAME}`` and ``${NAME:-default}`` in the texts of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from edwin.config.tree import Node, Path, Problem, is_unicode

VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


def substitute(
    node: Node,
    environ: Mapping[str, str],
    unset: dict[Path, str],
    problems: list[Problem],
    path: Path = (),
) -> Node | None:
    """Return the tree with the variables in its texts filled in.

    A text that needs a variable which is unset or empty, and gives no default, goes
    away together with its key or its place in a list.  What is filled in is never
    read as YAML and never searched for variables again.

    Args:
        environ: The variables.
        unset: Takes the path of each key that went away, with the variable's name.
        problems: Takes what is wrong.

    """
    if isinstance(node.value, dict):
        pairs = [
            (key, substitute(child, environ, unset, problems, (*path, key)))
            for key, child in node.value.items()
        ]
        return replace(node, value={key: child for key, child in pairs if child})
    if isinstance(node.value, list):
        items: list[Node] = []
        for item in node.value:
            child = substitute(item, environ, unset, problems, (*path, len(items)))
            items += [child] if child else []
        return replace(node, value=items)
    if not isinstance(node.value, str) or "${" not in node.value:
        return node
    filled = _fill(node.value, environ)
    if filled.flaw:
        problems.append(Problem(node.place, path, filled.flaw))
    if filled.missing:
        unset[path] = filled.missing
        return None
    return replace(node, value=filled.text, shown=node.value if filled.used else None)


class _Filled(NamedTuple):
    text: str
    used: bool
    missing: str | None
    flaw: str | None


def _fill(text: str, environ: Mapping[str, str]) -> _Filled:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``$${`` in *text*."""
    out, last = "", 0
    used, missing, flaw = False, None, None
    for match in VARIABLE.finditer(text):
        name, default = match.groups()
        out += text[last : match.start()]
        last = match.end()
        if name:
            used = True
            # Set but empty is as good as unset.
            value = environ.get(name) or default
            if value is None:
                missing = missing or name
            elif not is_unicode(value):
                flaw = f"variable {name} is not valid UTF-8; correct it"
            out += value or ""
        elif match[0] == "$${":
            out += "${"
        else:
            flaw = "'${' begins no variable; write ${NAME}, ${NAME:-default} or $${"
    return _Filled(out + text[last:], used, missing, flaw)
