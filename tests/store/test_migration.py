"""A store of the first release, brought up to date with all that is in it."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from edwin.store import Store
from edwin.store.upgrade import MIGRATIONS
from edwin.types import KeptRun, SessionRecord
from tests.store.samples import ANN, BOB, SECRET, answer, image, rows, run, user

RUN = (
    "INSERT INTO runs VALUES "
    "(?, 'req', ?, ?, ?, ?, 1000.0, 1000.5, 1001.25, NULL, NULL, NULL, "
    "10, 5, 0, 0, 0, 0)"
)


def at_first(path):
    """Make the tables of the first release."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()


def id_of(session):
    """Return the key of *session* as the first release made it."""
    text = json.dumps(list(session), separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:16]


def packed(data):
    """Return a message that shows the image *data*, and its blob, as they were kept."""
    blob = f"data:image/png,{data}".encode()
    return json.dumps(image("")).replace("data:image/png,", ""), blob


def refs(*blobs):
    return [
        [index, hashlib.sha256(blob).hexdigest()] for index, blob in enumerate(blobs)
    ]


@pytest.fixture
def old(path):
    """Return the database of a first release: two sessions and one that waits."""
    at_first(path)
    shown, first = packed("1")
    _, second = packed("2")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for blob in (first, second):
            digest = hashlib.sha256(blob).digest()
            connection.execute("INSERT INTO blobs VALUES (?, ?)", (digest, blob))
        for session in (ANN, BOB):
            row = (id_of(session), *session, 1000.0, 1001.25, 3)
            connection.execute("INSERT INTO sessions VALUES (?,?,?,?,?,?,?)", row)
        for name, session, state in (
            ("a", ANN, "finished"),
            ("b", BOB, "finished"),
            ("c", ANN._replace(key="waits"), "queued"),
        ):
            connection.execute(RUN, (f"run_{name}", *session, state))
        for name, session, places in (("a", ANN, (1, 2, 3)), ("b", BOB, (3,))):
            for seq in places:
                blobs = json.dumps(refs(first)) if seq != 2 else None
                row = (
                    id_of(session),
                    seq,
                    f"run_{name}",
                    "user",
                    False,
                    b"",
                    shown if blobs else '{"role": "user", "content": "plain"}',
                    blobs,
                    None,
                )
                connection.execute(
                    "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?)", row
                )
        waiting = [
            {"role": "user", "body": json.loads(shown), "blobs": refs(second)},
            {"role": "user", "body": {"role": "user", "content": ""}, "blobs": None},
        ]
        row = ("run_c", json.dumps(waiting))
        connection.execute("INSERT INTO pending VALUES (?, ?)", row)
    connection.close()
    return path


@pytest.mark.gen_test
async def test_store_of_the_first_release_is_kept(old, url):
    """All that the first release stored is there, and goes on as before."""
    store = Store(url)
    await store.start([SECRET])
    found = await store.transcript(ANN)
    contents = [one.message["content"] for one in found.entries]
    assert contents == [image("1")["content"], "plain", image("1")["content"]]
    assert (found.last_seq, found.used_at) == (3, 1001.25)
    assert await store.session(ANN) == SessionRecord(ANN, 1000.0, 1001.25, 3)
    expected = run("b", "finished", session=BOB, request_id="req", events=0)
    assert await store.run("run_b") == KeptRun(expected)
    assert (await store.run("run_c")).record.error_code == "gateway_restarted"
    waited = await store.messages(ANN._replace(key="waits"), superseded=True)
    assert waited[0].message == image("2")
    assert not any(message.current for message in waited)
    await store.begin(run("d"), [user("d", 4)])
    await store.finish(run("d", "finished"), [answer("d", 5)])
    assert len((await store.transcript(ANN)).entries) == 5
    await store.stop()
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]
    assert rows(old, "PRAGMA foreign_key_check") == []


@pytest.mark.gen_test
async def test_store_knows_who_used_images_before_the_migration(old, url):
    """Images of earlier messages, waiting ones too, go with their last session."""
    store = Store(url)
    await store.start([SECRET])
    counts = "SELECT message_count FROM sessions ORDER BY message_count"
    assert rows(old, counts) == [(1,), (2,), (3,)]
    assert rows(old, "SELECT count(*) FROM blob_uses") == [(3,)]
    for session, left in ((ANN, 2), (BOB, 1), (ANN._replace(key="waits"), 0)):
        assert await store.delete(session)
        assert rows(old, "SELECT count(*) FROM blobs") == [(left,)]
    await store.stop()
