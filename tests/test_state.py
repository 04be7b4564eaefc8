"""The state folder: who holds it, and what others are told."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from edwin.errors import StateError
from edwin.state import Holder, StateFolder, holder
from tests.process import ROOT, environment


@pytest.fixture
def folder(tmp_path):
    """Return a state folder, let go afterwards."""
    made = StateFolder(tmp_path / "state")
    yield made
    made.release()


def test_state_holder(folder):
    """Who asks is told the process and, once it listens, where; then that it left."""
    assert holder(folder.path) is None
    folder.acquire()
    assert holder(folder.path) == Holder(os.getpid(), None)
    folder.announce("127.0.0.1", 18789)
    assert holder(folder.path) == Holder(os.getpid(), "http://127.0.0.1:18789")
    folder.release()
    assert holder(folder.path) is None
    folder.acquire()
    assert holder(folder.path) == Holder(os.getpid(), None)


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://localhost:80"),
        ("192.0.2.7", "http://192.0.2.7:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("2001:db8::1", "http://[2001:db8::1]:80"),
        ("gateway.example", "http://gateway.example:80"),
    ],
)
def test_state_announces_what_can_be_reached(folder, bind, url):
    """An address that stands for all of the machine's is announced as loopback."""
    folder.acquire()
    folder.announce(bind, 80)
    found = holder(folder.path)
    assert found is not None and found.url == url


def test_state_refusal_names_the_holder(folder):
    """Who comes second is told the holder's process and address."""
    folder.acquire()
    other = StateFolder(folder.path)
    with pytest.raises(StateError, match=rf"\(pid {os.getpid()}\)"):
        other.acquire()
    folder.announce("127.0.0.1", 18789)
    expected = rf"\(pid {os.getpid()}, http://127\.0\.0\.1:18789\)"
    with pytest.raises(StateError, match=expected):
        other.acquire()


def test_state_of_a_killed_process_is_free(folder):
    """What a killed process said of itself is not believed."""
    code = (
        "import os, sys; from pathlib import Path; from edwin.state import StateFolder;"
        "held = StateFolder(Path(sys.argv[1])); held.acquire();"
        "held.announce('127.0.0.1', 1); os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder.path)], env=environment(), cwd=ROOT
    )
    assert ":1\n" in (folder.path / "lock").read_text()
    assert holder(folder.path) is None
    folder.acquire()


def test_state_is_not_refused_for_one_who_looks(folder):
    """Whoever only looks does not make a gateway's start fail."""
    folder.acquire()
    folder.release()
    looking = os.open(folder.path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    leave = threading.Timer(0.02, os.close, [looking])
    leave.start()
    folder.acquire()
    leave.join()
    assert holder(folder.path) == Holder(os.getpid(), None)


def test_state_lock_that_cannot_be_read(tmp_path):
    """A lock that is no file is an error that names the folder."""
    (tmp_path / "lock").symlink_to("lock")
    with pytest.raises(StateError, match=f"{tmp_path} cannot be used"):
        holder(tmp_path)


def test_state_found_token(folder):
    """The token is found without holding the folder, and none is made by looking."""
    folder.path.mkdir()
    assert folder.found_token() is None and not list(folder.path.iterdir())
    folder.acquire()
    token = folder.token()
    assert StateFolder(folder.path).found_token() == token == folder.token()
