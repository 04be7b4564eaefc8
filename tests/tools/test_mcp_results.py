"""What an MCP server's tool gives back, as text."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from edwin.tools.base import ToolFailed
from edwin.tools.mcp_results import one_line, text

DATA = base64.b64encode(b"x" * 1204).decode()


def result(*content: Any, **fields: Any) -> CallToolResult:
    """Return a result of these parts; texts stand for parts of text."""
    parts = [
        TextContent(type="text", text=part) if isinstance(part, str) else part
        for part in content
    ]
    return CallToolResult(content=parts, **fields)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (result("one", "two"), "one\ntwo"),
        (result("said", structured_content={"a": 1}), "said"),
        (result(structured_content={"a": [1, "é"]}), '{"a":[1,"é"]}'),
        (result(), '""'),
        (
            result(ImageContent(type="image", mime_type="image/png", data=DATA)),
            "[image image/png, 1,204 bytes: not passed on]",
        ),
        (
            result(AudioContent(type="audio", mime_type="audio/wav", data="eHg="), "a"),
            "a\n[audio audio/wav, 2 bytes: not passed on]",
        ),
        (
            result(ResourceLink(type="resource_link", name="n", uri="file:///a")),
            "[link file:///a: not followed]",
        ),
        (
            result(
                EmbeddedResource(
                    type="resource",
                    resource=TextResourceContents(uri="file:///a", text="inside"),
                )
            ),
            "inside",
        ),
        (
            result(
                EmbeddedResource(
                    type="resource",
                    resource=BlobResourceContents(
                        uri="file:///a", mime_type="application/pdf", blob=DATA
                    ),
                )
            ),
            "[resource application/pdf, 1,204 bytes: not passed on]",
        ),
        (result("half \ud83d"), "half \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_mcp_results_are_text(given, read):
    """The model reads text; of what is none it reads a note."""
    assert text(given) == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (result("no paper", is_error=True), "no paper"),
        (result(is_error=True), "the tool failed, and does not say why"),
        (result("é" * (1 << 19), "x"), "more than the 1048576"),
    ],
)
def test_mcp_results_failures(given, said):
    """What the server calls an error is a failure, and so is what is too large."""
    with pytest.raises(ToolFailed, match=said):
        text(given)


def test_mcp_results_largest():
    """A result of exactly 1 MiB is passed on."""
    assert len(text(result("x" * (1 << 20)))) == 1 << 20


def test_mcp_results_one_line():
    """What goes to the log is one short line without secrets."""
    assert one_line("a\n b\tkey-1\ud83d", ["key-1"]) == "a b ***?"
    assert len(one_line("x" * 10_000)) == 300
