"""What a start sets right after a crash."""

from __future__ import annotations

import signal
import time

import pytest

from edwin.store import Store
from tests.store.samples import ANN, BOB, SECRET, answer, python, rows, run, user


async def reopened(url):
    """Start the store anew, as after a crash: nothing was said at the end."""
    store = Store(url)
    await store.start([SECRET])
    return store


@pytest.mark.gen_test
async def test_store_fails_what_a_crash_cut_off(url):
    """Runs that were queued or running when the process died are failed now."""
    before = time.time()
    store = await reopened(url)
    await store.begin(run("done", created_at=4.0), [user("done", 1)])
    await store.finish(run("done", "finished", created_at=4.0), [answer("done", 2)])
    await store.begin(run("cut", created_at=3.0), [user("cut", 3)], [2])
    await store.pend(run("waits", "queued", created_at=2.0), [])
    await store.finish(run("lost", "cancelled", created_at=1.0))
    await store.stop()
    store = await reopened(url)
    ledger = await store.runs()
    assert [(record.state, record.error_code) for record in ledger] == [
        ("finished", None),
        ("failed", "gateway_restarted"),
        ("failed", "gateway_restarted"),
        ("cancelled", None),
    ]
    assert ledger[0] == run("done", "finished", created_at=4.0)
    assert before <= ledger[1].finished_at <= time.time()
    found = await store.transcript(ANN)
    assert [one.seq for one in found.entries] == [1]
    assert found.last_seq == 3
    await store.stop()


@pytest.mark.gen_test
async def test_store_keeps_what_was_sent_to_runs_that_never_began(url, path):
    """Their messages are kept as those of their runs, and are in no transcript."""
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    store = await reopened(url)
    await store.begin(run("a"), [user("a", 1)])
    await store.finish(run("a", "finished"), [answer("a", 2)])
    for name, session, at in (("z", ANN, 1.0), ("y", ANN, 2.0), ("x", BOB, 3.0)):
        queued = run(name, "queued", session=session, created_at=at, started_at=None)
        await store.pend(
            queued,
            [
                {"role": "user", "content": f"one {name}"},
                {"role": "tool", "tool_call_id": "c", "content": [pixel]},
            ],
        )
    await store.finish(run("y", "cancelled", created_at=2.0))
    await store.stop()
    for _ in range(2):
        store = await reopened(url)
        found = await store.transcript(ANN)
        assert [one.seq for one in found.entries] == [1, 2]
        assert found.last_seq == 6
        assert (await store.transcript(BOB)).last_seq == 2
        states = {record.run_id: record.state for record in await store.runs()}
        assert (states["run_z"], states["run_y"]) == ("failed", "cancelled")
        await store.stop()
    kept = rows(
        path,
        "SELECT run_id, seq, role, body FROM messages WHERE superseded_by = run_id "
        "ORDER BY run_id DESC, seq",
    )
    assert [row[:3] for row in kept] == [
        ("run_z", 3, "user"),
        ("run_z", 4, "tool"),
        ("run_y", 5, "user"),
        ("run_y", 6, "tool"),
        ("run_x", 1, "user"),
        ("run_x", 2, "tool"),
    ]
    assert kept[0][3] == '{"role":"user","content":"one z"}'
    assert rows(path, "SELECT data FROM blobs") == [(b"data:image/png;base64,AAAA",)]
    assert rows(path, "SELECT * FROM pending") == []


@pytest.mark.gen_test
async def test_store_has_what_it_confirmed_after_a_kill(tmp_path):
    """What begin() and finish() returned for is there after SIGKILL."""
    code = """
import asyncio, sys
from edwin.store import Store
from tests.store.samples import SECRET, answer, run, user

async def main():
    store = Store(sys.argv[1])
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    await store.finish(run("a", "finished"), [answer("a", 2)])
    await store.begin(run("b"), [user("b", 3)])
    print("durable", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    url = f"sqlite:///{tmp_path}/edwin.db"
    process = python(code, url)
    assert process.stdout.readline() == "durable\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = await reopened(url)
    found = await store.transcript(ANN)
    assert [one.run_id for one in found.entries] == ["run_a", "run_a"]
    assert (found.last_seq, found.last_state) == (3, "finished")
    states = {record.run_id: record.error_code for record in await store.runs()}
    assert states == {"run_a": None, "run_b": "gateway_restarted"}
    await store.stop()
