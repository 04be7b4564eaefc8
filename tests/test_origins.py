"""Which pages' requests are taken, and which are not."""

from __future__ import annotations

import pytest

from edwin.origins import is_foreign, normal

BOTH = ("http", "https")
ALLOWED = frozenset({"https://app.example.org", "app://obsidian.md"})


@pytest.mark.parametrize(
    ("origin", "host", "schemes", "foreign"),
    [
        (None, "gw:1", BOTH, False),
        (None, None, BOTH, False),
        ("http://gw:1", "gw:1", BOTH, False),
        ("https://gw:1", "gw:1", BOTH, False),
        ("http://gw:1", "gw:1", ("https",), True),
        ("https://gw:1", "gw:1", ("http",), True),
        ("http://GW:1", "gw:1", BOTH, False),
        ("http://gw:1", "GW:1", BOTH, False),
        ("https://gw", "gw:443", BOTH, False),
        ("http://gw", "gw:80", BOTH, False),
        ("https://gw", "gw:80", BOTH, True),
        ("http://gw:2", "gw:1", BOTH, True),
        ("http://gw", "gw:1", BOTH, True),
        ("http://[::1]:1", "[::1]:1", BOTH, False),
        ("http://evil.gw:1", "gw:1", BOTH, True),
        ("http://gw:1.evil", "gw:1", BOTH, True),
        ("http://gw:1/", "gw:1", BOTH, True),
        ("http://gw:1,http://gw:1", "gw:1", BOTH, True),
        ("http://me@gw:1", "gw:1", BOTH, True),
        ("ftp://gw:1", "gw:1", BOTH, True),
        ("gw:1", "gw:1", BOTH, True),
        ("http://", "", BOTH, True),
        ("http://gw:1", None, BOTH, True),
        ("null", "gw:1", BOTH, True),
        ("null", "null", BOTH, True),
        ("", "gw:1", BOTH, True),
        ("", "", BOTH, True),
        ("http://[", "gw:1", BOTH, True),
        ("https://app.example.org", "gw:1", BOTH, False),
        ("HTTPS://App.Example.ORG:443", "gw:1", BOTH, False),
        ("app://obsidian.md", "gw:1", BOTH, False),
        ("http://app.example.org", "gw:1", BOTH, True),
        ("https://app.example.org:8443", "gw:1", BOTH, True),
        ("https://app.example.org.evil", "gw:1", BOTH, True),
        ("https://evil-app.example.org", "gw:1", BOTH, True),
        ("*", "gw:1", BOTH, True),
    ],
)
def test_origins_foreign(origin, host, schemes, foreign):
    """A page is the gateway's own, one that is allowed, or foreign."""
    found = is_foreign(origin, schemes=schemes, host=host, allowed=ALLOWED)
    assert found is foreign


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        ("https://App.Example.org", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://app.example.org:80", "http://app.example.org"),
        ("http://app.example.org:443", "http://app.example.org:443"),
        ("https://app.example.org:80", "https://app.example.org:80"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("null", "null"),
    ],
)
def test_origins_are_as_browsers_write_them(origin, written):
    """Case does not matter, nor a port that goes without saying."""
    assert normal(origin) == written
