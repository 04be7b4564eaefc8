"""Another configuration while the gateway serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.request

import aiohttp
import pytest
import yaml

from edwin.errors import ConfigError
from edwin.testing.gateway import TOKEN, merged
from tests.conftest import Client, chat, raw_chat
from tests.process import GatewayProcess
from tests.test_principals import gateway, named, say, token


def of_generation(served, number: int, **rest) -> dict:
    """Return a configuration whose agent and provider both say *number*."""
    provider = {"baseUrl": f"{served.upstream.url}/gen-{number}"}
    base = served._base() | {"gateway": {**served._base()["gateway"], "port": 0}}
    return merged(
        base,
        {
            "agents": {"defaults": {"instructions": f"gen-{number}"}},
            "models": {"providers": {"upstream": provider}},
            **rest,
        },
    )


@pytest.mark.gen_test
async def test_reload_takes_effect_with_the_next_request(served, client):
    """Agents, models and switches are those of the new configuration."""
    new = of_generation(served, 1, agents={"list": [{"id": "main"}, {"id": "new"}]})
    assert await served.gateway.reload(new) == []
    assert (await client.chat("hi", model="edwin:new")).status == 200
    assert served.upstream.requests[-1].path.startswith("/v1/gen-1/")
    off = merged(
        new,
        {"gateway": {"http": {"endpoints": {"chatCompletions": {"enabled": False}}}}},
    )
    await served.gateway.reload(off)
    assert (await client.chat("hi")).status == 404


@pytest.mark.gen_test
async def test_reload_leaves_runs_to_their_configuration(served, client, connect):
    """A run under way, and one that waits, end as they began."""
    served.upstream.hang(["one "], then=["end"])
    first = asyncio.ensure_future(client.chat("a", user="ann", stream=True))
    await served.upstream.arrival()
    second = asyncio.ensure_future(client.chat("b", user="ann"))
    while not served.gateway.engine.waiting:
        await asyncio.sleep(0.01)
    await served.gateway.reload(of_generation(served, 1))
    third = asyncio.ensure_future(client.chat("c", user="ann"))
    served.upstream.release()
    assert (await first).text == "one end"
    assert ((await second).text, (await third).text) == ("b", "c")
    paths = [request.path for request in served.upstream.requests]
    assert ["/gen-1/" in path for path in paths] == [False, False, True]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "change",
    [
        {"agents": {"defaults": {"model": "nobody/x"}}},
        {
            "models": {
                "providers": {"y": {"api": "no.such:Class", "baseUrl": "http://x"}}
            }
        },
        {"gateway": {"tls": {"certFile": "/no/such", "keyFile": "/no/such"}}},
    ],
    ids=["invalid", "provider", "certificate"],
)
async def test_reload_of_what_is_wrong_changes_nothing(served, client, change):
    """A configuration that cannot be used is refused whole, and the last one stays."""
    before = served.gateway.config
    with pytest.raises(ConfigError):
        await served.gateway.reload(merged(of_generation(served, 1), change))
    assert served.gateway.config is before
    assert (await client.chat("hi")).text == "hi"
    assert "/gen-1/" not in served.upstream.requests[-1].path


@pytest.mark.gen_test
async def test_reload_says_what_takes_a_restart(served):
    """What cannot change while the gateway serves is named, and left as it was."""
    new = merged(
        of_generation(served, 1), {"gateway": {"port": 1, "monitor": {"blockedMs": 7}}}
    )
    assert await served.gateway.reload(new) == ["gateway.port", "gateway.monitor"]


@pytest.mark.gen_test
async def test_reload_ends_what_is_not_allowed_any_more(make_gateway, connect):
    """A token that left the configuration ends at once, with its streams."""
    both = gateway(named("ann", "runs:create"), named("bob", "runs:create"))
    served = await make_gateway(both)
    client = Client(served)
    streams = {}
    for who in ("ann", "bob"):
        served.upstream.hang(["half "], then=["end"])
        data = raw_chat("go", stream=True).replace(TOKEN.encode(), token(who).encode())
        streams[who] = await connect(served, data)
        await streams[who].until(b"half")
    await served.gateway.reload(
        merged(served._base(), gateway(named("bob", "runs:create")))
    )
    assert b"[DONE]" not in await streams["ann"].to_end()
    assert (await say(client, "ann", "hi")).status == 401
    served.upstream.release()
    assert b"[DONE]" in await streams["bob"].until(b"[DONE]")
    assert (await say(client, "bob", "hi")).status == 200


@pytest.mark.gen_test(timeout=120)
async def test_reload_under_load(served):
    """Of 10,000 requests in 50 reloads, good and bad, none is dropped or split."""
    wrong = []
    left = iter(range(10_000))
    generation = 0

    async def ask(session: aiohttp.ClientSession) -> None:
        for number in left:
            document = chat(f"q{number}", stream=number % 2 == 0)
            async with session.post(
                f"{served.url}/v1/chat/completions", json=document
            ) as response:
                text = await response.text()
                whole = "[DONE]" in text if document["stream"] else '"stop"' in text
                if response.status != 200 or not whole:
                    wrong.append((response.status, text[:200]))

    async def reload() -> None:
        nonlocal generation
        for generation in range(1, 51):
            config = of_generation(served, generation)
            if generation % 5 == 0:
                config["agents"]["defaults"]["model"] = "nobody/x"
                with pytest.raises(ConfigError):
                    await served.gateway.reload(config)
            else:
                await served.gateway.reload(config)
            await asyncio.sleep(0.05)

    headers = {"Authorization": f"Bearer {TOKEN}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(reload(), *(ask(session) for _ in range(24)))
    assert not wrong, (len(wrong), wrong[:3])
    assert len(served.upstream.requests) == 10_000
    generations = set()
    for request in served.upstream.requests:
        first = request.body["messages"][0]
        said = first["content"] if first["role"] == "system" else None
        path = request.path.removeprefix("/v1/").partition("/")[0]
        assert (said or "chat") == path, (said, request.path)
        generations.add(path)
    assert len(generations) > 20


def test_reload_by_signal_and_by_file(tmp_path):
    """SIGHUP, or a change of the file, is enough; a bad file is told with its line."""
    with GatewayProcess(tmp_path, {}) as process:
        path = tmp_path / "edwin.yaml"
        document = yaml.safe_load(path.read_text("utf-8"))

        def until(word: str, count: int = 1) -> dict:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                found = [x for x in list(process.lines) if word in x["message"]]
                if len(found) >= count:
                    return found[-1]
                time.sleep(0.02)
            raise AssertionError(process.lines)

        os.kill(process.process.pid, signal.SIGHUP)
        until("was reloaded")
        document["agents"] = {"list": [{"id": "main"}, {"id": "extra"}]}
        draft = tmp_path / "draft.yaml"
        draft.write_text(yaml.safe_dump(document), "utf-8")
        draft.replace(path)
        until("was reloaded", 2)
        assert "edwin:extra" in models(process)
        path.write_text("gateway:\n  prot: 1\n", "utf-8")
        line = until("is not reloaded")
        assert "edwin.yaml:2" in line["message"]
        assert "edwin:extra" in models(process)
        process.terminate()
        assert process.wait() == 0
    events = [
        json.loads(text)["event"]
        for text in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()
    ]
    assert events.count("config.reloaded") == 2
    assert events.count("config.refused") == 1


def models(process: GatewayProcess) -> set[str]:
    request = urllib.request.Request(
        f"{process.url}/v1/models", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as answer:
        return {model["id"] for model in json.load(answer)["data"]}


@pytest.mark.gen_test
async def test_reload_of_another_token(served, client, connect):
    """The gateway's own token can be changed; what the former one has open ends."""
    served.upstream.hang(["half "], then=["end"])
    stream = await connect(served, raw_chat("go", stream=True))
    await stream.until(b"half")
    new = merged(served._base(), {"gateway": {"auth": {"token": "x" * 32}}})
    await served.gateway.reload(new)
    assert b"[DONE]" not in await stream.to_end()
    assert (await client.chat("hi")).status == 401
    answer = await client.request("/v1/chat/completions", chat("hi"), token="x" * 32)
    assert answer.code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("ends", ["whole", "left", "refused", "half a body"])
async def test_reload_lets_the_former_providers_go(served, client, connect, ends):
    """Providers that are not configured any more are stopped when nobody needs them."""
    former = served.gateway.providers.current["upstream"]
    if ends == "whole":
        await client.chat("hi")
    elif ends == "refused":
        assert (await client.chat(model="edwin:nobody")).status == 404
    elif ends == "left":
        served.upstream.hang(["half "])
        stream = await connect(served, raw_chat("go", stream=True))
        await stream.until(b"half")
    else:
        stream = await connect(served, raw_chat("go")[:-5])
        await asyncio.sleep(0.1)
    await served.gateway.reload(of_generation(served, 1))
    if ends in ("left", "half a body"):
        await asyncio.sleep(0.1)
        assert not former._session.closed
        await stream.close()
    async with asyncio.timeout(5):
        while former._session is not None and not former._session.closed:
            await asyncio.sleep(0.01)
