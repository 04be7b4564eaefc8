"""Cutting a long session, and never sending a call without its answer."""

from __future__ import annotations

import pytest

from edwin.sessions.canonical import digest
from edwin.sessions.window import cut, sendable
from edwin.tokens import estimate_tokens
from edwin.types import Entry
from tests.sessions.test_reconcile import a, brief, t, u


def entries(*messages):
    return [Entry(i, "r", m, False, digest(m)) for i, m in enumerate(messages, 1)]


TURNS = entries(u("1"), a("A"), u("2"), a("B"), u("3"), a("C"))


@pytest.mark.parametrize(
    ("max_messages", "max_tokens", "kept"),
    [
        (6, 100, ["u:1", "a:A", "u:2", "a:B", "u:3", "a:C"]),
        (5, 100, ["u:2", "a:B", "u:3", "a:C"]),
        (3, 100, ["u:3", "a:C"]),
        (1, 100, []),
        (6, 5, ["u:2", "a:B", "u:3", "a:C"]),
        (6, 1, []),
    ],
)
def test_window_cuts_whole_turns(max_messages, max_tokens, kept):
    """What does not fit goes in whole turns, the oldest first."""
    result = cut(TURNS, [u("4")], max_messages=max_messages, max_tokens=max_tokens)
    assert [brief(m) for m in result] == kept


def test_window_keeps_a_call_that_is_being_answered():
    """The turn whose call the request answers stays, however small the window."""
    history = entries(u("1"), a("A"), u("2"), a("", "c1"), u("3"), a("C"))
    result = cut(history, [t("c1")], max_messages=1, max_tokens=1)
    assert [brief(m) for m in result] == ["u:2", "a:(c1)", "u:3", "a:C"]


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ([u("1"), a("x", "c1"), u("2")], ["u:1", "a:x", "u:2"]),
        ([u("1"), a("", "c1"), u("2")], ["u:1", "u:2"]),
        (
            [u("1"), a("", "c1", "c2"), t("c2"), u("2")],
            ["u:1", "a:(c2)", "t:c2", "u:2"],
        ),
        ([u("1"), a("", "c1"), u("2"), t("c1")], ["u:1", "a:(c1)", "t:c1", "u:2"]),
        (
            [a("", "c0"), u("1"), a("", "c0"), t("c0")],
            ["u:1", "a:(c0)", "t:c0"],
        ),
        ([t("c1"), u("1")], ["u:1"]),
    ],
)
def test_window_sends_no_call_without_its_answer(messages, sent):
    """Every call that goes up is answered right after it; its text always stays."""
    assert [brief(m) for m in sendable(messages)] == sent


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (u(""), 0),
        (u("abcde"), 2),
        (u("žž"), 1),
        (a("", "c1"), 1),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "abcd"},
                    {"type": "image_url", "image_url": {"url": "data:,"}},
                ],
            },
            1001,
        ),
    ],
)
def test_window_estimates(message, tokens):
    """A token is four bytes of UTF-8, rounded up, and an image is a thousand."""
    assert estimate_tokens(message) == tokens
