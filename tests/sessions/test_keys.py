"""Session keys: the same for ever, and private."""

from __future__ import annotations

import pytest

from edwin.errors import InvalidRequest
from edwin.sessions.keys import agent_of_key, checked_key, session_key, stateless_key

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("user", "agent", "principal", "digest"),
    [
        (
            "alice",
            "main",
            "owner",
            "c96db8e589648792c2dfadd40ab4c81d",
        ),
        (
            "Alice",
            "main",
            "owner",
            "1dcf0ae87b25feca23f6ac54aa392bf3",
        ),
        (
            "alice ",
            "main",
            "owner",
            "2294aaccdde748a799dd8eee6075fb9c",
        ),
        (
            "alice",
            "beta",
            "owner",
            "21cba56f1acc88903648d67ad68eb339",
        ),
        (
            "alice",
            "main",
            "proxy:alice",
            "64343ae95707bec8346f35baefb5b240",
        ),
        (
            "žluťoučký 🐎",
            "main",
            "owner",
            "86794adcd1449dce594cc2a0c86e8ec5",
        ),
    ],
)
def test_keys_are_pinned(user, agent, principal, digest):
    """The same user, agent, principal and secret give the same key for ever."""
    key = session_key(user, agent=agent, principal=principal, secret=SECRET)
    assert key == f"agent:{agent}:openai-user:{digest}"


def test_keys_differ_after_the_300th_character():
    """Two users that differ at their very end have two sessions."""
    keys = {
        session_key("u" * 300 + end, agent="main", principal="owner", secret=SECRET)
        for end in ("", "a", "b", " ")
    }
    assert len(keys) == 4


def test_keys_do_not_run_into_each_other():
    """Agent, principal and user are told apart wherever one ends."""
    keys = {
        session_key(user, agent=agent, principal=principal, secret=SECRET)
        for user, agent, principal in [
            ("c", "a", "b"),
            ("bc", "a", ""),
            ("c", "ab", ""),
            ("b\0c", "a", ""),
        ]
    }
    assert len(keys) == 4


def test_keys_depend_on_the_secret():
    """Another deployment gives the same user another key."""
    one = session_key("u", agent="main", principal="owner", secret=SECRET)
    assert one != session_key("u", agent="main", principal="owner", secret=SECRET[1:])


@pytest.mark.parametrize("user", ["", " ", "\t\n"])
def test_keys_need_a_user(user):
    """A blank user has no key."""
    with pytest.raises(ValueError, match="blank"):
        session_key(user, agent="main", principal="owner", secret=SECRET)


@pytest.mark.parametrize("key", ["x", "agent:main:a", "!" * 512, "~"])
def test_keys_from_a_client_are_taken_as_they_stand(key):
    """A session key is 1 to 512 printable ASCII characters."""
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", "a b", "x" * 513, "é", "a\x7f", "a\n", "\t"])
def test_keys_from_a_client_are_checked(key):
    """Any other session key names its header as the field at fault."""
    with pytest.raises(InvalidRequest) as caught:
        checked_key(key)
    assert caught.value.param == "x-edwin-session-key"


@pytest.mark.parametrize(
    ("key", "agent"),
    [
        ("agent:beta:chat-1", "beta"),
        ("agent:BETA:chat-1", "beta"),
        ("agent:beta", None),
        ("agent::x", None),
        ("beta:x", None),
        (stateless_key("main", "0"), "main"),
    ],
)
def test_keys_name_their_agent(key, agent):
    """A key ``agent:<id>:…`` belongs to that agent."""
    assert agent_of_key(key) == agent
