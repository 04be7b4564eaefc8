"""Images in a request: what is taken, and what is kept of it."""

from __future__ import annotations

import base64
import sqlite3

import pytest

from tests.conftest import Client

BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\0\0\0\0WEBP",
}
LINK = "https://images.example/cat.png"


def data(kind: str = "image/png", content: bytes | None = None) -> str:
    content = BEGINNINGS[kind] if content is None else content
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def message(*urls: str):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", BEGINNINGS)
async def test_images_go_up(client, kind):
    """PNG, JPEG, GIF and WebP go up as they came, in any case of the URL's head."""
    sent = message(data(kind), data(kind).replace("data:image", "DATA:Image"))
    assert (await client.chat(sent)).status == 200
    assert client.served.upstream.requests[0].body["messages"] == [sent]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "url",
    [
        LINK,
        LINK.upper(),
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "ftp://example/x.png",
        "x",
        "data:,",
        "data:image/png,abc",
        data("image/png", b"GIF89a"),
        data("image/png").replace("png", "svg+xml"),
        data("image/png").replace("image/png", "text/html"),
        data("image/png") + "!",
        data("image/png")[:-2] + "\u00e9=",
        data("image/png", BEGINNINGS["image/png"] + bytes(10_000_000)),
    ],
)
async def test_images_that_are_refused(client, url):
    """Anything else is refused by its place, and never fetched by anybody."""
    answer = await client.chat("before", message(data(), url))
    assert answer.status == 400
    assert answer.error["param"] == "messages[1].content[2].image_url.url"
    assert answer.error["code"] == "invalid_image_url"
    assert len(answer.error["message"]) < 200
    assert client.served.upstream.requests == []


@pytest.mark.gen_test
async def test_images_are_eight_at_most(client):
    """Eight images a turn, in however many messages; ten million bytes each."""
    large = data("image/png", BEGINNINGS["image/png"] + bytes(10_000_000 - 8))
    assert (await client.chat(message(large))).status == 200
    four = message(*[data()] * 4)
    assert (await client.chat(four, four)).status == 200
    said = {"role": "assistant", "content": "Seen."}
    assert (await client.chat(four, four, said, message(data()))).status == 200
    answer = await client.chat(four, four, message(data()))
    assert answer.status == 400
    assert answer.error["param"] == "messages[2].content[1].image_url.url"


@pytest.mark.gen_test
async def test_images_by_link_where_allowed(make_gateway):
    """Links go up to a provider that may fetch them, if every fallback may."""
    models = {"providers": {"upstream": {"remoteImages": True}}}
    client = Client(await make_gateway({"models": models}))
    assert (await client.chat(message(LINK))).status == 200
    assert client.served.upstream.requests[0].body["messages"] == [message(LINK)]
    agents = {"defaults": {"fallbacks": ["local/smollm2-135m-instruct"]}}
    client = Client(await make_gateway({"models": models, "agents": agents}))
    assert (await client.chat(message(LINK))).status == 400


@pytest.mark.gen_test
async def test_images_are_stored_once(client):
    """An image that comes again and again is kept once, and read back whole."""
    url = data("image/png", BEGINNINGS["image/png"] + bytes(range(256)) * 40)
    served = client.served
    for user in ("ann", "bob"):
        await client.chat(message(url), user=user)
        await client.chat(message(url), "again", user=user)
    served.gateway.registry._live.clear()
    await client.chat("last", user="ann")
    sent = served.upstream.requests[-1].body["messages"]
    assert sum(m == message(url) for m in sent) == 2
    with sqlite3.connect(served.gateway._folder.path / "edwin.db") as database:
        (size,) = database.execute("SELECT count(*) FROM blobs").fetchone()
        bodies = database.execute("SELECT body FROM messages").fetchall()
    database.close()
    assert size == 1
    assert max(len(body) for (body,) in bodies) < 500
