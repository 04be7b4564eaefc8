"""Who can read the state folder."""

from __future__ import annotations

import os

import pytest

from edwin.doctor.folder import check_folder
from edwin.state import Holder
from tests.doctor.conftest import told


def test_doctor_needs_no_state_folder(make_config, state):
    """Before the first start there is none, and nothing is made."""
    expected = [("ok", f"{state} will be made at the first start")]
    assert told(check_folder(make_config(), None)) == expected
    assert not state.exists()


def test_doctor_likes_a_private_folder(make_config, state):
    """The folder that a gateway made is as it should be; who holds it is told."""
    state.mkdir(mode=0o700)
    (state / "token").touch(mode=0o600)
    (level, _), (_, holder) = told(
        check_folder(make_config(), Holder(7, "http://127.0.0.1:1"))
    )
    assert level == "ok"
    assert holder.endswith("pid 7, http://127.0.0.1:1")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_doctor_finds_files_that_others_can_read(make_config, state, mode):
    """Each file that others may read is named, with the command that mends it."""
    state.mkdir(mode=0o700)
    for name in ("edwin.db", "token"):
        (state / name).touch()
        (state / name).chmod(0o600)
    (state / "token").chmod(mode)
    (finding,) = check_folder(make_config(), None)
    assert (finding.level, finding.check) == ("problem", "permissions")
    assert finding.what == f"{state / 'token'} has mode {mode:04o}"
    assert finding.fix == f"chmod 600 {state / 'token'}"


def test_doctor_finds_a_folder_that_others_can_enter(make_config, state):
    """So is the folder itself."""
    state.mkdir()
    state.chmod(0o755)
    (finding,) = check_folder(make_config(), None)
    assert finding.fix == f"chmod 700 {state}"


def test_doctor_finds_that_the_folder_is_none(make_config, state):
    """A file in the folder's place is a problem."""
    state.write_text("")
    assert told(check_folder(make_config(), None)) == [
        ("problem", f"{state} is no folder")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_doctor_finds_that_the_folder_is_anothers(make_config, state):
    """Who looks as another user than the gateway's is told so."""
    state.mkdir(mode=0o700)
    os.chown(state, 12345, -1)
    (finding,) = check_folder(make_config(), None)
    assert finding.level == "warning"
    assert f"{state} belongs to user 12345" in finding.what
