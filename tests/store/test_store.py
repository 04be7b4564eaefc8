"""The store's promises, on real files."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from edwin.errors import InternalError, StorageUnavailable
from edwin.store import Store
from edwin.types import SessionId, Transcript, Usage
from tests.store.samples import ANN, BOB, SECRET, answer, entry, of, rows, run, user


async def turn(store, name, seq, *, session=ANN, state="finished", supersede=()):
    """Store one user message and its answer."""
    begun = run(name, session=session)
    ended = run(name, state, session=session)
    await store.begin(begun, [user(name, seq, f"question {seq}")], supersede)
    await store.finish(ended, [answer(name, seq + 1, f"answer {seq}")])


def texts(transcript: Transcript) -> list[str]:
    return [entry.message["content"] for entry in transcript.entries]


@pytest.mark.gen_test
async def test_store_gives_back_what_it_was_given(store):
    """A transcript holds the entries as they were appended, in order."""
    asked = entry("a", 1, {"role": "user", "name": "ann", "content": "x"})
    called = entry(
        "a",
        2,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": 1}'},
                }
            ],
        },
        own=True,
    )
    await store.begin(run("a"), [asked])
    await store.finish(run("a", "finished"), [called])
    assert await store.transcript(ANN) == Transcript(
        (asked, called),
        last_seq=2,
        last_state="finished",
        last_delivered=False,
        used_at=1001.25,
    )


@pytest.mark.gen_test
async def test_store_of_an_unknown_session_is_empty(store):
    """A session nobody used has an empty transcript."""
    assert await store.transcript(ANN) == Transcript()
    assert await store.runs(**of(ANN)) == []


@pytest.mark.gen_test
async def test_store_orders_by_place(store):
    """Messages come back by their place, whatever order they were written in."""
    await store.begin(run("a"), [user("a", 12), user("a", 3), user("a", 7)])
    found = await store.transcript(ANN)
    assert [entry.seq for entry in found.entries] == [3, 7, 12]
    assert found.last_seq == 12


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "other",
    [
        ANN._replace(principal="OWNER"),
        ANN._replace(principal="owner "),
        ANN._replace(agent="main2"),
        ANN._replace(key=ANN.key + "0"),
        SessionId("owner\0main", "main", ANN.key),
    ],
)
async def test_store_keeps_sessions_apart(store, other):
    """Principal, agent and key together are the session: no two of them mix."""
    await turn(store, "a", 1)
    await turn(store, "b", 1, session=other)
    assert (await store.transcript(ANN)).entries[0].run_id == "run_a"
    assert (await store.transcript(other)).entries[0].run_id == "run_b"
    assert [record.run_id for record in await store.runs(**of(other))] == ["run_b"]


@pytest.mark.gen_test
async def test_store_leaves_failed_runs_out(store):
    """A failed run's messages are kept, but in no transcript; its places stay used."""
    await turn(store, "a", 1)
    await turn(store, "b", 3, state="failed")
    found = await store.transcript(ANN)
    assert texts(found) == ["question 1", "answer 1"]
    assert (found.last_seq, found.last_state) == (4, "finished")


@pytest.mark.gen_test
async def test_store_keeps_what_a_cancelled_run_said(store):
    """A cancelled run stays in the transcript, and its state says what it was."""
    await turn(store, "a", 1, state="cancelled")
    found = await store.transcript(ANN)
    assert texts(found) == ["question 1", "answer 1"]
    assert found.last_state == "cancelled"


@pytest.mark.gen_test
async def test_store_leaves_superseded_messages_out(store, path):
    """A superseded message leaves the transcript, not the database."""
    await turn(store, "a", 1)
    await turn(store, "b", 3, supersede=[2])
    await turn(store, "c", 5, supersede=[2, 4])
    found = await store.transcript(ANN)
    assert [entry.seq for entry in found.entries] == [1, 3, 5, 6]
    assert found.last_seq == 6
    assert rows(path, "SELECT seq, superseded_by FROM messages WHERE seq < 5") == [
        (1, None),
        (2, "run_b"),
        (3, None),
        (4, "run_c"),
    ]


@pytest.mark.gen_test
async def test_store_supersedes_in_its_own_session_alone(store):
    """A place is superseded in the run's session, in no other."""
    await turn(store, "a", 1)
    await turn(store, "b", 1, session=BOB)
    await turn(store, "c", 3, supersede=[1, 2])
    assert len((await store.transcript(BOB)).entries) == 2


