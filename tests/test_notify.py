"""The service manager: what it is told, on a socket like systemd's."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from edwin.notify import STOP_MARGIN_S, ServiceManager
from tests.process import GatewayProcess, edwin

SCRIPTED = {
    "agents": {"defaults": {"model": "scripted/echo"}},
    "models": {"providers": {"scripted": {"api": "scripted"}}},
}


@pytest.fixture
def manager(request, tmp_path):
    """Return a datagram socket as a service manager has one, and its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        if getattr(request, "param", "path") == "path":
            name = str(tmp_path / "notify")
            bound.bind(name)
        else:
            name = f"@edwin-test-{os.getpid()}"
            bound.bind("\0" + name[1:])
        bound.settimeout(30)
        yield bound, name


def told(bound: socket.socket) -> dict[str, str]:
    """Return the next thing that was said."""
    lines = bound.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("manager", ["path", "abstract"], indirect=True)
def test_notify_says_ready_once_it_listens_and_stopping_when_it_stops(
    manager, tmp_path
):
    """READY=1 comes when requests can come, STOPPING=1 with the time a stop takes."""
    bound, name = manager
    config = {**SCRIPTED, "gateway": {"shutdownSeconds": 7}}
    with GatewayProcess(tmp_path, config, NOTIFY_SOCKET=name) as process:
        ready = told(bound)
        assert ready["READY"] == "1"
        address = process.url.removeprefix("http://")
        assert ready["STATUS"] == f"listening on {address}"
        process.terminate()
        stopping = told(bound)
        assert stopping["STOPPING"] == "1"
        wait_us = int(stopping["EXTEND_TIMEOUT_USEC"])
        assert wait_us == (7 + STOP_MARGIN_S) * 1_000_000
        assert process.wait() == 0


def test_notify_a_gateway_that_does_not_start_is_never_ready(manager, tmp_path):
    """A gateway whose port is taken says nothing of being ready."""
    bound, name = manager
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = edwin("gateway", "--port", port, cwd=tmp_path, NOTIFY_SOCKET=name)
    assert result.returncode == 1 and "cannot be bound" in result.stderr
    bound.setblocking(False)
    with pytest.raises(BlockingIOError):
        bound.recv(4096)


def test_notify_says_that_the_loop_turns(manager, tmp_path):
    """With WatchdogSec it says WATCHDOG=1 again and again, twice as often as asked."""
    bound, name = manager
    asked = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}
    with GatewayProcess(tmp_path, SCRIPTED, **asked):
        assert told(bound)["READY"] == "1"
        begun_at = time.monotonic()
        for _ in range(3):
            assert told(bound) == {"WATCHDOG": "1"}
        assert 0.35 < time.monotonic() - begun_at < 5


@pytest.mark.parametrize(
    ("environ", "beat_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_notify_beats_for_whom_the_manager_waits(environ, beat_s):
    """Half of WATCHDOG_USEC, unless that is meant for another process or is nothing."""
    given = {"NOTIFY_SOCKET": "/nowhere", **environ}
    assert ServiceManager(given).beat_s == beat_s
    assert ServiceManager(environ).beat_s is None


def test_notify_without_a_manager_says_nothing(caplog):
    """Where no service manager started the process, none is looked for."""
    manager = ServiceManager({})
    manager.ready("listening")
    manager.alive()
    manager.stopping(30)
    assert not caplog.records


def test_notify_goes_on_when_nobody_hears(caplog, tmp_path):
    """A socket that is gone is a warning in the log, and the process goes on."""
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "service manager cannot be told" in record.getMessage()


def test_notify_does_not_wait_for_a_manager_that_does_not_read(manager):
    """A full socket costs a line in the log, and no time."""
    _, name = manager
    saying = ServiceManager({"NOTIFY_SOCKET": name})

    def say_much() -> None:
        for _ in range(1_000):
            saying.alive()

    # In a thread, so that a call that waits fails the test instead of keeping it.
    thread = threading.Thread(target=say_much, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
