"""Documents that are almost valid: examples, damaged in a few places."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# One value of each JSON type and from each side of its usual limits.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    1.5,
    129,
    -101,
    2**63,
    -(2.0**64),
    1e300,
    "",
    " ",
    "x",
    "wizard",
    "text",
    "user",
    "function",
    "a b",
    "näme",
    "x" * 65,
    "x" * 5000,
    [],
    [None],
    ["x"],
    [{}],
    ["x"] * 5,
    {},
    {"type": "text"},
    {"type": "text", "text": "x"},
    {"type": 1},
    {"role": "user"},
    {"name": "x"},
)
# No two of them read as the same number.
KEYS = ("x", "", "05", "a/b", "a~1b", "é", "type", "role", "k" * 65)

Place = tuple[Any, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def places(document: Any) -> Iterator[Place]:
    """Yield (container, key or index) of every value in *document*."""
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield document, key
            yield from places(document[key])


def _drop(draw: Draw, holder: Any, key: Any) -> None:
    del holder[key]


def _retype(draw: Draw, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))


def _exceed(draw: Draw, holder: Any, key: Any) -> None:
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = "wizard"
    elif isinstance(value, int | float):
        holder[key] = draw(st.sampled_from((value + 1000, -value - 1000, value + 0.5)))
    elif isinstance(value, str):
        holder[key] = draw(st.sampled_from((value * 700, value + "\n", value + "?")))
    elif isinstance(value, list):
        small = value and sum(1 for _ in places(value)) < 40
        holder[key] = [copy.deepcopy(value[0]) if small else "x" for _ in range(130)]
    else:
        value.update({f"key {i}": "x" for i in range(20)})


def _nest(draw: Draw, holder: Any, key: Any) -> None:
    for _ in range(draw(st.sampled_from((1, 2, 60)))):
        holder[key] = [holder[key]] if draw(st.booleans()) else {"x": holder[key]}


def _add(draw: Draw, holder: Any, key: Any) -> None:
    value = copy.deepcopy(draw(st.sampled_from(VALUES)))
    if isinstance(holder, dict):
        holder[draw(st.sampled_from(KEYS))] = value
    else:
        holder.insert(key, value)


def _rename(draw: Draw, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[draw(st.sampled_from(KEYS))] = holder.pop(key)


DAMAGES = (_drop, _retype, _exceed, _nest, _add, _rename)


@st.composite
def mutated(draw: Draw, examples: Sequence[Any], most: int = 3) -> Any:
    """Draw one of *examples* with up to *most* places dropped, retyped, and so on."""
    document = copy.deepcopy(draw(st.sampled_from(list(examples))))
    for _ in range(draw(st.integers(0, most))):
        found = list(places(document))
        if not 0 < len(found) < 2000:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        draw(st.sampled_from(DAMAGES))(draw, holder, key)
    return document
