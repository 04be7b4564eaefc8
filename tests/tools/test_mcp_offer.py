"""Which of a server's tools an agent has, and by which names."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from edwin.tools.mcp_offer import Offer, fit, tools
from edwin.types import ToolSource

OBJECT = {"type": "object"}


async def call(name, arguments):
    """Make no call."""
    return name


def names(*offered: Offer, **source: object) -> list[str]:
    """Return the names of the tools that are made of *offered*."""
    made = tools(offered, ToolSource(**source), call, label="x")
    return [tool.name for tool in made]


@given(st.text(max_size=200))
def test_mcp_offer_names_fit(name):
    """Whatever a server calls its tools, providers take the name."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", fit(name))


def test_mcp_offer_names_are_kept():
    """A name that fits stays; one that is too long keeps its beginning."""
    assert fit("read_file-2") == "read_file-2"
    assert fit("files/read.now") == "files_read_now"
    assert fit("a" * 64) == "a" * 64
    long, other = fit("a" * 65), fit("a" * 66)
    assert long != other
    assert long.startswith("a" * 50)


def test_mcp_offer_one_name_once(caplog):
    """Of two tools that come to have one name the first counts, with a warning."""
    assert names(Offer("a.b", "", OBJECT), Offer("a/b", "", OBJECT)) == ["a_b"]
    (record,) = caplog.records
    assert record.fields["tool"] == "a/b"


def test_mcp_offer_unusable_schemas_are_left_out(caplog):
    """A tool whose schema is none is left out with a warning; the others are there."""
    bad = {"type": "object", "properties": {"a": {"type": 1}}}
    elsewhere = {"$ref": "https://example.com/schema"}
    offered = [Offer("a", "", bad), Offer("b", "", elsewhere), Offer("c", "", OBJECT)]
    assert names(*offered) == ["c"]
    assert [record.fields["tool"] for record in caplog.records] == ["a", "b"]


def test_mcp_offer_allow_and_prefix():
    """Patterns are of the server's own names; the prefix stands before those."""
    offered = [Offer(name, "", OBJECT) for name in ("read_a", "read_b", "write_a")]
    assert names(*offered, allow=("read_*",), prefix="fs_") == [
        "fs_read_a",
        "fs_read_b",
    ]
    assert names(*offered, allow=()) == []
    assert names(*offered, allow=("READ_*", "write_?")) == ["write_a"]
