"""What the audit log keeps, and what it costs."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import threading
import time

import aiohttp
import pytest

from edwin import audit
from edwin.audit import AuditLog, Source
from edwin.testing.reply import Reply
from tests.conftest import Client, chat
from tests.test_docs import DOCS, quoted, section, table

WHO = Source("owner", "203.0.113.7", "req_1")


@pytest.fixture
def make_log(tmp_path):
    """Make audit logs that are stopped at the end."""
    made = []

    def make(path=tmp_path / "audit.jsonl", **settings) -> AuditLog:
        made.append(AuditLog(path, **settings))
        return made[-1]

    yield make
    for log in made:
        log.stop()


def lines(path) -> list[dict]:
    """Return what stands in the file, each line by itself JSON."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def until(condition) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def test_audit_lines(make_log):
    """An event is a line of JSON: when, what, who, from where, by which request."""
    log = make_log()
    before = round(time.time(), 3)
    log.start()
    log.write("session.deleted", WHO, agent="main")
    log.write("gateway.stopped")
    log.stop()
    deleted, stopped = lines(log.path)
    assert before <= deleted.pop("at") <= stopped.pop("at") <= time.time() + 0.001
    assert deleted == {
        "event": "session.deleted",
        "principal": "owner",
        "address": "203.0.113.7",
        "request_id": "req_1",
        "agent": "main",
    }
    assert stopped == {
        "event": "gateway.stopped",
        "principal": None,
        "address": None,
        "request_id": None,
    }
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_audit_is_written_at_once(make_log):
    """Nobody has to wait for a line until the gateway stops."""
    log = make_log()
    log.start()
    log.write("token.revoked", WHO)
    until(log.path.exists)
    until(lambda: log.path.read_bytes().endswith(b"\n"))
    (line,) = lines(log.path)
    assert line["event"] == "token.revoked"


def test_audit_goes_on_behind_what_is_there(make_log):
    """A start adds to the file; a line that a crash cut off spoils no other."""
    log = make_log()
    log.path.write_bytes(b'{"event":"a"}\n{"event":"b')
    log.start()
    log.write("gateway.started")
    log.stop()
    whole, torn, added = log.path.read_bytes().splitlines()
    assert (whole, torn) == (b'{"event":"a"}', b'{"event":"b')
    assert json.loads(added)["event"] == "gateway.started"


def test_audit_rotates_by_size(make_log):
    """A long file is moved away, and only so many are kept."""
    log = make_log(max_bytes=1000, files=3)
    log.start()
    for number in range(60):
        log.write("session.reset", WHO, number=number)
        until(lambda: not log._waiting)
    log.stop()
    files = [log.path, *(log.path.with_name(f"audit.jsonl.{n}") for n in (1, 2))]
    assert sorted(log.path.parent.iterdir()) == sorted(files)
    numbers = [line["number"] for file in reversed(files) for line in lines(file)]
    assert numbers == list(range(numbers[0], 60))
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert all(file.stat().st_size >= 1000 for file in files[1:])


def test_audit_counts_what_repeats_itself(make_log):
    """Ten thousand wrong secrets from one address are two lines."""
    log = make_log()
    log.start()
    for number in range(10_000):
        source = Source(None, f"2001:db8::{number % 9:x}", f"req_{number}")
        log.count("auth.failed", source)
    log.count("auth.failed", Source(None, "198.51.100.1", "other"))
    log.stop()
    first, other, repeated = lines(log.path)
    assert (first["request_id"], other["request_id"]) == ("req_0", "other")
    assert "count" not in first
    assert (repeated["count"], repeated["request_id"]) == (9_999, "req_9999")
    assert first["at"] <= repeated["since"] <= repeated["at"]


def test_audit_counts_for_a_while(make_log):
    """What was counted is told when the window is over, and a new one begins."""
    log = make_log(window_s=0.05)
    log.start()
    for _ in range(3):
        log.count("limit.hit", WHO, limit="requestsPerMinute")
    until(lambda: log.path.exists() and len(lines(log.path)) == 2)
    log.count("limit.hit", WHO, limit="requestsPerMinute")
    until(lambda: len(lines(log.path)) == 3)
    assert [line.get("count") for line in lines(log.path)] == [None, 2, None]


def test_audit_counts_many_addresses_as_one(make_log):
    """Who attacks from everywhere cannot wash out what else there is to read."""
    log = make_log()
    log.start()
    for number in range(5_000):
        address = f"10.{number >> 8}.{number & 255}.1"
        log.count("auth.failed", Source(None, address, "req"))
    log.stop()
    found = lines(log.path)
    assert len(found) == audit.MAX_COUNTED + 1
    assert (found[-1]["count"], found[-1]["address"]) == (5_000 - 32, None)


def test_audit_waits_for_the_disk(make_log, tmp_path, caplog):
    """What cannot be written is written when it can, in order."""
    folder = tmp_path / "gone"
    log = make_log(folder / "audit.jsonl")
    log.start()
    with caplog.at_level(logging.WARNING, "edwin"):
        log.write("session.deleted", WHO)
        until(lambda: "the audit log cannot be written" in caplog.text)
        log.write("session.reset", WHO)
        folder.mkdir()
        until(lambda: log.path.exists() and len(lines(log.path)) == 2)
    assert [line["event"] for line in lines(log.path)] == [
        "session.deleted",
        "session.reset",
    ]
    assert "is written again" in caplog.text