@pytest.mark.gen_test
async def test_store_refuses_a_place_that_is_taken(store):
    """A double append fails cleanly: nothing of it is written."""
    await turn(store, "a", 1)
    with pytest.raises(InternalError) as caught:
        await store.begin(run("b"), [user("b", 3), user("b", 2)], [1])
    assert "hello" not in str(caught.value.__cause__)
    assert texts(await store.transcript(ANN)) == ["question 1", "answer 1"]
    assert [record.run_id for record in await store.runs()] == ["run_a"]
    assert store.writable


@pytest.mark.gen_test
async def test_store_refuses_entries_of_an_unknown_run(store):
    """An entry belongs to a run that has a line in the ledger."""
    with pytest.raises(InternalError):
        await store.begin(run("a"), [user("other", 1)])
    assert await store.runs() == []


@pytest.mark.gen_test
async def test_store_remembers_a_sessions_use(store, path):
    """A session keeps when it was made, when last used, and its highest place."""
    await store.begin(run("a", started_at=1.0), [user("a", 1)])
    await store.finish(run("a", "finished", finished_at=2.0), [answer("a", 2)])
    await store.begin(run("b", created_at=3.0, started_at=None), [])
    assert rows(path, "SELECT created_at, used_at, last_seq FROM sessions") == [
        (1.0, 3.0, 2)
    ]


@pytest.mark.gen_test
async def test_store_refuses_what_is_no_json(store):
    """A message that cannot be written as JSON is refused, not mangled."""
    for text in ("\ud800", 1 << 70):
        with pytest.raises(InternalError):
            await store.begin(run("a"), [user("a", 1, text)])
    assert await store.runs() == []


@pytest.mark.gen_test
async def test_store_keeps_odd_text(store):
    """Any text JSON can carry comes back as it was, NUL included."""
    odd = [
        "a\0b",
        "\u2028\u2029\x85\x1b[0m",
        "ünïcödé ﷽ 👩‍👩‍👧‍👦 \U0010ffff",
        "'; DROP TABLE messages; -- :run_id ? %s \\",
        "",
        "x" * 1_000_000,
    ]
    sent = [user("a", seq, text) for seq, text in enumerate(odd, 1)]
    await store.begin(run("a", request_id="ré:q?%s"), sent)
    assert texts(await store.transcript(ANN)) == odd
    assert (await store.runs())[0].request_id == "ré:q?%s"


@pytest.mark.gen_test
async def test_store_lists_runs_newest_first(store):
    """The ledger's lines come newest first, as they were written."""
    full = run(
        "full",
        "failed",
        created_at=4.5,
        started_at=5.5,
        finished_at=6.5,
        first_delta_ms=17,
        finish_reason="length",
        error_code="run_timeout",
        usage=Usage(1, 2, 3, 4, True),
    )
    older = run("older", created_at=2.0, session=BOB)
    oldest = [run(name, created_at=1.0) for name in ("3", "2", "1")]
    for record in (older, full, oldest[1], oldest[0], oldest[2]):
        await store.begin(record, [])
    assert await store.runs() == [full, older, *oldest]
    assert await store.runs(limit=2) == [full, older]
    assert await store.runs(**of(ANN)) == [full, *oldest]
    assert await store.runs(**of(ANN), limit=1) == [full]


@pytest.mark.gen_test
async def test_store_ends_a_run_in_its_own_line(store):
    """A run has one line, from its start to its end; the latest state counts."""
    ended = run("a", "cancelled", error_code="run_cancelled", usage=Usage(7, 8, 1, 2))
    await store.begin(run("a"), [user("a", 1)])
    await store.finish(ended)
    assert await store.runs() == [ended]


@pytest.mark.gen_test
async def test_store_ends_a_run_that_never_began(store):
    """A run that ended in the queue has a line, and nothing in the transcript."""
    pended = run("a", "cancelled", started_at=None)
    await store.pend(pended._replace(state="queued"), [{"role": "user", "content": ""}])
    await store.finish(pended)
    refused = run("b", "failed", started_at=None, error_code="queue_timeout")
    await store.finish(refused)
    assert {record.run_id: record for record in await store.runs()} == {
        "run_a": pended,
        "run_b": refused,
    }
    assert await store.transcript(ANN) == Transcript()


