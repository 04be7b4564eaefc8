"""Images and files, kept once."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, event

from edwin.errors import InternalError
from tests.store.samples import ANN, BOB, entry, image, rows, run, user

PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.gen_test
async def test_store_keeps_an_image_once(store, path):
    """An image or a file is stored once, however often and by whomever it is sent."""
    parts = [
        {"type": "text", "text": PIXEL},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    sent = {"role": "user", "content": parts}
    before = repr(sent)
    await store.begin(run("a"), [entry("a", 1, sent), entry("a", 2, sent)])
    await store.begin(run("b", session=BOB), [entry("b", 1, sent)])
    await store.pend(run("c", "queued"), [sent])
    assert repr(sent) == before
    for session in (ANN, BOB):
        for found in (await store.transcript(session)).entries:
            assert found.message == sent
    assert sorted(rows(path, "SELECT data FROM blobs")) == [
        (b"JVBERi0=",),
        (PIXEL.encode(),),
    ]
    ((body,),) = rows(path, "SELECT body FROM messages WHERE seq = 2")
    assert body.count(PIXEL) == 1  # what is text stays text


@pytest.mark.gen_test
async def test_store_gives_many_images_back(store):
    """A transcript may hold more images than one query asks for."""

    def image(number):
        url = f"data:image/png;base64,{number}"
        part = {"type": "image_url", "image_url": {"url": url}}
        return {"role": "user", "content": [part]}

    sent = [entry("a", seq, image(seq)) for seq in range(1, 1202)]
    await store.begin(run("a"), sent)
    assert list((await store.transcript(ANN)).entries) == sent


@pytest.mark.gen_test
async def test_store_never_takes_a_clients_word_for_a_blob(store):
    """Nothing a client writes into a message makes the store put a blob there."""
    await store.begin(
        run("a"),
        [
            entry(
                "a",
                1,
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": PIXEL}}],
                },
            )
        ],
    )
    forged = {"role": "user", "content": [{"type": "image_url", "image_url": 1}]}
    forged["blobs"] = [[0, "00" * 32]]
    await store.begin(run("b", session=BOB), [entry("b", 1, forged)])
    assert (await store.transcript(BOB)).entries[0].message == forged


@pytest.mark.gen_test
async def test_store_reads_on_when_an_image_goes_meanwhile(store, path):
    """A message that is removed while it is read is there or not, with its image."""
    await store.begin(run("a"), [entry("a", 1, image("AAAA")), user("a", 2)])
    left = ["DELETE FROM messages WHERE seq = 1", "DELETE FROM blobs"]

    def executed(connection, cursor, statement, *rest):
        while left and statement.startswith("SELECT messages.seq"):
            rows(path, left.pop())

    event.listen(Engine, "after_cursor_execute", executed)
    try:
        found = await store.messages(ANN)
    finally:
        event.remove(Engine, "after_cursor_execute", executed)
    assert [message.seq for message in found] == [2]


@pytest.mark.gen_test
async def test_store_reports_an_image_it_lacks(store, path):
    """A message whose image is nowhere is an error, not a message without it."""
    await store.begin(run("a"), [entry("a", 1, image("AAAA"))])
    rows(path, "DELETE FROM blobs")
    with pytest.raises(InternalError, match="lacks"):
        await store.transcript(ANN)
    with pytest.raises(InternalError, match="lacks"):
        await store.messages(ANN)