def test_audit_loses_lines_loudly(make_log, tmp_path, error_log):
    """Too many lines for a broken disk are lost, and both logs say how many."""
    log = make_log()
    for _ in range(audit.MAX_WAITING + 7):
        log.write("session.reset", WHO)
    log.start()
    log.stop()
    found = lines(log.path)
    assert len(found) == audit.MAX_WAITING + 1
    assert (found[-1]["event"], found[-1]["count"]) == ("audit.lost", 7)
    assert [r.getMessage() for r in error_log] == ["7 lines of the audit log are lost"]
    error_log.clear()

    lost = make_log(tmp_path / "nowhere" / "audit.jsonl")
    lost.start()
    lost.write("gateway.stopped")
    lost.stop()
    assert [r.getMessage() for r in error_log] == ["1 lines of the audit log are lost"]
    error_log.clear()


def test_audit_is_cheap_to_add_to(make_log):
    """Adding an event costs microseconds, however slow the disk is."""
    log = make_log()
    log.start()
    started = time.thread_time()
    for _ in range(5_000):
        log.count("auth.failed", WHO)
    assert (time.thread_time() - started) / 5_000 < 0.001


def test_audit_ends_its_thread(make_log):
    """A log that was stopped leaves no thread behind, and can be started again."""
    log = make_log()
    for _ in range(2):
        log.start()
        log.write("gateway.started")
        log.stop()
        log.stop()
    assert "edwin-audit" not in {thread.name for thread in threading.enumerate()}
    assert len(lines(log.path)) == 2


@pytest.mark.gen_test
async def test_audit_of_a_gateway(make_gateway, tmp_path):
    """The audit log tells of starts and stops, wrong secrets, and ends of sessions."""
    served = await make_gateway(state_dir=tmp_path / "state")
    client = Client(served)
    for number in range(11):
        answer = await client.request("/v1/models", token=f"wrong-{number}")
        assert answer.code == (401 if number < 10 else 429)
    where = "/v1/sessions/item?agent=main&key=mine"
    session = {"x-edwin-session-key": "mine"}
    # The address is shut out; its right secret was never seen.
    assert (await client.request(where, method="DELETE")).code == 429
    await served.stop()

    served = await make_gateway(state_dir=tmp_path / "state")
    client = Client(served)
    assert (await client.chat("My name is Ada.", headers=session)).status == 200
    document = {"agent": "main", "key": "mine"}
    reset = await client.request("/v1/sessions/reset", document)
    deleted = await client.request(where, method="DELETE")
    assert (reset.code, deleted.code) == (200, 200)
    assert (await client.request(where, method="DELETE")).code == 404
    await served.stop()

    found = lines(tmp_path / "state" / audit.FILE)
    assert [(line["event"], line.get("count")) for line in found] == [
        ("gateway.started", None),
        ("auth.failed", None),
        ("auth.locked_out", None),
        ("gateway.stopped", None),
        ("auth.failed", 9),
        ("gateway.started", None),
        ("session.reset", None),
        ("session.deleted", None),
        ("gateway.stopped", None),
    ]
    assert found[1]["address"] == "127.0.0.1"
    assert [line["request_id"] for line in found[6:8]] == [
        reset.headers["x-request-id"],
        deleted.headers["x-request-id"],
    ]
    assert found[7]["principal"] == found[7]["owner"] == "owner"
    kept = (tmp_path / "state" / audit.FILE).read_text()
    for unsaid in ("Ada", "mine", "wrong", "a-token-for-tests"):
        assert unsaid not in kept


@pytest.mark.gen_test
async def test_audit_of_a_socket(served):
    """A wrong secret in a WebSocket's first frame is told like any other."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{served.url}/ws") as connection,
    ):
        auth = {"auth": {"token": "wrong"}}
        frame = {"type": "req", "id": "1", "method": "connect", "params": auth}
        await connection.send_json(frame)
        assert not json.loads((await connection.receive()).data)["ok"]
    await served.stop()
    events = [line["event"] for line in lines(served.gateway.audit.path)]
    assert events == ["gateway.started", "auth.failed", "gateway.stopped"]


def test_audit_events_are_documented():
    """Every event stands in the docs, and no other does."""
    rows = table(section(DOCS["operations"], "## The audit log"))
    shown = [quoted(row[0]) for row in rows if "." in row[0]]
    assert shown == [*audit.EVENTS, audit.LOST]


@pytest.mark.gen_test
async def test_audit_of_a_run_that_another_ends(make_gateway):
    """Who ends another's run is told, who ends its own is not."""
    token = f"edw_ada_{'x' * 43}"
    ada = {
        "id": "ada",
        "tokenHash": f"sha256:{hashlib.sha256(token.encode()).hexdigest()}",
        "scopes": ["runs:create", "runs:cancel"],
    }
    served = await make_gateway({"gateway": {"auth": {"principals": [ada]}}})
    served.upstream.default = Reply(deltas=("on", "and", "on"), gap_s=5)
    client = Client(served)
    runs = []
    for _ in range(2):
        begun = await client.request("/v1/runs", chat(), token=token)
        assert begun.code == 202
        runs.append(json.loads(begun.body)["id"])
    own = await client.request(f"/v1/runs/{runs[0]}/cancel", b"", token=token)
    others = await client.request(f"/v1/runs/{runs[1]}/cancel", b"")
    assert (own.code, others.code) == (200, 200)
    await served.stop()
    _, told, _ = lines(served.gateway.audit.path)
    assert told["event"] == "run.cancelled_by_another"
    assert (told["principal"], told["owner"]) == ("owner", "ada")
    assert (told["run"], told["address"]) == (runs[1], "127.0.0.1")
    assert told["request_id"] == others.headers["x-request-id"]