@pytest.mark.gen_test
async def test_store_moves_pending_messages_when_the_run_starts(store, path):
    """What a waiting run keeps aside is gone once the run has begun."""
    waits = run("a", "queued", started_at=None)
    await store.pend(waits, [{"role": "user", "content": "later"}])
    assert await store.runs() == [waits]
    assert len(rows(path, "SELECT * FROM pending")) == 1
    await store.begin(run("a"), [user("a", 1, "later")])
    assert rows(path, "SELECT * FROM pending") == []
    assert texts(await store.transcript(ANN)) == ["later"]


@pytest.mark.gen_test
async def test_store_writes_stateless_runs_within_a_second(store):
    """A stateless run's line needs no wait: it is there a second later."""
    line = run("a", "finished", session=ANN._replace(key="agent:main:openai:1"))
    store.note(line)
    for _ in range(100):
        if await store.runs():
            break
        await asyncio.sleep(0.05)
    assert await store.runs() == [line]


@pytest.mark.gen_test
async def test_store_writes_noted_lines_with_the_next_change(store):
    """A noted line goes along with the next transaction, in order."""
    store.note(run("a", "finished", created_at=1.0))
    await store.begin(run("b", created_at=2.0), [])
    assert [record.run_id for record in await store.runs()] == ["run_b", "run_a"]


@pytest.mark.gen_test
async def test_store_flushes_notes_on_stop(url):
    """What was only noted is written before the store closes."""
    store = Store(url)
    await store.start([SECRET])
    await turn(store, "a", 1)
    store.note(run("b", "finished", session=BOB))
    store.note_delivered("run_a")
    await store.stop()
    await store.stop()
    with pytest.raises(StorageUnavailable):
        await store.begin(run("c"), [])
    with pytest.raises(StorageUnavailable):
        await store.transcript(ANN)
    await store.start([SECRET])
    assert len(await store.runs()) == 2
    assert (await store.transcript(ANN)).last_delivered
    await store.stop()


@pytest.mark.gen_test
async def test_store_leaves_all_in_one_file(url, path, tmp_path):
    """After stop() the database's file alone holds everything, whoever else reads."""
    store = Store(url)
    await store.start([SECRET])
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM runs").fetchall()
        await turn(store, "a", 1)
        await store.stop()
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
    assert rows(copy, "SELECT count(*) FROM messages") == [(2,)]


@pytest.mark.gen_test
async def test_store_knows_at_once_what_was_delivered(store):
    """A transcript tells of a delivery that is noted, written or not."""
    await turn(store, "a", 1)
    assert not (await store.transcript(ANN)).last_delivered
    store.note_delivered("run_a")
    assert (await store.transcript(ANN)).last_delivered
    await turn(store, "b", 1, session=BOB)  # takes the note along
    assert (await store.transcript(ANN)).last_delivered
    assert not (await store.transcript(BOB)).last_delivered
    await store.finish(run("a", "finished"))
    assert (await store.transcript(ANN)).last_delivered
    await turn(store, "c", 3)
    assert not (await store.transcript(ANN)).last_delivered


@pytest.mark.gen_test
async def test_store_serves_many_sessions_at_once(store):
    """Sessions that talk at the same time lose nothing and mix nothing."""

    async def talk(number):
        session = ANN._replace(key=f"key-{number}")
        for index in range(6):
            name = f"{number}_{index}"
            found = await store.transcript(session)
            assert found.last_seq == 2 * index
            await turn(store, name, found.last_seq + 1, session=session)
            store.note(run(f"note_{name}", "finished", session=BOB))
        found = await store.transcript(session)
        assert [one.run_id for one in found.entries] == [
            f"run_{number}_{index}" for index in range(6) for _ in "qa"
        ]

    await asyncio.gather(*(talk(number) for number in range(30)))
    await store.begin(run("last"), [])
    assert len(await store.runs(limit=1000)) == 30 * 6 * 2 + 1


@pytest.mark.gen_test
async def test_store_reports_a_query_that_is_refused(store, path):
    """A database that is not as it should be is an error, not an empty transcript."""
    await turn(store, "a", 1)
    rows(path, "DROP TABLE messages")
    with pytest.raises(InternalError):
        await store.transcript(ANN)


@pytest.mark.gen_test
async def test_store_needs_a_start():
    """Before its start the store says so."""
    store = Store("sqlite:////nonexistent/edwin.db")
    assert not store.writable
    with pytest.raises(StorageUnavailable):
        await store.runs()
    with pytest.raises(StorageUnavailable):
        await store.finish(run("a", "finished"))
    await store.stop()
