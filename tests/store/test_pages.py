"""Runs, sessions and messages, page by page."""

from __future__ import annotations

import pytest

from edwin.types import SessionRecord, StoredMessage
from tests.store.samples import ANN, BOB, answer, entry, image, run, user

IMAGE = image("AAAA")


async def pages(ask, place, limit):
    """Return all pages of *limit* that *ask* gives."""
    found, before = [], None
    while page := await ask(before=before, limit=limit):
        assert len(page) <= limit
        found.append(page)
        before = place(page[-1])
    return found


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_store_lists_runs_in_pages(store, limit):
    """Pages of runs lose none and double none, though many began at one moment."""
    times = [3.5, 1.25, 1.25, 1.25, 1.25, 2.0, 1.25]
    for name, at in zip("abcdefg", times, strict=True):
        await store.begin(run(name, created_at=at), [])
    found = await pages(store.runs, lambda line: (line.created_at, line.run_id), limit)
    names = [line.run_id[-1] for page in found for line in page]
    assert names == list("afgedcb")
    assert all(len(page) == limit for page in found[:-1])


@pytest.mark.gen_test
async def test_store_lists_the_runs_asked_for(store):
    """Runs are told apart by principal, agent, session and state."""
    others = {
        "a": ANN,
        "b": ANN._replace(principal="guest"),
        "c": ANN._replace(agent="beta"),
        "d": BOB,
    }
    for name, session in others.items():
        await store.begin(run(name, session=session), [])
    await store.finish(run("e", "finished"))

    async def names(**wanted):
        return "".join(line.run_id[-1] for line in await store.runs(**wanted))

    assert await names() == "edcba"
    assert await names(principal="guest") == "b"
    assert await names(agent="beta") == "c"
    assert await names(session_key=BOB.key) == "d"
    assert await names(state="finished") == "e"
    assert await names(principal="owner", agent="main", state="running") == "da"
    assert await names(principal="nobody") == ""
    assert await names(agent="main", before=(1000.0, "run_d")) == "ba"


@pytest.mark.gen_test
async def test_store_lists_sessions_by_their_last_use(store):
    """The sessions used last come first, each with what its transcript holds."""
    begun = run("a", started_at=10.0)
    await store.begin(begun, [user("a", 1)])
    await store.finish(run("a", "finished", finished_at=11.0), [answer("a", 2)])
    await store.begin(run("b", started_at=5.0, session=BOB), [user("b", 1)])
    await store.finish(run("b", "failed", finished_at=12.0, session=BOB))
    ann = SessionRecord(ANN, 10.0, 11.0, 2)
    bob = SessionRecord(BOB, 5.0, 5.0, 0)
    assert await store.sessions(principal="owner") == [ann, bob]
    await store.begin(run("c", started_at=13.0, session=BOB), [user("c", 2)])
    bob = SessionRecord(BOB, 5.0, 13.0, 1)
    assert await store.sessions(principal="owner") == [bob, ann]
    assert await store.session(ANN) == ann
    assert await store.session(BOB) == bob
    assert await store.session(ANN._replace(agent="beta")) is None
    await store.begin(run("d", started_at=14.0), [user("d", 3)], [1, 2])
    assert (await store.session(ANN)).messages == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_store_lists_sessions_in_pages(store, limit):
    """Pages of sessions lose none and double none, though used at one moment."""
    made = [
        ANN._replace(principal=principal, agent=agent, key=key)
        for principal in ("owner", "guest")
        for agent in ("beta", "main")
        for key in ("k", "kk", "k!")
    ]
    for number, session in enumerate(made):
        await store.begin(run(str(number), session=session), [])

    async def ask(wanted, **page):
        found = await pages(
            lambda **rest: store.sessions(**wanted, **rest), store.place, **page
        )
        listed = [record.session for page in found for record in page]
        assert len(listed) == len(set(listed))
        return set(listed)

    assert await ask({"principal": None}, limit=limit) == set(made)
    mine = {session for session in made if session.principal == "guest"}
    assert await ask({"principal": "guest"}, limit=limit) == mine
    beta = {session for session in mine if session.agent == "beta"}
    assert await ask({"principal": "guest", "agent": "beta"}, limit=limit) == beta


@pytest.mark.gen_test
async def test_store_shows_messages_in_pages(store):
    """Messages come in their order, those out of the transcript on demand."""
    await store.begin(run("a"), [entry("a", 1, IMAGE)])
    await store.finish(run("a", "finished"), [answer("a", 2)])
    await store.begin(run("b"), [user("b", 3)], [2])
    await store.finish(run("b", "failed"))
    await store.begin(run("c"), [user("c", 4, "again")])
    shown = [
        StoredMessage(1, "run_a", IMAGE, False, True),
        StoredMessage(2, "run_a", {"role": "assistant", "content": "hi"}, True, False),
        StoredMessage(3, "run_b", {"role": "user", "content": "hello"}, False, False),
        StoredMessage(4, "run_c", {"role": "user", "content": "again"}, False, True),
    ]
    current = [shown[0], shown[3]]
    assert await store.messages(ANN) == current
    assert await store.messages(ANN, superseded=True) == shown
    assert await store.messages(ANN, after=1) == current[1:]
    assert await store.messages(ANN, limit=1) == current[:1]
    assert await store.messages(ANN, after=1, limit=2, superseded=True) == shown[1:3]
    assert await store.messages(ANN, after=4, superseded=True) == []
    assert await store.messages(BOB) == []
    found = await store.messages(ANN, superseded=True)
    assert {type(message.current) for message in found} == {bool}
    await store.reset(ANN, 2000.0)
    assert await store.messages(ANN) == []
    anew = await store.messages(ANN, superseded=True)
    assert anew == [message._replace(current=False) for message in shown]
