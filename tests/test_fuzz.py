"""``tools/fuzz``: what it sends, and that it sees what is wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import NamedTuple

import pytest

from edwin.openapi import ROUTES
from tests.process import ROOT, environment
from tools.fuzz.requests import LEFT_OUT, Maker, Request
from tools.fuzz.round import Round

ERROR = {"message": "x", "type": "invalid_request_error", "param": None}


class Given(NamedTuple):
    """What is looked at of a response."""

    status: int
    content_type: str = "application/json"


def test_fuzz_is_repeatable():
    """The same seed makes the same requests."""
    first, second = (Maker(random.Random(7)) for _ in range(2))
    assert [first.next() for _ in range(200)] == [second.next() for _ in range(200)]


def test_fuzz_reaches_every_route():
    """Every route with something to get wrong is asked, most of all for runs."""
    maker = Maker(random.Random(7))
    asked = [maker.next() for _ in range(3000)]
    names = [request.route.name for request in asked]
    assert set(names) == {r.name for r in ROUTES if r.name not in LEFT_OUT}
    assert names.count("createChatCompletion") > 1000
    for request in asked:
        assert request.target.isascii() and " " not in request.target
        assert "{" not in request.target


@pytest.fixture
def looking(tmp_path):
    """Return a round that has a gateway, and is asked for its verdicts."""
    found = Round(tmp_path, 1)
    yield found
    found.stop()


def test_fuzz_sees_what_is_wrong(looking):
    """A 5xx, a status, a code or a body that nobody promised is a fault."""
    routes = {route.name: route for route in ROUTES}
    chat = Request(routes["createChatCompletion"], "POST", "/", [], b"")
    known = json.dumps({"error": {**ERROR, "code": "invalid_value"}}).encode()
    unknown = json.dumps({"error": {**ERROR, "code": "new_code"}}).encode()
    verdicts = [
        (Given(400), known, None),
        (Given(500), known, "status 500"),
        (Given(418), known, "status 418 is not in the contract"),
        (Given(400), unknown, "code new_code is not in the contract for 400"),
        (Given(400, "text/html"), known, "text/html is not in the contract"),
        (Given(400), b"{}", "no openai/error: "),
        (Given(200), b"{}", "no openai/chat_completion: "),
        (Given(200), b"?", "no openai/chat_completion: "),
    ]
    for given, answer, verdict in verdicts:
        found = looking._wrong(chat, given, answer)
        assert found == verdict or (verdict and found.startswith(verdict)), found


def test_fuzz_finds_nothing(tmp_path):
    """A few hundred requests break nothing, and are counted."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.fuzz", "--count", "400"],
        cwd=ROOT,
        env=environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "400 answers in " in done.stdout
    assert done.stdout.startswith("seed ")
