"""What commands print, for people."""

from __future__ import annotations

import pytest

from edwin.cli.output import facts, message_text, moment, printable, table


def test_cli_output_table():
    """Columns are as wide as what is in them, and nothing trails."""
    rows = [("a", "long cell", ""), ("long", "b", "c")]
    assert list(table(("ONE", "TWO", "THREE"), rows)) == [
        "ONE   TWO        THREE",
        "a     long cell",
        "long  b          c",
    ]
    assert list(facts([("a", "1"), ("long", "")])) == ["a     1", "long"]


def test_cli_output_moment():
    """Times are in UTC and say so."""
    assert moment(0.9) == "1970-01-01 00:00:00Z"
    assert moment(None) == "-"


def test_cli_output_is_harmless_for_a_terminal():
    """What a terminal would obey is shown, line breaks and tabs are kept."""
    assert printable("a\tb\nc\x1b[2J\x9b\r\u202eé 👍") == (
        "a\tb\nc\\x1b[2J\\x9b\\r\\u202eé 👍"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "plain"}, "plain"),
        ({"content": None}, ""),
        ({"content": None, "refusal": "no"}, "no"),
        (
            {
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:"}},
                ]
            },
            "look\n[image_url]",
        ),
        (
            {
                "content": "wait",
                "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            'wait\n[calls f {"a":1}]',
        ),
    ],
)
def test_cli_output_message(message, text):
    """A message is shown as its text, with a word for what is none."""
    assert message_text(message) == text
