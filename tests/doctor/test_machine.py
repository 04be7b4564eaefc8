"""Port, open files, disk."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from edwin.doctor.machine import check_disk, check_files, check_port
from edwin.state import Holder
from tests.doctor.conftest import told


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request):
    """Return the address and the port of a socket that listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with listener:
        yield listener.getsockname()[:2]


def test_doctor_finds_who_has_the_port(make_config, listening):
    """A port in use is a problem, and whose it is is said."""
    bind, port = listening
    (finding,) = check_port(make_config({"bind": bind, "port": port}), None)
    assert (finding.level, finding.check) == ("problem", "port")
    assert f"{port} is held by pid {os.getpid()} (" in finding.what


def test_doctor_knows_the_gateway_on_its_port(make_config, listening):
    """The gateway that holds the state folder may have its port."""
    bind, port = listening
    config = make_config({"bind": bind, "port": port})
    holder = Holder(7, "http://127.0.0.1:1")
    expected = [("ok", "a gateway listens: pid 7, http://127.0.0.1:1")]
    assert told(check_port(config, holder)) == expected


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost"])
def test_doctor_finds_a_free_port(make_config, bind):
    """A port that nobody has is right, and is left free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = make_config({"bind": bind, "port": port})
    for _ in range(2):
        expected = [("ok", f"{bind}:{port} can be listened on")]
        assert told(check_port(config, None)) == expected


def test_doctor_finds_an_address_of_another_machine(make_config):
    """Nobody can listen on an address that this machine has not."""
    secret = {"token": "a-token-for-tests-only"}
    config = make_config({"bind": "192.0.2.1", "port": 0, "auth": secret})
    ((level, what),) = told(check_port(config, None))
    assert level == "problem"
    assert what.startswith("192.0.2.1:0 cannot be listened on: ")


def test_doctor_counts_open_files(make_config):
    """Too few open files for the runs is a warning that says how many there will be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine has no limit")
    ((level, _),) = told(check_files(make_config({"runs": {"maxConcurrent": 1}})))
    assert level == "ok"
    (finding,) = check_files(make_config({"runs": {"maxConcurrent": hard}}))
    assert finding.level == "warning"
    assert finding.why.startswith(f"{(hard - 128) // 2} runs ")


def test_doctor_looks_at_the_disk(make_config, state):
    """Free room is told, also where the folder is not there yet."""
    ((_, what),) = told(check_disk(make_config()))
    assert what.endswith(f"GiB are free at {state.parent}")
